"""A bucket of Google Cloud Storage as a place.

There are objects and no folders: a folder is what names have in common, and exists while there is one of them. There
are no links and no pipes either. docs/buckets.md says what else differs from a disk.
"""

import concurrent.futures
import contextlib
import errno
import fnmatch
import itertools
import os
import pathlib
import re
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO, TextIO

import fsspec.config
from etils import epath

from vmoe_inform import checks
from vmoe_inform.storage import _objects
from vmoe_inform.storage._bucket_lock import BucketLock
from vmoe_inform.storage._bucket_log import BucketLog
from vmoe_inform.storage._bucket_output import output_of
from vmoe_inform.storage._damage import DamagedFileError, names_aside

renames_folders = False
look_seconds = 10.0
_THREADS = 8  # requests at a time, where there are many objects
_ATTEMPTS = 10  # to read an object that others replace; a log gets a new generation each second
_SPOOLED_BYTES = 1 << 26  # of a file that is written; more of it waits on the disk

# For orbax, which reads and lists by gcsfs. That asks for the kind of every bucket, which needs a permission of its
# own. Nor may a listing be kept that another process, or this module, has changed since.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
fsspec.config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)


def address(text: str) -> pathlib.PurePath:
    """The path of an address ``gs://BUCKET/NAME``; as a text it is that address again."""
    return epath.Path(text)


def exists(path: pathlib.PurePath) -> bool:
    """Whether there is an object, or a folder with one."""
    return _objects.find(path) is not None or is_folder(path)


def is_folder(path: pathlib.PurePath) -> bool:
    """Whether there is an object below."""
    return bool(_objects.below(path, most=1))


def absolute(path: pathlib.PurePath) -> pathlib.PurePath:
    """The address, which is absolute."""
    return path


def resolved(path: pathlib.PurePath) -> pathlib.PurePath:
    """The address: there are no links."""
    return path


def matching(folder: pathlib.PurePath, pattern: str) -> list[pathlib.PurePath]:
    """Paths below a folder that match a pattern, sorted; a level of names is listed for each of its parts."""
    found = [folder]
    *parents, last = pattern.split("/")
    for part in parents:
        found = [path / name for path in found for name in _objects.level(path)[1] if fnmatch.fnmatchcase(name, part)]
    names = ((path, name) for path in found for kind in _objects.level(path) for name in kind)
    return sorted(path / name for path, name in names if fnmatch.fnmatchcase(name, last))


def numbered_folders(folder: pathlib.PurePath) -> list[int]:
    """The subfolders whose names are numbers, ascending."""
    return sorted(int(name) for name in _objects.level(folder)[1] if re.fullmatch("[0-9]+", name))


def regular_files(folder: pathlib.PurePath) -> Iterator[str]:
    """The names of all objects below a folder, relative to it."""
    yield from _objects.below(folder)


def check_is_file(path: pathlib.PurePath) -> None:
    """Nothing: an object is a file."""


def check_folders(folder: pathlib.PurePath, within: pathlib.PurePath | None) -> None:
    """Nothing: a folder is a part of a name."""


def make_folder(folder: pathlib.PurePath) -> None:
    """Nothing, as :func:`check_folders`."""


def check_writable(folder: pathlib.PurePath, field: str) -> None:
    """Writes an object and deletes it."""
    probe = folder / f".{secrets.token_hex(8)}.tmp"
    try:
        _objects.write(probe, bytes(1))
        _objects.delete(probe)
    except (FileNotFoundError, PermissionError) as problem:
        expected = f"a folder of a bucket that can be written to ({problem.strerror})"
        raise checks.error(field, expected, str(folder)) from None


def check_replaceable(file: pathlib.PurePath, field: str) -> None:
    """As :func:`check_writable`: a folder exists once it has an object."""
    check_writable(file.parent, field)


def remove(path: pathlib.PurePath) -> None:
    """Deletes an object, and all below; what cannot be deleted stays."""

    def delete(one: pathlib.PurePath) -> None:
        with contextlib.suppress(OSError):
            _objects.delete(one)

    with contextlib.suppress(OSError):
        _for_each(delete, [path, *_below(path)])


