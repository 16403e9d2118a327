"""The local disk as a place: files and folders that are never read or written through a link.

A network file system that is mounted is the local disk, too.
"""

import contextlib
import errno
import io
import os
import pathlib
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from typing import IO, TextIO

from vmoe_inform import checks
from vmoe_inform.storage._damage import DamagedFileError, names_aside
from vmoe_inform.storage._descriptor import kind, open_descriptor
from vmoe_inform.storage._disk_lock import LockFile
from vmoe_inform.storage._disk_log import GrowingFile

renames_folders = True
look_seconds = 1.0


def exists(path: pathlib.Path) -> bool:
    """Whether there is anything of this name, even a broken link."""
    return os.path.lexists(path)


def is_folder(path: pathlib.Path) -> bool:
    """Whether there is a folder of this name, or a link to one."""
    return path.is_dir()


def absolute(path: pathlib.Path) -> pathlib.Path:
    """The path from the root."""
    return path.absolute()


def resolved(path: pathlib.Path) -> pathlib.Path:
    """The path without links."""
    return path.resolve()


def matching(folder: pathlib.Path, pattern: str) -> list[pathlib.Path]:
    """Paths below a folder that match a pattern, sorted; none if there is no such folder."""
    return sorted(folder.glob(pattern))


def numbered_folders(folder: pathlib.Path) -> list[int]:
    """The subfolders of a folder whose names are numbers, ascending; none if there is no such folder."""
    return sorted(int(path.name) for path in folder.glob("[0-9]*") if path.name.isdecimal() and path.is_dir())


def regular_files(folder: pathlib.Path) -> Iterator[str]:
    """The names of all files below a folder, relative to it; nothing of them is read.

    Raises:
      DamagedFileError: there is a link, a pipe, a socket or a device; or the folder is a link.
      OSError: a folder cannot be listed.
    """
    if folder.is_symlink():
        raise DamagedFileError(folder, "a folder", kind(stat.S_IFLNK))
    for directory, subdirectories, names in os.walk(folder, onerror=_raise):
        for name in (*subdirectories, *names):
            path = pathlib.Path(directory, name)
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # reading a pipe would wait for ever
                raise DamagedFileError(path, "a file or folder", kind(mode))
            if name in names:
                yield path.relative_to(folder).as_posix()


def _raise(problem: OSError) -> None:
    raise problem


def check_is_file(path: pathlib.Path) -> None:
    """Raises DamagedFileError if this name exists and is no file."""
    if exists(path) and not stat.S_ISREG(mode := path.lstat().st_mode):
        raise DamagedFileError(path, "a file", kind(mode))


def check_folders(folder: pathlib.Path, within: pathlib.Path | None) -> None:
    """Raises InputError if ``folder``, or one between it and ``within``, is there and is a link or no folder."""
    if within is None:
        return
    path = within
    for name in folder.relative_to(within).parts:
        path = path / name
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(mode):
            raise checks.InputError(f"{path}: expected a folder; received {kind(mode)}")


def check_writable(folder: pathlib.Path, field: str) -> None:
    """Makes the folder if it does not exist; ``field`` named it.

    Raises:
      ValueError: nothing can be written there.
      OSError: nothing fits there, which is no mistake of the command line.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
    except OSError as problem:
        error = checks.error(field, f"a folder that can be written to ({problem.strerror})", str(folder))
        raise (OSError(str(error)) if problem.errno in (errno.ENOSPC, errno.EDQUOT) else error) from None


def check_replaceable(file: pathlib.Path, field: str) -> None:
    """Raises ValueError unless a file of this name can be written in a folder that exists; ``field`` named it."""
    there = exists(file)
    writable = os.access(file if there else file.parent, os.W_OK)
    # It is replaced as a whole: a device, or a link such as /dev/stdout, would be gone for all.
    if (there and (file.is_symlink() or not file.is_file())) or not file.parent.is_dir() or not writable:
        expected = "a file that can be written, in a folder that exists; no link, pipe or device"
        raise checks.error(field, expected, str(file))


def make_folder(folder: pathlib.Path) -> None:
    """Makes a folder, and those on the way to it, where there is none. Raises InputError if one is a file."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as problem:
        raise checks.InputError(f"{folder}: expected a folder; received a file ({problem.strerror})") from None


def remove(path: pathlib.Path) -> None:
    """Removes a file, a link, or a folder and its content. Links are not followed; what cannot be removed stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        path.unlink()


def set_aside(path: pathlib.Path) -> pathlib.Path:
    """Renames a file or folder to a name that is free; nothing is deleted."""
    return path.rename(next(name for name in names_aside(path) if not exists(name)))


@contextlib.contextmanager
def opened(path: pathlib.Path, most_bytes: int) -> Iterator[tuple[IO[bytes], int]]:
    """A file, open for reading, and its size in bytes."""
    with os.fdopen(open_descriptor(path, os.O_RDONLY), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            raise DamagedFileError(path, f"at most {most_bytes:,} bytes", f"{size:,}")
        yield file, size


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[IO[bytes]]:
    """A file to write to, which replaces ``path`` by a rename once all is written and on the disk."""
    mode = path.lstat().st_mode if exists(path) else 0
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):  # root could replace one: the machine would have no /dev/null
        raise DamagedFileError(path, "a file", kind(mode))
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if path.is_dir() and not path.is_symlink():
            set_aside(path)
        temporary.replace(path)
    except OSError as problem:
        temporary.unlink(missing_ok=True)
        if problem.filename is not None or problem.errno is None:
            raise
        raise OSError(problem.errno, problem.strerror, str(path)) from None  # such as a full disk, which names no file
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def appending(path: pathlib.Path) -> TextIO:
    """A text file to which lines are added; made if there is none."""
    descriptor = open_descriptor(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    return io.TextIOWrapper(os.fdopen(descriptor, "ab"), encoding="utf-8")


def log(path: pathlib.Path, header: bytes, within: pathlib.Path | None) -> GrowingFile:
    """A file that grows."""
    return GrowingFile(path, header, lambda: _make_folder_of(path, within))


def _make_folder_of(path: pathlib.Path, within: pathlib.Path | None) -> None:
    check_folders(path.parent, within)
    make_folder(path.parent)


def lock(path: pathlib.Path) -> LockFile:
    """A file that can be locked."""
    return LockFile(path)


@contextlib.contextmanager
def gone_on_error(folder: pathlib.Path) -> Iterator[None]:
    """After an error within, a folder that was not there before is gone again, and so are those on the way to it."""
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        yield
    except BaseException:
        for one in made[:1]:
            remove(one)
        for one in made[1:]:
            with contextlib.suppress(OSError):  # something else is there by now
                one.rmdir()
        raise


@contextlib.contextmanager
def local_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """The folder itself, made if there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    yield folder
