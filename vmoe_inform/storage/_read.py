"""Reads files of a run: strictly, since they may come from elsewhere."""

import contextlib
import hashlib
import io
import itertools
import sys
from collections.abc import Callable, Iterator
from typing import IO, Any, TypeVar, cast

import numpy as np

from vmoe_inform import checks
from vmoe_inform.storage import strict
from vmoe_inform.storage._damage import DamagedFileError
from vmoe_inform.storage._files import check_folders
from vmoe_inform.storage._which import place_of
from vmoe_inform.storage.place import Path

MOST_JSON_BYTES = 1 << 28  # 256 MiB; an analysis of 100 layers has 30
MOST_LINES_BYTES = 1 << 32  # of a log
MOST_ARRAYS_BYTES = 1 << 35  # the logits of 100,000 images over 21,843 classes have a quarter of it
Value = TypeVar("Value")


@contextlib.contextmanager
def opened(path: Path, *, most_bytes: int, within: Path | None = None) -> Iterator[tuple[IO[bytes], int]]:
    """A file, open for reading, and its size in bytes.

    Raises:
      FileNotFoundError: there is none.
      DamagedFileError: it is a link, a folder, a pipe or a device, or larger than ``most_bytes``.
      InputError: a folder on the way to it is none.
      OSError: it cannot be read.
    """
    check_folders(path.parent, within)
    with place_of(path).opened(path, most_bytes) as (file, size):
        yield file, size


def read_bytes(path: Path, *, most_bytes: int = MOST_ARRAYS_BYTES, within: Path | None = None) -> bytes:
    """The content of a file. Raises as :func:`opened`."""
    with opened(path, most_bytes=most_bytes, within=within) as (file, size):
        return file.read(size)


def read_json(path: Path, hint: Any = Any, *, within: Path | None = None, most_bytes: int = MOST_JSON_BYTES) -> Any:
    """The content of a JSON file.

    Args:
      path: of the file.
      hint: type of the content, as :func:`vmoe_inform.checks.misfit` takes it.
      within: folder of the run.
      most_bytes: the file may have.

    Raises:
      DamagedFileError: also if it is no UTF-8 or no JSON, or is not of the type. Also for NaN, infinity, an integer
        beyond 64 bits, a key that occurs twice, or more than 64 levels.
      FileNotFoundError, InputError, OSError: as :func:`opened`.
    """
    content = read_bytes(path, most_bytes=most_bytes, within=within)
    try:
        value = strict.parse_json(content)
        problem_of_type = checks.misfit(value, hint)
        if problem_of_type is not None:
            raise ValueError(problem_of_type)
        return value
    except ValueError as problem:
        raise DamagedFileError(path, "JSON as it was written", str(problem)) from None


def read_json_lines(
    path: Path, convert: Callable[[Any], Value], *, within: Path | None = None
) -> tuple[list[Value], dict[int, str]]:
    """The lines of a file of one JSON value a line.

    Args:
      path: of the file.
      convert: makes of a JSON value what is wanted; raises ValueError for any other.
      within: folder of the run.

    Returns:
      the values of the lines that are whole, oldest first, and what is wrong with each other line, by its number from
      1. The number of a last line that was not written to its end, as a process that is killed leaves it, is 0.

    Raises:
      FileNotFoundError, DamagedFileError, InputError, OSError: as :func:`opened`.
    """
    lines = read_bytes(path, most_bytes=MOST_LINES_BYTES, within=within).split(b"\n")
    last = lines.pop()  # empty, unless it was torn
    values, problems = [], {}
    for number, line in itertools.chain(enumerate(lines, start=1), [(0, last)] if last else []):
        try:
            values.append(convert(strict.parse_json(line)))
        except ValueError as problem:
            torn = number == 0 and line.startswith(b"{")
            problems[len(lines) + 1 if number == 0 and not torn else number] = str(problem)
    return values, problems


def read_arrays(
    path: Path, *, within: Path | None = None, most_bytes: int = MOST_ARRAYS_BYTES
) -> dict[str, np.ndarray]:
    """The arrays of an npz file by name; every one is read to its end, which compares its CRC-32.

    Raises:
      DamagedFileError: also if it is no such file, or an array has pickled objects or more bytes than its file says.
      FileNotFoundError, InputError, OSError: as :func:`opened`.
    """
    with opened(path, most_bytes=most_bytes, within=within) as (file, size):
        try:
            return strict.read_npz(file, size)
        except ValueError as problem:
            raise DamagedFileError(path, "arrays as they were written", str(problem)) from None


def sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal digits. Raises as :func:`opened`."""
    with opened(path, most_bytes=sys.maxsize) as (file, _):
        return hashlib.file_digest(cast(io.BufferedIOBase, file), "sha256").hexdigest()
