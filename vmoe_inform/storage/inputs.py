"""Files that users name and others wrote: data, config files, checkpoints of other programs.

They lie on this machine or in a bucket, and nothing is written there. Links are followed, unlike in the folder of a
run. One object of a bucket is asked for where one is needed (:func:`read_bytes`). A file that a library opens by its
name, or that is read in no order, is fetched once (:func:`local`), see :mod:`vmoe_inform.storage._fetched`.
"""

import pathlib
import re
from collections.abc import Iterator, Sequence

from vmoe_inform import checks
from vmoe_inform.storage._which import inputs_of
from vmoe_inform.storage._which import path as path_of
from vmoe_inform.storage.place import Entry, Path

__all__ = [
    "Entry",
    "entries",
    "entries_of_each",
    "existing_file",
    "existing_folder",
    "first_bytes",
    "is_file",
    "is_folder",
    "local",
    "local_each",
    "local_folder",
    "place_of_copies",
    "read_bytes",
    "size",
]


def is_folder(path: Path) -> bool:
    """Whether there is a folder of this name, or a link to one."""
    return inputs_of(path).is_folder(path)


def is_file(path: Path) -> bool:
    """Whether there is a file of this name, or a link to one."""
    return inputs_of(path).is_file(path)


def entries(folder: Path) -> list[Entry]:
    """What is right in a folder, in no order.

    Raises:
      FileNotFoundError, NotADirectoryError: there is no such folder.
      OSError: it cannot be listed.
    """
    return inputs_of(folder).entries(folder)


def entries_of_each(folders: Sequence[Path]) -> Iterator[list[Entry]]:
    """The entries of several folders in their order; those of a bucket are listed many at a time."""
    return inputs_of(folders[0]).entries_of_each(folders) if folders else iter(())


def size(path: Path) -> int:
    """Bytes of a file. Raises as :func:`read_bytes`."""
    return inputs_of(path).size(path)


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
      OSError: there is none, or it cannot be read.
      OutOfReachError: the bucket did not answer for minutes, which says nothing about the file.
    """
    return inputs_of(path).read_bytes(path)


def first_bytes(path: Path, count: int) -> bytes:
    """The beginning of a file, at most ``count`` bytes. Raises as :func:`read_bytes`."""
    return inputs_of(path).first_bytes(path, count)


def local(path: Path) -> pathlib.Path:
    """The file on this machine: itself, or the fetched copy of an object. Raises as :func:`local_each`."""
    return local_each([path])[0]


def local_each(paths: Sequence[Path]) -> list[pathlib.Path]:
    """The files on this machine, in their order; what is in a bucket and not here yet is fetched, many at a time.

    Raises:
      FileNotFoundError: one is not there.
      OSError: the copies do not fit on the disk, or a copy is not what the bucket says it holds.
      OutOfReachError: as of :func:`read_bytes`; what has been fetched so far is kept.
    """
    return inputs_of(paths[0]).local_each(paths) if paths else []


def local_folder(folder: Path, *, without: re.Pattern[str] | None = None) -> pathlib.Path:
    """The folder on this machine: itself, or one with the fetched copies of all below.

    Args:
      folder: it need not be there.
      without: names that need not be fetched, relative to the folder.

    Raises:
      OSError, OutOfReachError: as of :func:`local_each`.
    """
    return inputs_of(folder).local_folder(folder, without)


def place_of_copies(folder: Path) -> pathlib.Path:
    """The folder of this machine that has what was fetched of a folder; itself on a disk."""
    return inputs_of(folder).place_of_copies(folder)


def existing_folder(field: str, given: str, expected: str) -> Path:
    """The folder that a setting names.

    Args:
      field: the setting.
      given: its value; empty for none.
      expected: what the folder should hold.

    Raises:
      FileNotFoundError: there is none.
      InputError: it is in a bucket whose packages are missing.
    """
    found = path_of(field, given) if given else None
    if found is None or not is_folder(found):
        raise FileNotFoundError(f"{field}: expected {expected}; received {given!r}")
    return found


def existing_file(field: str, given: str, expected: str) -> pathlib.Path:
    """The file that a setting names, on this machine. Raises as :func:`existing_folder`, and as :func:`local`."""
    found = path_of(field, given, checks.GivenRunPath)
    if not is_file(found):
        raise FileNotFoundError(f"{field}: expected {expected}; received {given!r}, where no file is")
    return local(found)
