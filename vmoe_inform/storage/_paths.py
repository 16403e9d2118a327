"""Files and folders of a run: checks, lists, creates, removes and puts them aside."""

import contextlib
import errno
import itertools
import os
import pathlib
import shutil
import stat
import tempfile
from collections.abc import Iterator

from vmoe_inform import checks


class DamagedFileError(checks.InputError):
    """A file is not what was written.

    Args:
      path: of the file.
      expected: what it should be.
      received: what it is.
      remedy: what to do about it.
    """

    def __init__(self, path: pathlib.Path, expected: str, received: str, remedy: str = ""):
        self.path, self.expected, self.received = path, expected, received
        words = f"{path}: expected {expected}; received {received}"
        super().__init__(f"{words} ({remedy})" if remedy else words)

    def with_remedy(self, remedy: str) -> "DamagedFileError":
        """The same error, which also says what to do."""
        return DamagedFileError(self.path, self.expected, self.received, remedy)


def exists(path: pathlib.Path) -> bool:
    """Whether there is anything of this name, even a broken link."""
    return os.path.lexists(path)


def matching(folder: pathlib.Path, pattern: str, *, within: pathlib.Path | None = None) -> list[pathlib.Path]:
    """Paths below a folder that match a pattern, such as ``*.svg``, sorted; none if there is no such folder.

    Raises:
      InputError: the folder, or one on the way to it, is a link or no folder.
    """
    check_folders(folder, within)
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
        raise DamagedFileError(folder, "a folder", _kind(stat.S_IFLNK))
    for directory, subdirectories, names in os.walk(folder, onerror=_raise):
        for name in (*subdirectories, *names):
            path = pathlib.Path(directory, name)
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # reading a pipe would wait for ever
                raise DamagedFileError(path, "a file or folder", _kind(mode))
            if name in names:
                yield path.relative_to(folder).as_posix()


def _raise(problem: OSError) -> None:
    raise problem


def check_is_file(path: pathlib.Path) -> None:
    """Raises DamagedFileError if this name exists and is no file."""
    if exists(path) and not stat.S_ISREG(mode := path.lstat().st_mode):
        raise DamagedFileError(path, "a file", _kind(mode))


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
            raise checks.InputError(f"{path}: expected a folder; received {_kind(mode)}")


def check_writable(folder: pathlib.Path, field: str = "workdir") -> None:
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


def _kind(mode: int) -> str:
    names = {
        stat.S_IFLNK: "a symbolic link, which is not followed inside a run",
        stat.S_IFDIR: "a folder",
        stat.S_IFREG: "a file",
        stat.S_IFIFO: "a named pipe",
    }
    return names.get(stat.S_IFMT(mode), "a device or socket")


def open_descriptor(path: pathlib.Path, flags: int) -> int:
    """Descriptor of a regular file; a pipe without a writer must not be waited for. Raises as :func:`opened`."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as problem:
        if problem.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):  # a link, a pipe or socket, a folder
            raise DamagedFileError(path, "a file", _kind(path.lstat().st_mode)) from None
        raise
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise DamagedFileError(path, "a file", _kind(mode))
    return descriptor


def make_folder(folder: pathlib.Path, *, within: pathlib.Path | None = None) -> None:
    """Makes a folder, and those on the way to it, where there is none. Raises InputError if one is a link or a file."""
    check_folders(folder, within)
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
    """Renames a file or folder to ``damaged_NAME``, or ``damaged_NAME_2`` if there is one; nothing is deleted."""
    names = (f"damaged_{path.name}{suffix}" for suffix in itertools.chain([""], (f"_{n}" for n in itertools.count(2))))
    target = next(path.with_name(name) for name in names if not exists(path.with_name(name)))
    return path.rename(target)