def set_aside(path: pathlib.PurePath) -> pathlib.PurePath:
    """Copies the objects within the store, then deletes them: one that is interrupted leaves some of them twice."""
    target = next(name for name in names_aside(path) if not exists(name))
    paths = _below(path) + ([path] if _objects.find(path) is not None else [])
    _for_each(lambda one: _objects.copy(one, target / one.relative_to(path)), paths)
    _for_each(_objects.delete, paths)
    return target


@contextlib.contextmanager
def opened(path: pathlib.PurePath, most_bytes: int) -> Iterator[tuple[IO[bytes], int]]:
    """An object, open for reading, and its size in bytes; all that is read is of one generation."""
    with contextlib.ExitStack() as stack:
        yield _entered(stack, path, most_bytes)


def _entered(stack: contextlib.ExitStack, path: pathlib.PurePath, most_bytes: int) -> tuple[IO[bytes], int]:
    """The newest generation, open, and its size: the one that was found may be replaced before it is read."""
    for attempt in itertools.count(1):
        found = _objects.find(path)
        if found is None:
            break
        if found.size > most_bytes:
            raise DamagedFileError(path, f"at most {most_bytes:,} bytes", f"{found.size:,}")
        try:
            return stack.enter_context(_objects.opened(path, found)), found.size
        except (_objects.ChangedError, FileNotFoundError):
            if attempt == _ATTEMPTS:
                raise
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


@contextlib.contextmanager
def replacing(path: pathlib.PurePath) -> Iterator[IO[bytes]]:
    """A file to write to, which becomes the object once all is written."""
    with tempfile.SpooledTemporaryFile(_SPOOLED_BYTES) as file:
        try:
            yield file
        except OSError as problem:
            if problem.errno != errno.ENOSPC or problem.filename is not None:
                raise
            words = f"{problem.strerror}, where {path} is kept until it is whole ($TMPDIR moves it)"
            raise OSError(problem.errno, words, tempfile.gettempdir()) from None
        _objects.write(path, file)


def appending(path: pathlib.PurePath) -> contextlib.AbstractContextManager[TextIO]:
    """A temporary file of this machine, whose new bytes are added to the object every few seconds."""
    return output_of(BucketLog(path, b""))


def log(path: pathlib.PurePath, header: bytes, within: pathlib.PurePath | None) -> BucketLog:
    """A file that grows."""
    return BucketLog(path, header)


def lock(path: pathlib.PurePath) -> BucketLock:
    """The lock that an object stands for."""
    return BucketLock(path)


@contextlib.contextmanager
def gone_on_error(folder: pathlib.PurePath) -> Iterator[None]:
    """After an error within, a folder that was not there before is gone again."""
    was_there = is_folder(folder)
    try:
        yield
    except BaseException:
        if not was_there:
            remove(folder)
        raise


@contextlib.contextmanager
def local_folder(folder: pathlib.PurePath) -> Iterator[pathlib.Path]:
    """A temporary folder on this machine, whose files become objects at the end, also after an error."""
    with tempfile.TemporaryDirectory() as temporary:
        try:
            yield pathlib.Path(temporary)
        finally:
            files = [path for path in pathlib.Path(temporary).rglob("*") if path.is_file() and not path.is_symlink()]
            _for_each(lambda one: _upload(one, folder / one.relative_to(temporary)), files)


def _upload(file: pathlib.Path, path: pathlib.PurePath) -> None:
    with file.open("rb") as content:
        _objects.write(path, content)


def _below(path: pathlib.PurePath) -> list[pathlib.PurePath]:
    return [path / name for name in _objects.below(path)]


def _for_each(do: Callable[[pathlib.Path], None] | Callable[[pathlib.PurePath], None], paths: Iterable) -> None:
    """Calls a function with each path, many at a time; raises what the first of them raises."""
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
        for _ in threads.map(do, paths):
            pass
