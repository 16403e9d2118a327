"""Checks of values that users pass: every error names the field, what was expected and what was received."""

import dataclasses
import math
import numbers
import types
from collections.abc import Mapping
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    TypeAlias,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)


@dataclasses.dataclass(frozen=True)
class Bound:
    """An interval of allowed numbers, used as ``Annotated[float, Bound(above=0.0)]``.

    Attributes:
      above: exclusive lower bound, or None.
      at_least: inclusive lower bound, or None.
      below: exclusive upper bound, or None.
      at_most: inclusive upper bound, or None.
    """

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None

    def holds(self, value: float) -> bool:
        return (
            math.isfinite(value)
            and (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )

    def __str__(self) -> str:
        parts = [
            (self.above, ">"),
            (self.at_least, ">="),
            (self.below, "<"),
            (self.at_most, "<="),
        ]
        return " and ".join(f"{sign} {number:.12g}" for number, sign in parts if number is not None)


PositiveFloat: TypeAlias = Annotated[float, Bound(above=0.0)]
NonNegativeFloat: TypeAlias = Annotated[float, Bound(at_least=0.0)]
Share: TypeAlias = Annotated[float, Bound(at_least=0.0, at_most=1.0)]
ShareBelowOne: TypeAlias = Annotated[float, Bound(at_least=0.0, below=1.0)]
PositiveInt: TypeAlias = Annotated[int, Bound(at_least=1)]
NonNegativeInt: TypeAlias = Annotated[int, Bound(at_least=0)]

_POSITIVE_FLOAT32 = Bound(at_least=2.0**-126, below=2.0**128)  # the normal numbers: others are 0 or inf on a device


class InputError(ValueError):
    """Something that a user passed is wrong. Command lines print its message without a traceback."""


def error(field: str, expected: str, received: Any) -> InputError:
    """The one form of error message for bad input."""
    return InputError(f"{field}: expected {expected}; received {received!r}")


def positive(field: str, value: Any) -> None:
    """Raises ValueError unless ``value`` is a number > 0, also after rounding to float32.

    Arrays (for instance a learned temperature under ``jit``) are passed: their value is not known here.
    """
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (_POSITIVE_FLOAT32.holds(float(value)) if is_number else hasattr(value, "dtype")):
        raise error(field, "a number > 0 (in float32)", value)


def shape(field: str, received: tuple[int, ...], expected: tuple[int | str, ...]) -> None:
    """Raises ValueError unless the shape ``received`` fits.

    Args:
      field: name of the array, for the error message.
      received: its shape.
      expected: sizes; a letter stands for any size, and ``"..."`` in front for any leading axes.
    """
    leading = expected[:1] == ("...",)
    sizes = expected[1:] if leading else expected
    extra = len(received) - len(sizes)
    fits = extra >= 0 if leading else extra == 0
    if not fits or any(isinstance(size, int) and size != received[extra + i] for i, size in enumerate(sizes)):
        raise error(field, f"shape [{', '.join(map(str, expected))}]", list(received))


def describe(hint: Any) -> str:
    """A type hint in words: ``Literal["a", "b"]`` is ``one of 'a', 'b'``."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return " ".join([describe(arguments[0]), *(str(bound) for bound in arguments[1:] if isinstance(bound, Bound))])
    if origin is Literal:
        return "one of " + ", ".join(repr(a) for a in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(a) for a in arguments)
    if origin is tuple:
        return f"tuple of {describe(arguments[0])}"
    if origin in (dict, Mapping):
        return "mapping"
    if hint is type(None):
        return "None"
    return {"str": "string", "bool": "true or false"}.get(hint.__name__, hint.__name__)


def conform(field: str, value: Any, hint: Any) -> Any:
    """Returns ``value`` as the type ``hint`` says.

    An int passes for a float and a list for a tuple, nothing else is converted.

    Args:
      field: name of the field, for the error message.
      value: what the user gave.
      hint: bool, int, float, str, None, Literal, tuple[X, ...], a union of those, or Annotated; of what it is annotated
        with, Bounds have to hold.

    Raises:
      ValueError: if the value does not fit; the message has field, expected and received.
    """
    accepted, result = _try(value, hint)
    if not accepted:
        raise error(field, describe(hint), value)
    return result


def misfit(value: Any, hint: Any, field: str = "") -> str | None:
    """What part of a JSON value is not of a type, in words; None if it fits.

    Args:
      value: as ``json.loads`` gives it.
      hint: what :func:`conform` takes, Any, ``list[X]``, ``dict[str, X]``, a TypedDict (further keys are allowed) or a
        union of such.
      field: name of the value, for the words.
    """
    if hint is Any:
        return None
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Required, NotRequired):
        return misfit(value, arguments[0], field)
    if origin in (Union, types.UnionType):
        found = [misfit(value, option, field) for option in arguments]
        return None if None in found else max((words for words in found if words), key=len)
    if is_typeddict(hint) or origin is dict:
        if not isinstance(value, dict):
            return _misfit(field, "an object", value)
        hints = get_type_hints(hint, include_extras=True) if origin is None else dict.fromkeys(value, arguments[1])
        missing = sorted(getattr(hint, "__required_keys__", frozenset()) - value.keys())
        if missing:
            return f"{field}: no {missing[0]!r}".removeprefix(": ")
        inner = ((f"{field}.{key}".removeprefix("."), value[key], hints[key]) for key in hints if key in value)
    elif origin is list:
        if not isinstance(value, list):
            return _misfit(field, "a list", value)
        inner = ((f"{field}[{place}]", item, arguments[0]) for place, item in enumerate(value))
    else:
        return None if _try(value, hint)[0] else _misfit(field, describe(hint), value)
    return next((words for name, item, of_item in inner if (words := misfit(item, of_item, name)) is not None), None)


def _misfit(field: str, expected: str, value: Any) -> str:
    received = repr(value)
    shown = received if len(received) <= 60 else received[:60] + "…"
    return f"{field}: {shown} in place of {expected}".removeprefix(": ")


def _try(value: Any, hint: Any) -> tuple[bool, Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        accepted, result = _try(value, arguments[0])
        bounds = [bound for bound in arguments[1:] if isinstance(bound, Bound)]
        return accepted and all(bound.holds(result) for bound in bounds), result
    if origin is Literal:
        # 1 == True in Python: a literal also has to be of the right type.
        return any(type(value) is type(a) and value == a for a in arguments), value
    if origin in (Union, types.UnionType):
        for option in arguments:
            accepted, result = _try(value, option)
            if accepted:
                return True, result
        return False, value
    if origin is tuple:
        if not isinstance(value, tuple | list):
            return False, value
        items = [_try(item, arguments[0]) for item in value]
        return all(accepted for accepted, _ in items), tuple(item for _, item in items)
    if hint is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and math.isfinite(value), float(value) if is_number else value
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    return isinstance(value, hint), value
