"""Checks of values that users pass: every error names the field, what was expected and what was received."""

import dataclasses
import difflib
import math
import numbers
import os
import pathlib
import re
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
            (isinstance(value, int) or math.isfinite(value))  # an int may be larger than any float
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


@dataclasses.dataclass(frozen=True)
class Text:
    """Text that a file and a terminal can hold, used as ``Annotated[str, Text(at_most=100)]``.

    Attributes:
      at_most: largest number of characters.
    """

    at_most: int

    def holds(self, value: str) -> bool:
        return len(value) <= self.at_most and "\0" not in value and _is_unicode(value)

    def __str__(self) -> str:
        return f"(at most {self.at_most} characters)"


@dataclasses.dataclass(frozen=True)
class LocalPath:
    """The path of a file or folder on this machine, used as ``Annotated[str, LocalPath()]``.

    ``~`` and ``~USER`` become home folders. An address such as ``gs://bucket`` is refused: as a path it would name a
    local folder ``gs:``.

    Attributes:
      may_be_empty: whether an empty text passes, which means none; as a path it would be the current folder.
    """

    may_be_empty: bool = True

    def holds(self, value: str) -> bool:
        if not Text(_PATH_BYTES).holds(value) or _URL.match(value) or not (value or self.may_be_empty):
            return False
        expanded = self.convert(value)
        lengths = [len(part.encode()) for part in expanded.split("/")]
        # What Python cannot expand it leaves as it is.
        return not expanded.startswith("~") and sum(lengths) + len(lengths) <= _PATH_BYTES and max(lengths) <= 255

    def convert(self, value: str) -> str:
        try:
            return str(pathlib.Path(value).expanduser()) if value.startswith("~") else value
        except RuntimeError:  # no such user, or one without a home
            return value

    def __str__(self) -> str:
        empty = "" if self.may_be_empty else ", not empty"
        return f"path on this machine{empty} (an address such as gs:// is not read)"


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, as of a file name that is not UTF-8
        return False
    return True


_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # also gs:/bucket, as which a path library writes gs://bucket
_MOST_ITEMS = 2**20  # of a tuple
_PATH_BYTES = 4000  # Linux takes 4,095 for a whole path, which has names of files at its end

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
