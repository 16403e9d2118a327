"""Reads the JSON that programs keep next to their arrays: each field has its type, or is an error of one line."""

from collections.abc import Mapping
from typing import Any, TypeVar, cast, get_type_hints, is_typeddict

from vmoe_inform import checks

T = TypeVar("T")


def read(name: str, given: Mapping[str, Any], kind: type[T]) -> T:
    """The fields of a JSON object that a TypedDict has.

    Args:
      name: of the object, for messages.
      given: the object. What it has besides is not read; ``null`` counts as nothing, as the programs write it.
      kind: a TypedDict without required keys, of types that :func:`vmoe_inform.checks.conform` takes, of ``Any``, or
        of further such TypedDicts.

    Raises:
      ValueError: a field of another type; names it.
    """
    found: dict[str, Any] = {}
    for field, hint in get_type_hints(kind, include_extras=True).items():
        value, label = given.get(field), f"{name}: {field}"
        if value is None:
            continue
        if is_typeddict(hint):
            if not isinstance(value, Mapping):
                raise checks.error(label, "an object", value)
            value = read(label, value, hint)
        elif hint is not Any:
            value = checks.conform(label, value, hint)
        found[field] = value
    return cast(T, found)
