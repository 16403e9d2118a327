"""What a format of checkpoints is, and how all of them read files and report damage."""

import abc
import contextlib
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import IO

import ml_dtypes
import numpy as np

from vmoe_inform import checks, storage
from vmoe_inform.interop.stored import StoredCheckpoint

MOST_FILE_BYTES = 1 << 42  # 4 TiB; the largest published model of vision has a hundredth of it
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


class Format(abc.ABC):
    """A format of files.

    Attributes:
      title: in a few words, for messages.
    """

    title: str

    @abc.abstractmethod
    def find(self, path: pathlib.Path) -> pathlib.Path | None:
        """The file that ``path`` means in this format, None if it is none of it.

        Args:
          path: a file, a folder, or what names of files begin with. Few bytes are read.

        Raises:
          ValueError: several files could be meant.
        """

    @abc.abstractmethod
    def open(self, path: pathlib.Path) -> StoredCheckpoint:
        """Names, shapes and types of all arrays. Values are read later, one array at a time.

        Args:
          path: from :meth:`find`.

        Raises:
          ValueError: the file is damaged, or says that it holds more than it does; in one line.
        """


def first_bytes(path: pathlib.Path, count: int = 16) -> bytes:
    """The beginning of a file; empty if there is no such file."""
    if not path.is_file():
        return b""
    with opened(path) as (file, _):
        return file.read(count)


def only(
    folder: pathlib.Path, pattern: str, but_not: Callable[[pathlib.Path], bool] = lambda _: False
) -> pathlib.Path | None:
    """The one file of a folder that matches; None if ``folder`` is none or has no such file.

    Args:
      folder: to look in.
      pattern: of the file's name.
      but_not: whether a file that matches is of another kind.

    Raises:
      ValueError: there are several.
    """
    found = sorted(path for path in folder.glob(pattern) if path.is_file() and not but_not(path))
    if len(found) > 1:
        raise checks.error("--from", f"one of the files {pattern} of {folder}", [path.name for path in found[:5]])
    return found[0] if found else None


def check_all_there(index: pathlib.Path, files: Sequence[pathlib.Path]) -> None:
    """Raises FileNotFoundError unless all files of a checkpoint are there, which its index names."""
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        few = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise FileNotFoundError(f"{index}: expected {len(files)} files in its folder; received none called {few}")


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[tuple[IO[bytes], int]]:
    """A file and its size. Links are followed: users name these files, and caches of the Hub consist of links.

    Raises:
      FileNotFoundError, ValueError: it is no file that can be read.
    """
    try:
        with storage.opened(path.resolve(), most_bytes=MOST_FILE_BYTES) as (file, size):
            yield file, size
    except (RuntimeError, OSError) as problem:
        if isinstance(problem, FileNotFoundError | PermissionError):
            raise
        raise checks.error(str(path), "a file that can be read", str(problem)) from None


def damaged(path: pathlib.Path, expected: str, problem: object) -> checks.InputError:
    """The error for a file that is not what its format says."""
    return checks.error(str(path), expected, " ".join(str(problem).split()) or type(problem).__name__)
