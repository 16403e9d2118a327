"""The protocol of a place of files, which is the local disk or a bucket, and the one type of a path in either."""

import contextlib
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import IO, Any, NamedTuple, Protocol, TextIO, TypeAlias

# A path of a run, on this machine or in a bucket. It has no methods that read or write: the functions of storage do.
Path: TypeAlias = pathlib.PurePath


class Log(Protocol):
    """A file that grows: bytes that cannot be written are kept, and written before the next ones."""

    @property
    def path(self) -> Path:
        """Of the file."""

    @property
    def waiting(self) -> int:
        """Bytes that are not written yet."""

    def add(self, content: bytes) -> None:
        """Adds bytes. Raises OSError, or as :func:`vmoe_inform.storage.opened`, if they cannot be written now."""

    def flush(self) -> None:
        """Writes what is waiting. Raises as :meth:`add`."""


class Lock(Protocol):
    """A lock that one process holds at a time, in a file of its own; closing it frees it.

    Attributes:
      lease_seconds: for how long the lock of a process that has ended may stay taken; 0: not at all.
    """

    lease_seconds: float

    def take(self, *, wait: bool) -> bool:
        """Takes the lock.

        Args:
          wait: for another that holds it.

        Returns:
          False if the place has no locks.

        Raises:
          BlockingIOError: another holds it, and ``wait`` is False.
          OSError: any other reason.
        """

    def read(self, most_bytes: int) -> bytes:
        """What its holder wrote."""

    def write(self, content: bytes) -> None:
        """Replaces what its holder wrote; whoever holds the lock may."""

    def current(self, most_bytes: int) -> bytes:
        """What the file of this name has now: it may be another one. Raises as :func:`vmoe_inform.storage.opened`."""

    def close(self) -> None:
        """Frees the lock."""


class Place(Protocol):
    """What a place can do; a module is one. A path is of the type that :func:`vmoe_inform.storage.path` makes for it.

    The functions of the same names in :mod:`vmoe_inform.storage` say in full what is expected.
    """

    renames_folders: bool
    look_seconds: float

    def exists(self, path: Any) -> bool: ...
    def is_folder(self, path: Any) -> bool: ...
    def absolute(self, path: Any) -> Path: ...
    def resolved(self, path: Any) -> Path: ...
    def matching(self, folder: Any, pattern: str) -> list[Any]: ...
    def numbered_folders(self, folder: Any) -> list[int]: ...
    def regular_files(self, folder: Any) -> Iterator[str]: ...
    def check_is_file(self, path: Any) -> None: ...
    def check_folders(self, folder: Any, within: Any) -> None: ...
    def check_writable(self, folder: Any, field: str) -> None: ...
    def check_replaceable(self, file: Any, field: str) -> None: ...
    def make_folder(self, folder: Any) -> None: ...
    def remove(self, path: Any) -> None: ...
    def set_aside(self, path: Any) -> Path: ...
    def opened(self, path: Any, most_bytes: int) -> contextlib.AbstractContextManager[tuple[IO[bytes], int]]: ...
    def replacing(self, path: Any) -> contextlib.AbstractContextManager[IO[bytes]]: ...
    def appending(self, path: Any) -> contextlib.AbstractContextManager[TextIO]: ...
    def gone_on_error(self, folder: Any) -> contextlib.AbstractContextManager[None]: ...
    def log(self, path: Any, header: bytes, within: Any) -> Log: ...
    def lock(self, path: Any) -> Lock: ...
    def local_folder(self, folder: Any) -> contextlib.AbstractContextManager[pathlib.Path]: ...


class Entry(NamedTuple):
    """What a folder has: a link is what it leads to, and a broken one is neither a folder nor a file."""

    name: str
    is_folder: bool
    is_file: bool


class Inputs(Protocol):
    """What :mod:`vmoe_inform.storage.inputs` needs of a place; its functions of the same names say what is expected."""

    def is_folder(self, path: Any) -> bool: ...
    def is_file(self, path: Any) -> bool: ...
    def entries(self, folder: Any) -> list[Entry]: ...
    def entries_of_each(self, folders: Sequence[Any]) -> Iterator[list[Entry]]: ...
    def size(self, path: Any) -> int: ...
    def read_bytes(self, path: Any) -> bytes: ...
    def first_bytes(self, path: Any, count: int) -> bytes: ...
    def local_each(self, paths: Sequence[Any]) -> list[pathlib.Path]: ...
    def local_folder(self, folder: Any, without: re.Pattern[str] | None) -> pathlib.Path: ...
    def place_of_copies(self, folder: Any) -> pathlib.Path: ...
