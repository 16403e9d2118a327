"""Files and folders of a run, in whatever place they are: lists, checks, creates, removes and puts them aside."""

import contextlib
import pathlib
from collections.abc import Iterator

from vmoe_inform.storage._which import place_of
from vmoe_inform.storage.place import Log, Path


def exists(path: Path) -> bool:
    """Whether there is anything of this name, even a broken link."""
    return place_of(path).exists(path)


def is_folder(path: Path) -> bool:
    """Whether there is a folder of this name, or a link to one."""
    return place_of(path).is_folder(path)


def renames_folders(path: Path) -> bool:
    """Whether a folder can get its name by a rename, at once and with all that is in it."""
    return place_of(path).renames_folders


def look_seconds(path: Path) -> float:
    """How long to wait between two looks at a file that another process changes: a look at a bucket is a request."""
    return place_of(path).look_seconds


def absolute(path: Path) -> Path:
    """The path from the root of its place."""
    return place_of(path).absolute(path)


def resolved(path: Path) -> Path:
    """The path without links, by which two are compared."""
    return place_of(path).resolved(path)


def matching(folder: Path, pattern: str, *, within: Path | None = None) -> list[Path]:
    """Paths below a folder that match a pattern, such as ``*.svg``, sorted; none if there is no such folder.

    Raises:
      InputError: the folder, or one on the way to it, is a link or no folder.
    """
    place = place_of(folder)
    place.check_folders(folder, within)
    return place.matching(folder, pattern)


def numbered_folders(folder: Path) -> list[int]:
    """The subfolders of a folder whose names are numbers, ascending; none if there is no such folder."""
    return place_of(folder).numbered_folders(folder)


def regular_files(folder: Path) -> Iterator[str]:
    """The names of all files below a folder, relative to it; nothing of them is read.

    Raises:
      DamagedFileError: there is a link, a pipe, a socket or a device; or the folder is a link.
      OSError: a folder cannot be listed.
    """
    return place_of(folder).regular_files(folder)


def check_is_file(path: Path) -> None:
    """Raises DamagedFileError if this name exists and is no file."""
    place_of(path).check_is_file(path)


def check_folders(folder: Path, within: Path | None) -> None:
    """Raises InputError if ``folder``, or one between it and ``within``, is there and is a link or no folder."""
    place_of(folder).check_folders(folder, within)


def check_writable(folder: Path, field: str = "workdir") -> None:
    """Makes the folder if it does not exist; ``field`` named it.

    Raises:
      ValueError: nothing can be written there.
      OSError: nothing fits there, which is no mistake of the command line.
    """
    place_of(folder).check_writable(folder, field)


def check_replaceable(file: Path, field: str) -> None:
    """Raises ValueError unless a file of this name can be written in a folder that exists; ``field`` named it."""
    place_of(file).check_replaceable(file, field)


def make_folder(folder: Path, *, within: Path | None = None) -> None:
    """Makes a folder, and those on the way to it, where there is none. Raises InputError if one is a link or a file."""
    place = place_of(folder)
    place.check_folders(folder, within)
    place.make_folder(folder)


def remove(path: Path) -> None:
    """Removes a file, a link, or a folder and its content. Links are not followed; what cannot be removed stays."""
    place_of(path).remove(path)


def set_aside(path: Path) -> Path:
    """Renames a file or folder to ``damaged_NAME``, or ``damaged_NAME_2`` if there is one; nothing is deleted."""
    return place_of(path).set_aside(path)


def log(path: Path, *, header: bytes = b"", within: Path | None = None) -> Log:
    """A file that grows.

    Args:
      path: of the file, which is made if there is none.
      header: what it begins with.
      within: folder of the run.
    """
    return place_of(path).log(path, header, within)


def gone_on_error(folder: Path) -> contextlib.AbstractContextManager[None]:
    """After an error within, a folder that was not there before is gone again."""
    return place_of(folder).gone_on_error(folder)


def local_folder(folder: Path) -> contextlib.AbstractContextManager[pathlib.Path]:
    """A folder on this machine for a library that writes by itself: its files are in ``folder`` after the context."""
    return place_of(folder).local_folder(folder)
