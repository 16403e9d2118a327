"""The files of a run: how they are read, listed and written. No other module knows.

A run's folder may come from elsewhere, or from a disk that was full. So a file is read only if it is one: never through
a symbolic link, never from a pipe or a device, never beyond a size. Its content is checked before it is used. Writing
replaces a file whole or not at all, and never writes through a link.

Every function takes ``within``, the folder of the run: below it no folder on the way to the file may be a link. The
folder itself may be one, as in ``runs/latest -> runs/7``.
"""

import contextlib
import errno
import io
import itertools
import json
import os
import pathlib
import secrets
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, TextIO, TypeVar

import numpy as np

from vmoe_inform import checks, strict

MOST_JSON_BYTES = 1 << 28  # 256 MiB; an analysis of 100 layers has 30
MOST_LINES_BYTES = 1 << 32  # of a log
MOST_ARRAYS_BYTES = 1 << 35  # the logits of 100,000 images over 21,843 classes have a quarter of it
Value = TypeVar("Value")


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


# ------------------------------------------------------------------------------------------------------------ reading


def exists(path: pathlib.Path) -> bool:
    """Whether there is anything of this name, were it a link that leads nowhere."""
    return os.path.lexists(path)


@contextlib.contextmanager
def opened(
    path: pathlib.Path, *, most_bytes: int, within: pathlib.Path | None = None
) -> Iterator[tuple[IO[bytes], int]]:
    """A file, open for reading, and its size in bytes.

    Raises:
      FileNotFoundError: there is none.
      DamagedFileError: it is a link, a folder, a pipe or a device, or larger than ``most_bytes``.
      InputError: a folder on the way to it is none.
      OSError: it cannot be read.
    """
    check_folders(path.parent, within)
    with os.fdopen(open_descriptor(path, os.O_RDONLY), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            raise DamagedFileError(path, f"at most {most_bytes:,} bytes", f"{size:,}")
        yield file, size


def read_bytes(path: pathlib.Path, *, most_bytes: int, within: pathlib.Path | None = None) -> bytes:
    """The content of a file. Raises as :func:`opened`."""
    with opened(path, most_bytes=most_bytes, within=within) as (file, size):
        return file.read(size)


def read_json(
    path: pathlib.Path, hint: Any = Any, *, within: pathlib.Path | None = None, most_bytes: int = MOST_JSON_BYTES
) -> Any:
    """The content of a JSON file.

    Args:
      path: of the file.
      hint: type of the content, as :func:`vmoe_inform.checks.misfit` takes it.
      within: folder of the run.
      most_bytes: the file may have.

    Raises:
      DamagedFileError: also if it is no UTF-8 or no JSON, holds NaN or infinity, an integer beyond 64 bits, a key twice
        or more than 64 levels, or is not of the type.
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
    path: pathlib.Path, convert: Callable[[Any], Value], *, within: pathlib.Path | None = None
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
    path: pathlib.Path, *, within: pathlib.Path | None = None, most_bytes: int = MOST_ARRAYS_BYTES
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


def files(folder: pathlib.Path, suffix: str, *, within: pathlib.Path | None = None) -> list[pathlib.Path]:
    """The files of a folder whose names end in ``suffix``, by name; none if there is no such folder.

    Raises:
      InputError: the folder, or one on the way to it, is none.
    """
    check_folders(folder, within)
    try:
        return sorted(path for path in folder.iterdir() if path.name.endswith(suffix))
    except FileNotFoundError:
        return []


def check_folders(folder: pathlib.Path, within: pathlib.Path | None) -> None:
    """Raises InputError if ``folder``, or one between it and ``within``, is there and is a link or no folder."""
    if within is None:
        return
    place = within
    for name in folder.relative_to(within).parts:
        place = place / name
        try:
            mode = place.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(mode):
            raise checks.InputError(f"{place}: expected a folder; received {_kind(mode)}")


def check_writable(folder: pathlib.Path, field: str = "workdir") -> None:
    """Makes the folder if it does not exist; ``field`` is what named it.

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


# ------------------------------------------------------------------------------------------------------------ writing


def make_folder(folder: pathlib.Path, *, within: pathlib.Path | None = None) -> None:
    """Makes a folder, and those on the way to it, where there is none. Raises InputError if one is a link or a file."""
    check_folders(folder, within)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as problem:
        raise checks.InputError(f"{folder}: expected a folder; received a file ({problem.strerror})") from None


@contextlib.contextmanager
def replacing(path: pathlib.Path, *, within: pathlib.Path | None = None) -> Iterator[IO[bytes]]:
    """A file to write to, which takes the place of ``path`` when all is written and on the disk.

    Readers, in other processes too, see the old file or the whole new one. A link is replaced, not followed; a folder
    in the way is put aside (:func:`set_aside`). Folders on the way are made.
    """
    make_folder(path.parent, within=within)
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


def write_bytes(path: pathlib.Path, content: bytes, *, within: pathlib.Path | None = None) -> None:
    """Writes a file, see :func:`replacing`."""
    with replacing(path, within=within) as file:
        file.write(content)


def write_text(path: pathlib.Path, text: str, *, within: pathlib.Path | None = None) -> None:
    """Writes a text as UTF-8, see :func:`replacing`."""
    write_bytes(path, text.encode("utf-8"), within=within)


def write_json(
    path: pathlib.Path,
    value: Any,
    *,
    within: pathlib.Path | None = None,
    indent: int | None = 2,
    sort_keys: bool = False,
) -> None:
    """Writes JSON that :func:`read_json` reads, see :func:`replacing`.

    Raises:
      ValueError: a number that is not finite.
    """
    text = json.dumps(value, indent=indent, sort_keys=sort_keys, allow_nan=False)
    write_text(path, text + "\n", within=within)


def write_arrays(
    path: pathlib.Path,
    arrays: Mapping[str, np.ndarray],
    *,
    within: pathlib.Path | None = None,
    compressed: bool = False,
) -> None:
    """Writes arrays that :func:`read_arrays` reads, as an npz file; see :func:`replacing`.

    Raises:
      TypeError: an array of objects.
    """
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with replacing(path, within=within) as file, zipfile.ZipFile(file, "w", kind) as archive:
        for name, array in arrays.items():
            values = np.asarray(array)
            if values.dtype.kind not in strict.ARRAY_KINDS:
                raise TypeError(f"{path}: {name!r} is an array of {values.dtype}")
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, values, allow_pickle=False)


