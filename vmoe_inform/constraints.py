"""Constraints on values of settings and flags, used as ``Annotated[float, Bound(above=0.0)]``."""

import dataclasses
import math
import pathlib
import re

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # also gs:/bucket, as which a path library writes gs://bucket
_BUCKET = re.compile(r"gs://([^/]+)/[^/].*", flags=re.DOTALL)
_PART_OF_BUCKET = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?")  # between dots
_IP_ADDRESS = re.compile(r"\d+(\.\d+){3}")
_PATH_BYTES = 4000  # Linux takes 4,095 for a whole path, which has names of files at its end


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


class PathOrBucket(LocalPath):
    """As :class:`LocalPath`, or the address of a folder in a bucket, ``gs://BUCKET/NAME``."""

    def holds(self, value: str) -> bool:
        address = _BUCKET.fullmatch(value)
        if address is None or not _is_bucket(address[1]):
            return super().holds(value)
        return Text(700).holds(value) and {"", ".", ".."}.isdisjoint(value.rstrip("/").split("/")[3:])

    def __str__(self) -> str:
        names = "3 to 63 of a-z 0-9 . _ -, no IP address"
        return super().__str__().partition(" (")[0] + f", or gs://BUCKET/NAME (BUCKET: {names})"


def _is_bucket(name: str) -> bool:
    """Whether a bucket of Google Cloud Storage may have this name; names with ``google`` are those of Google itself."""
    is_made_of_parts = all(_PART_OF_BUCKET.fullmatch(part) for part in name.split("."))
    return 3 <= len(name) <= 222 and is_made_of_parts and _IP_ADDRESS.fullmatch(name) is None


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, as of a file name that is not UTF-8
        return False
    return True
