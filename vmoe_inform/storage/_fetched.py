"""Objects of buckets as files on this machine: each is fetched once, and is there whole or not at all.

The copy of ``gs://BUCKET/NAME`` is ``$XDG_CACHE_HOME/vmoe_inform/buckets/files/BUCKET/NAME``. A record next to the tree
of the copies has its size and its generation; another generation in the bucket is fetched again. Of several processes
of this machine one fetches, and the others wait for it. What a process that was killed has fetched is continued.
"""

import contextlib
import errno
import hashlib
import itertools
import os
import pathlib
import shutil
import threading
from collections.abc import Iterator, Sequence, Set

import google_crc32c
from absl import logging

from vmoe_inform import checks
from vmoe_inform.storage import _objects, strict
from vmoe_inform.storage._cache import cache_folder
from vmoe_inform.storage._damage import DamagedFileError
from vmoe_inform.storage._disk_lock import LockFile

_BLOCK_BYTES = 1 << 24  # of a request
_MOST_RECORD_BYTES = 1000
_READ_BYTES = 1 << 20
_LOOK_EVERY_SECONDS = 0.1  # for a lock


def place_of(path: pathlib.PurePath) -> pathlib.Path:
    """Where the copy of an object is, or will be.

    Raises:
      InputError: its name would lead out of the cache, or fits no disk.
    """
    parts = path.parts[2:]
    if {"", ".", ".."} & set(parts) or any("\0" in part or len(os.fsencode(part)) > 255 for part in parts):
        raise checks.error(str(path), "a name of parts that a disk can have", "/".join(parts[1:])[:300])
    return cache_folder().joinpath("buckets", "files", *parts)


def is_here(path: pathlib.PurePath, found: _objects.Object) -> bool:
    """Whether the copy is whole, and of the generation that was found."""
    try:
        content = _beside(path, "json").read_bytes()[:_MOST_RECORD_BYTES]
        return strict.parse_json(content) == _record(found) and place_of(path).stat().st_size == found.size
    except (OSError, ValueError):
        return False


def announce(missing: Sequence[tuple[pathlib.PurePath, _objects.Object]]) -> None:
    """Logs what will be fetched, and where to. Raises OSError if the disk has no room for it."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    size = sum(one.size for _, one in missing)
    path = str(missing[0][0]) + (f" and {len(missing) - 1:,} more" if len(missing) > 1 else "")
    logging.warning("fetching %s: %s bytes, into %s", path, f"{size:,}", folder)  # commands show no mere information
    left, free = size - sum(_size_of(_part(*one)) for one in missing), shutil.disk_usage(folder).free
    if left > free:
        words = f"{path}: {left:,} bytes do not fit into {folder}, where {free:,} are free; $XDG_CACHE_HOME moves it"
        raise OSError(errno.ENOSPC, words)


def fetch(path: pathlib.PurePath, found: _objects.Object, abandoned: threading.Event) -> None:
    """Makes the copy of an object, unless another process has made it meanwhile.

    Args:
      path: of the object.
      found: the object.
      abandoned: set when nobody waits for the copy any more: what was fetched is kept, and no more is.

    Raises:
      ChangedError: the object was replaced meanwhile.
      DamagedFileError: what came is not what the bucket says it holds.
      OSError: nothing more can be read or written; what was fetched is kept and continued.
    """
    file, record = place_of(path), _beside(path, "json")
    for folder in (file.parent, record.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(path, abandoned):
        if abandoned.is_set() or is_here(path, found):
            return
        part = _part(path, found)
        for other in record.parent.glob(f"{record.stem}.*.part"):
            if other != part:  # of a generation that has gone
                other.unlink()
        try:
            if not _is_complete(path, found, part, abandoned):
                return
        except OSError as problem:
            if problem.filename is None:  # of a write, as on a full disk
                raise OSError(problem.errno, problem.strerror, str(part)) from None
            raise
        record.unlink(missing_ok=True)  # the copy it tells of goes
        part.replace(file)
        temporary = record.with_suffix(".new")
        temporary.write_text(f'{{"generation": "{found.generation}", "size": {found.size}}}\n')
        temporary.replace(record)


def forget_others(folder: pathlib.PurePath, names: Set[str]) -> None:
    """Deletes the copies below a folder that have none of these names: a list would take them for the bucket's."""
    copies = place_of(folder)
    for copy in [file for file in copies.rglob("*") if file.is_file()]:
        if copy.relative_to(copies).as_posix() not in names:
            copy.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # there are others in it
                for parent in itertools.takewhile(lambda one: one != copies, copy.parents):
                    parent.rmdir()


def _is_complete(
    path: pathlib.PurePath, found: _objects.Object, part: pathlib.Path, abandoned: threading.Event
) -> bool:
    """Fetches what is missing at the end of a part, and compares all of it with the bucket's checksum.

    Returns:
      False if nobody waits for it any more.
    """
    checksum = google_crc32c.Checksum()
    with part.open("a+b") as file:
        file.seek(0)
        while read := file.read(_READ_BYTES):
            checksum.update(read)
        for start in range(file.tell(), found.size, _BLOCK_BYTES):
            if abandoned.is_set():
                return False
            block = _objects.read_part(path, found, start, min(start + _BLOCK_BYTES, found.size))
            file.write(block)
            checksum.update(block)
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
    if size != found.size or checksum.digest() != found.crc32c:
        part.unlink()
        received = f"{size:,} bytes with CRC-32C {checksum.digest().hex()}"
        raise DamagedFileError(path, f"{found.size:,} bytes with CRC-32C {found.crc32c.hex()}", received)
    return True


def _record(found: _objects.Object) -> dict[str, str | int]:
    return {"generation": str(found.generation), "size": found.size}


def _part(path: pathlib.PurePath, found: _objects.Object) -> pathlib.Path:
    return _beside(path, f"{found.generation}.part")


def _beside(path: pathlib.PurePath, suffix: str) -> pathlib.Path:
    """A file that belongs to the copy of an object, outside of the folder of copies, which libraries list."""
    name = hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return cache_folder() / "buckets" / "records" / f"{name}.{suffix}"


def _size_of(file: pathlib.Path) -> int:
    return file.stat().st_size if file.exists() else 0


@contextlib.contextmanager
def _locked(path: pathlib.PurePath, abandoned: threading.Event) -> Iterator[None]:
    """Holds the lock of a copy, unless nobody waits for it any more; the kernel frees it when the process ends."""
    with contextlib.closing(LockFile(_beside(path, "lock"))) as lock:
        waits = False
        while not abandoned.wait(_LOOK_EVERY_SECONDS if waits else 0.0):
            try:
                if not lock.take(wait=False):
                    logging.warning(
                        "%s: this file system has no locks; fetch from one process at a time", cache_folder()
                    )
                break
            except BlockingIOError:
                if not waits:
                    logging.warning("%s: another process of this machine fetches it; waiting", path)
                waits = True
        yield