def appending(path: pathlib.Path, *, within: pathlib.Path | None = None) -> TextIO:
    """A text file to which lines are added; made if there is none. Raises as :func:`opened`."""
    make_folder(path.parent, within=within)
    return io.TextIOWrapper(
        os.fdopen(open_descriptor(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab"), encoding="utf-8"
    )


class GrowingFile:
    """A file to which bytes are added; what cannot be written is kept, and written before what is added next.

    It is opened each time: what is added never goes to a file that has been removed, or through a link. An addition
    that fails is taken back, so that the file always ends with a whole one.
    """

    def __init__(self, path: pathlib.Path, *, header: bytes = b"", within: pathlib.Path | None = None):
        """Args:
        path: of the file, which is made if there is none.
        header: what it begins with.
        within: folder of the run.
        """
        self.path, self._header, self._within = path, header, within
        self._waiting = b""

    @property
    def waiting(self) -> int:
        """Bytes that could not be written yet."""
        return len(self._waiting)

    def add(self, content: bytes) -> None:
        """Adds bytes. Raises OSError, or as :func:`opened`, if they cannot be written now."""
        self._waiting += content
        make_folder(self.path.parent, within=self._within)
        descriptor = open_descriptor(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        size = os.fstat(descriptor).st_size
        left = memoryview((b"" if size else self._header) + self._waiting)
        try:
            try:
                while left:
                    left = left[os.write(descriptor, left) :]
            finally:
                os.close(descriptor)  # network file systems may say only now that there is no room
        except OSError as problem:
            with contextlib.suppress(OSError):
                os.truncate(self.path, size)
            raise OSError(problem.errno, problem.strerror, str(self.path)) from None
        self._waiting = b""


def set_aside(path: pathlib.Path) -> pathlib.Path:
    """Renames a file or folder to ``damaged_NAME``, or ``damaged_NAME_2`` if there is one; nothing is deleted."""
    names = (f"damaged_{path.name}{suffix}" for suffix in itertools.chain([""], (f"_{n}" for n in itertools.count(2))))
    target = next(path.with_name(name) for name in names if not exists(path.with_name(name)))
    return path.rename(target)
