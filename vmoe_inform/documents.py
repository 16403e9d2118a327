"""JSON documents as frozen dataclasses: to the values that JSON has, and back with a check of every field.

A document is a dataclass. Its fields are numbers, strings, booleans, None, other such dataclasses, ``tuple[X, ...]``,
``tuple[X, Y]``, ``Mapping[str, X]`` or unions of these. ``Annotated`` bounds (:class:`vmoe_inform.checks.Bound`) are
checked. A field is a key of the JSON object. ``dataclasses.field(metadata={"key": "class"})`` gives it another key. A
field with a default may be missing. Unknown keys are ignored, since newer versions of the library may write more.
"""

import dataclasses
import functools
import types
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from vmoe_inform import checks, storage

Document = TypeVar("Document")
VERSION_KEY = "version"  # of the schema; documents that were written before there were versions have none: 1


def read(
    path: storage.Path, versions: Mapping[int, Callable[[Any], Document]], *, within: storage.Path | None = None
) -> Document:
    """The document in a JSON file.

    Args:
      path: of the file.
      versions: by schema version, a function from the file's JSON value to the document. It is :func:`from_json`, or
        the same of an older dataclass and its conversion, and raises ValueError for another value.
      within: folder of the run.

    Raises:
      DamagedFileError: it is no such document.
      FileNotFoundError, InputError, OSError: as :func:`vmoe_inform.storage.read_json`.
    """
    value = storage.read_json(path, within=within)
    version = value.get(VERSION_KEY, 1) if isinstance(value, dict) else 1
    try:
        if not isinstance(version, int) or version not in versions:
            raise ValueError(f"schema version {version!r}; this version of the library reads up to {max(versions)}")
        return versions[version](value)
    except ValueError as problem:
        raise storage.DamagedFileError(path, "JSON as it was written", str(problem)) from None


def to_json(value: Any, *, leave_out_empty: bool = False) -> Any:
    """A document as dicts, lists and numbers, which ``json.dumps`` takes and :func:`from_json` reads.

    Args:
      value: the document.
      leave_out_empty: whether fields that have a default are left out where they are None or of no length.
    """
    inner = functools.partial(to_json, leave_out_empty=leave_out_empty)
    if dataclasses.is_dataclass(value):
        fields = {field: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {
            _key(field): inner(item)
            for field, item in fields.items()
            if not (leave_out_empty and _has_default(field) and (item is None or item in ("", (), {}, [])))
        }
    if isinstance(value, Mapping):
        return {key: inner(item) for key, item in value.items()}
    return [inner(item) for item in value] if isinstance(value, tuple | list) else value


def from_json(value: Any, kind: type[Document]) -> Document:
    """The document that :func:`to_json` was given.

    Args:
      value: as ``json.loads`` gives it.
      kind: the dataclass.

    Raises:
      ValueError: a field is missing or of another type; the message names the first one.
    """
    return _read(value, kind, "")


def _read(value: Any, hint: Any, field: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return _read_fields(value, hint, field)
    if origin in (Union, types.UnionType):
        return _read_first(value, arguments, field)
    if origin is tuple and arguments[-1] is Ellipsis:
        _check(isinstance(value, list), value, "a list", field)
        return tuple(_read(item, arguments[0], f"{field}[{index}]") for index, item in enumerate(value))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        _check(isinstance(value, dict), value, "an object", field)
        return {key: _read(item, arguments[1], f"{field}.{key}".removeprefix(".")) for key, item in value.items()}
    problem = checks.misfit(value, hint, field)
    if problem is not None:
        raise ValueError(problem)
    return checks.conform(field, value, hint)


def _read_fields(value: Any, kind: Any, name: str) -> Any:
    _check(isinstance(value, dict), value, "an object", name)
    found = {}
    for field, key, hint in _fields(kind):
        if key in value:
            found[field.name] = _read(value[key], hint, f"{name}.{key}".removeprefix("."))
        elif not _has_default(field):
            raise ValueError(f"{name}: no {key!r}".removeprefix(": "))
    return kind(**found)


def _read_first(value: Any, options: tuple[Any, ...], field: str) -> Any:
    """The first option that fits; else the complaint about the field furthest inside."""
    problems = []
    for option in options:
        try:
            return _read(value, option, field)
        except ValueError as problem:
            problems.append(str(problem))
    raise ValueError(max(problems, key=lambda problem: len(problem.partition(": ")[0])))


def _check(holds: bool, value: Any, expected: str, field: str) -> None:
    if not holds:
        raise ValueError(checks.words_of_misfit(field, expected, value))


@functools.cache
def _fields(kind: Any) -> tuple[tuple[dataclasses.Field[Any], str, Any], ...]:
    hints = get_type_hints(kind, include_extras=True)
    return tuple((field, _key(field), hints[field.name]) for field in dataclasses.fields(kind))


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _key(field: dataclasses.Field[Any]) -> str:
    return field.metadata.get("key", field.name)
