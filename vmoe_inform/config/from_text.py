"""Values that are typed as text, on a command line or in the argument of a config file, as the type of their field."""

import ast
import types
import warnings
from typing import Any, Union, get_args, get_origin

from vmoe_inform import checks

_MOST_ITEMS = 1000  # of a comma list
_TRUE, _FALSE = ("true", "t", "1"), ("false", "f", "0")


def literal(text: str) -> Any:
    """The Python literal that ``text`` is (a number, True, None, a tuple), or the text itself."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of a literal that is written in an old way
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):  # the last two: too deep
        return text


def value(field: str, text: str, hint: Any) -> Any:
    """The value of ``text`` for a field of the type ``hint``.

    A number, ``None``, ``true`` and ``false`` are themselves. Where the field takes a tuple, ``a,b`` is one, and
    ``('a','b')`` is the same. If the field takes only tuples, a single ``a`` is one, too. All else is text.

    Args:
      field: its name, for the error message.
      text: as it was typed.
      hint: as :func:`vmoe_inform.checks.conform` takes it.

    Raises:
      ValueError: nothing that the text may mean fits the field.
    """
    plain = checks.plain(hint)
    choices = [checks.plain(choice) for choice in get_args(plain)] if _is_union(plain) else [plain]
    if choices == [str]:
        return checks.conform(field, text, hint)
    if choices == [bool] and text.lower() in (*_TRUE, *_FALSE):
        return text.lower() in _TRUE
    meant = {"true": True, "false": False}.get(text, literal(text))
    candidates = [meant]
    if any(get_origin(choice) is tuple for choice in choices):
        if not text.strip():
            candidates = [()]
        elif "," in text and text.lstrip()[0] not in "([{\"'":
            items = [item.strip() for item in text.split(",")]
            if not all(items) or len(items) > _MOST_ITEMS:
                expected = f"a comma list of at most {_MOST_ITEMS:,} items, none of them empty"
                raise checks.error(field, expected, text)
            candidates = [tuple(map(literal, items)), tuple(items)]
        else:
            candidates += [text, (meant,), (text,)]
    for candidate in (*candidates, text):
        try:
            return checks.conform(field, candidate, hint)
        except checks.InputError:
            continue
    return checks.conform(field, meant, hint)


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def parse_argument(argument: str | None, **defaults: str) -> dict[str, str]:
    """Reads the string after a config file's name, a comma list of ``key=value``.

    Args:
      argument: e.g. ``"router=attention_vmoe,experts=16"``, or None.
      **defaults: the allowed keys with their defaults.

    Raises:
      ValueError: an item without ``=``, an unknown key, or a key given twice.
    """
    values: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in (argument or "").split(","))):
        key, separator, value = item.partition("=")
        if not separator or not value:
            raise checks.error("config argument", "a comma list of key=value", item)
        if key not in defaults:
            raise checks.unknown("config argument", f"one of the keys {', '.join(defaults)}", key, defaults)
        if key in values:
            raise checks.error("config argument", f"the key {key} once", argument)
        values[key] = value
    return {**defaults, **values}
