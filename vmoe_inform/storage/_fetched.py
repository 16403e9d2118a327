"""Objects of buckets as files on this machine: each is fetched once, and is there whole or not at all.

The copy of ``gs://BUCKET/NAME`` is ``$XDG_CACHE_HOME/vmoe_inform/buckets/files/BUCKET/NAME``. A record next to the tree
of the copies has its size and its generation; another generation in the bucket is fetched again. Of several processes
of this machine one fetches, and the others wait for it. What a process that was killed has fetched is continued.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence

import google_crc32c
from absl import logging

from vmoe_inform import checks
from vmoe_inform.storage import _objects, strict
from vmoe_inform.storage._cache import cache_folder
from vmoe_inform.storage._damage import DamagedFileError

_BLOCK_BYTES = 1 << 26  # of a request
_MOST_RECORD_BYTES = 1000
_READ_BYTES = 1 << 20


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


def fetch(path: pathlib.PurePath, found: _objects.Object) -> None:
    """Makes the copy of an object, unless another process has made it meanwhile.

    Raises:
      DamagedFileError: what came is not what the bucket says it holds.
      OSError: nothing more can be read or written; what was fetched is kept and continued.
    """
    file, record = place_of(path), _beside(path, "json")
    for folder in (file.parent, record.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        if is_here(path, found):
            return
        part = _part(path, found)
        for other in record.parent.glob(f"{record.stem}.*.part"):
            if other != part:  # of a generation that has gone
                other.unlink()
        _complete(path, found, part)
        record.unlink(missing_ok=True)  # the copy it tells of goes
        part.replace(file)
        temporary = record.with_suffix(".new")
        temporary.write_text(f'{{"generation": "{found.generation}", "size": {found.size}}}\n')
        temporary.replace(record)


def _complete(path: pathlib.PurePath, found: _objects.Object, part: pathlib.Path) -> None:
    """Fetches what is missing at the end of a part, and compares all of it with the bucket's checksum."""
    checksum = google_crc32c.Checksum()
    with part.open("a+b") as file:
        file.seek(0)
        while read := file.read(_READ_BYTES):
            checksum.update(read)
        for start in range(file.tell(), found.size, _BLOCK_BYTES):
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
def _locked(path: pathlib.PurePath) -> Iterator[None]:
    """Holds the lock of a copy; the kernel frees it when the process ends."""
    with _beside(path, "lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.warning("%s: another process of this machine fetches it; waiting", path)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
