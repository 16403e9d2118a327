"""What is said of a file that is not what was written, and where it goes."""

import itertools
import pathlib
from collections.abc import Iterator
from typing import TypeVar

from vmoe_inform import checks

_Path = TypeVar("_Path", bound=pathlib.PurePath)


class DamagedFileError(checks.InputError):
    """A file is not what was written.

    Args:
      path: of the file.
      expected: what it should be.
      received: what it is.
      remedy: what to do about it.
    """

    def __init__(self, path: pathlib.PurePath, expected: str, received: str, remedy: str = ""):
        self.path, self.expected, self.received = path, expected, received
        words = f"{path}: expected {expected}; received {received}"
        super().__init__(f"{words} ({remedy})" if remedy else words)

    def with_remedy(self, remedy: str) -> "DamagedFileError":
        """The same error, which also says what to do."""
        return DamagedFileError(self.path, self.expected, self.received, remedy)


class OutOfReachError(Exception):
    """A bucket gave no answer, however often it was asked. No OSError: that would make a record count as damaged."""


def names_aside(path: _Path) -> Iterator[_Path]:
    """Where a damaged file or folder may be moved: ``damaged_NAME``, ``damaged_NAME_2`` and so on."""
    for suffix in itertools.chain([""], (f"_{number}" for number in itertools.count(2))):
        yield path.with_name(f"damaged_{path.name}{suffix}")
