"""Checks of values that users pass: every error names the field, what was expected and what was received."""

import difflib
import math
import numbers
import os
import pathlib
import reprlib
import types
from collections.abc import Iterable, Mapping
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

from vmoe_inform.constraints import Bound, LocalPath, PathOrBucket, Text

_MOST_ITEMS = 2**20  # of a tuple

# An integer of a type without other bounds fits int32, as which devices count; a float and its square fit float32.
PositiveFloat: TypeAlias = Annotated[float, Bound(at_least=1e-18, at_most=1e18)]
NonNegativeFloat: TypeAlias = Annotated[float, Bound(at_least=0.0, at_most=1e18)]
Scale: TypeAlias = Annotated[float, Bound(at_least=1e-6, at_most=1e6)]  # that scores are divided by, maybe squared
Share: TypeAlias = Annotated[float, Bound(at_least=0.0, at_most=1.0)]
ShareBelowOne: TypeAlias = Annotated[float, Bound(at_least=0.0, below=1.0)]
Width: TypeAlias = Annotated[int, Bound(at_least=1, at_most=2**20)]  # of an axis of parameters
PositiveInt: TypeAlias = Annotated[int, Bound(at_least=1, at_most=2**31 - 1)]
NonNegativeInt: TypeAlias = Annotated[int, Bound(at_least=0, at_most=2**31 - 1)]
Seed: TypeAlias = Annotated[int, Bound(at_least=0, below=2**32)]
# At most three years: a thread cannot wait longer than threading.TIMEOUT_MAX.
Seconds: TypeAlias = Annotated[float, Bound(at_least=1e-3, at_most=1e8)]
Name: TypeAlias = Annotated[str, Text(200)]
Path: TypeAlias = Annotated[str, LocalPath()]  # a setting, empty for none
GivenPath: TypeAlias = Annotated[str, LocalPath(may_be_empty=False)]
RunPath: TypeAlias = Annotated[str, PathOrBucket()]  # as Path, or an address in a bucket
GivenRunPath: TypeAlias = Annotated[str, PathOrBucket(may_be_empty=False)]

_POSITIVE_FLOAT32 = Bound(at_least=2.0**-126, below=2.0**128)  # the normal numbers: others are 0 or inf on a device


class InputError(ValueError):
    """Something that a user passed is wrong. Command lines print its message without a traceback."""


def error(field: str, expected: str, received: Any) -> InputError:
    """The one form of error message for bad input; what was received is cut where it is long or deep."""
    return InputError(f"{field}: expected {expected}; received {_SHORT.repr(received)}")


class _Nothing:
    def __repr__(self) -> str:
        return "nothing"


NOTHING = _Nothing()  # what :func:`error` received where there was no value at all


def unknown(field: str, expected: str, received: Any, known: Iterable[str]) -> InputError:
    """:func:`error` for a name that is not among the known ones, with the one that may be meant."""
    short = received if isinstance(received, str) and len(received) <= 100 else ""
    close = difflib.get_close_matches(short, known, n=1)
    return InputError(f"{error(field, expected, received)}{f' (did you mean {close[0]!r}?)' if close else ''}")


