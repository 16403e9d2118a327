"""What a format of checkpoints is, and how all of them read files and report damage."""

import abc
import contextlib
import fnmatch
from collections.abc import Callable, Iterator, Sequence
from typing import IO

import ml_dtypes
import numpy as np

from vmoe_inform import checks, storage
from vmoe_inform.interop.stored import StoredCheckpoint
from vmoe_inform.storage import inputs

MOST_FILE_BYTES = 1 << 42  # 4 TiB; the largest published model of vision has a hundredth of it
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


class Format(abc.ABC):
    """A format of files.

    Attributes:
      title: in a few words, for messages.
    """

    title: str

    @abc.abstractmethod
    def find(self, path: storage.Path) -> storage.Path | None:
        """The file that ``path`` means in this format, None if it is none of it.

        Args:
          path: a file, a folder, or what names of files begin with. Few bytes are read.

        Raises:
          ValueError: several files could be meant.
        """

    @abc.abstractmethod
    def open(self, path: storage.Path) -> StoredCheckpoint:
        """Names, shapes and types of all arrays. Values are read later, one array at a time.

        Args:
          path: from :meth:`find`.

        Raises:
          ValueError: the file is damaged, or says that it holds more than it does; in one line.
        """


def first_bytes(path: storage.Path, count: int = 16) -> bytes:
    """The beginning of a file; empty if there is no such file. Raises as :func:`opened`."""
    if not inputs.is_file(path):
        return b""
    with _readable(path):
        return inputs.first_bytes(path, count)


def only(
    folder: storage.Path, pattern: str, but_not: Callable[[storage.Path], bool] = lambda _: False
) -> storage.Path | None:
    """The one file of a folder that matches; None if ``folder`` is none or has no such file.

    Args:
      folder: to look in.
      pattern: of the file's name.
      but_not: whether a file that matches is of another kind.

    Raises:
      ValueError: there are several.
    """
    names = (entry.name for entry in inputs.entries(folder) if entry.is_file) if inputs.is_folder(folder) else ()
    matching = [folder / name for name in names if fnmatch.fnmatchcase(name, pattern)]
    found = sorted(path for path in matching if not but_not(path))
    if len(found) > 1:
        raise checks.error("--from", f"one of the files {pattern} of {folder}", [path.name for path in found[:5]])
    return found[0] if found else None


def fetch_all(index: storage.Path, files: Sequence[storage.Path]) -> None:
    """Fetches the files of a checkpoint that are in a bucket; FileNotFoundError unless all are there."""
    missing = [path.name for path in files if not inputs.is_file(path)]
    if missing:
        few = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise FileNotFoundError(f"{index}: expected {len(files)} files in its folder; received none called {few}")
    inputs.local_each(files)


@contextlib.contextmanager
def opened(path: storage.Path) -> Iterator[tuple[IO[bytes], int]]:
    """A file and its size. Links are followed: users name these files, and caches of the Hub consist of links.

    One of a bucket is fetched when it is first opened: arrays are read one at a time, each where it lies.

    Raises:
      FileNotFoundError, ValueError: it is no file that can be read.
    """
    with _readable(path), storage.opened(inputs.local(path).resolve(), most_bytes=MOST_FILE_BYTES) as (file, size):
        yield file, size


@contextlib.contextmanager
def _readable(path: storage.Path) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, OSError) as problem:
        if isinstance(problem, FileNotFoundError | PermissionError):
            raise
        raise checks.error(str(path), "a file that can be read", str(problem)) from None


def damaged(path: storage.Path, expected: str, problem: object) -> checks.InputError:
    """The error for a file that is not what its format says."""
    return checks.error(str(path), expected, " ".join(str(problem).split()) or type(problem).__name__)