class _Short(reprlib.Repr):
    """``repr`` in at most some hundred characters; never fails."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 5
        self.maxtuple = self.maxlist = self.maxdict = self.maxset = self.maxfrozenset = 20
        self.maxstring = self.maxother = 300

    def repr_int(self, x: int, level: int) -> str:
        del level
        return repr(x) if abs(x) < 10**40 else f"an integer of {x.bit_length():,} bits"

    def repr_str(self, x: str, level: int) -> str:
        del level
        return repr(x) if len(x) <= self.maxstring else f"{x[: self.maxstring]!r}... ({len(x):,} characters)"


_SHORT = _Short()


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


def plain(hint: Any) -> Any:
    """A type hint without what it is annotated with: ``Annotated[int, Bound(at_least=1)]`` is ``int``."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def describe(hint: Any) -> str:
    """A type hint in words: ``Literal["a", "b"]`` is ``one of 'a', 'b'``."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        words = [str(one) for one in arguments[1:] if isinstance(one, Bound | Text | LocalPath)]
        is_path = any(isinstance(one, LocalPath) for one in arguments)
        return " ".join(words if is_path else [describe(arguments[0]), *words])
    if origin is Literal:
        return "one of " + ", ".join(repr(a) for a in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(a) for a in arguments)
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"({', '.join(map(describe, arguments))})"
    if origin is tuple:
        return f"tuple of {describe(arguments[0])}"
    if origin in (dict, Mapping):
        return "mapping"
    if hint is type(None):
        return "None"
    return {"str": "string", "bool": "true or false"}.get(hint.__name__, hint.__name__)


def local_path(field: str, value: str | os.PathLike[str]) -> pathlib.Path:
    """A path that a caller in Python gives, read as those of settings and flags are, see :class:`LocalPath`."""
    return pathlib.Path(conform(field, os.fspath(value), Path))


def conform(field: str, value: Any, hint: Any) -> Any:
    """Returns ``value`` as the type ``hint``.

    An int becomes a float and a list a tuple; nothing else is converted.

    Args:
      field: name of the field, for the error message.
      value: what the user gave.
      hint: bool, int, float, str, None, Literal, tuple[X, ...], tuple[X, Y], a union of those, or Annotated. The
        value has to satisfy the Bound, Text or LocalPath of an Annotated.

    Raises:
      ValueError: if the value does not fit; the message has field, expected and received.
    """
    accepted, result = _try(value, hint)
    if not accepted:
        raise error(field, describe(hint), value)
    return result


def misfit(value: Any, hint: Any, field: str = "") -> str | None:
    """The first part of a JSON value that is not of a type, in words; None if it fits.

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
            return words_of_misfit(field, "an object", value)
        hints = get_type_hints(hint, include_extras=True) if origin is None else dict.fromkeys(value, arguments[1])
        missing = sorted(getattr(hint, "__required_keys__", frozenset()) - value.keys())
        if missing:
            return f"{field}: no {missing[0]!r}".removeprefix(": ")
        inner = ((f"{field}.{key}".removeprefix("."), value[key], hints[key]) for key in hints if key in value)
    elif origin is list:
        if not isinstance(value, list):
            return words_of_misfit(field, "a list", value)
        inner = ((f"{field}[{index}]", item, arguments[0]) for index, item in enumerate(value))
    else:
        return None if _try(value, hint)[0] else words_of_misfit(field, describe(hint), value)
    return next((words for name, item, of_item in inner if (words := misfit(item, of_item, name)) is not None), None)


def words_of_misfit(field: str, expected: str, value: Any) -> str:
    """Describes a misfit: the field of a JSON document, expected and received."""
    received = repr(value)
    shown = received if len(received) <= 60 else received[:60] + "…"
    return f"{field}: {shown} in place of {expected}".removeprefix(": ")


def _try(value: Any, hint: Any) -> tuple[bool, Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        accepted, result = _try(value, arguments[0])
        held = [one for one in arguments[1:] if isinstance(one, Bound | Text | LocalPath)]
        if not (accepted and all(one.holds(result) for one in held)):
            return False, value
        path = next((one for one in held if isinstance(one, LocalPath)), None)
        return True, result if path is None else path.convert(result)
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
        if not isinstance(value, tuple | list) or len(value) > _MOST_ITEMS:
            return False, value
        of_items = (arguments[0],) * len(value) if arguments[-1] is Ellipsis else arguments
        if len(value) != len(of_items):
            return False, value
        items = [_try(item, of_item) for item, of_item in zip(value, of_items, strict=True)]
        return all(accepted for accepted, _ in items), tuple(item for _, item in items)
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False, value
        try:
            number = float(value) + 0.0  # there is one zero: -0.0 + 0.0 is 0.0
        except OverflowError:
            return False, value
        return math.isfinite(number), number
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    return isinstance(value, hint), value
