"""Objects of a bucket that users name, as :mod:`vmoe_inform.storage.inputs` gives them."""

import concurrent.futures
import contextlib
import errno
import os
import pathlib
import re
from collections.abc import Iterator, Sequence

from vmoe_inform.storage import _fetched, _objects
from vmoe_inform.storage._damage import OutOfReachError
from vmoe_inform.storage.place import Entry

_THREADS = 16  # requests at a time


def is_folder(path: pathlib.PurePath) -> bool:
    with _or_out_of_reach():
        return bool(_objects.below(path, most=1))


def is_file(path: pathlib.PurePath) -> bool:
    with _or_out_of_reach():
        return _objects.find(path) is not None


def entries(folder: pathlib.PurePath) -> list[Entry]:
    with _or_out_of_reach():
        files, folders = _objects.level(folder)
    if not files and not folders:
        raise _missing(folder)
    return [Entry(name, False, True) for name in files] + [Entry(name, True, False) for name in folders]


def entries_of_each(folders: Sequence[pathlib.PurePath]) -> Iterator[list[Entry]]:
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
        yield from threads.map(entries, folders)


def size(path: pathlib.PurePath) -> int:
    return _found(path).size


def read_bytes(path: pathlib.PurePath) -> bytes:
    with _or_out_of_reach():
        return _objects.read(path)


def first_bytes(path: pathlib.PurePath, count: int) -> bytes:
    found = _found(path)
    with _or_out_of_reach():
        return _objects.read_part(path, found, 0, min(count, found.size)) if found.size else b""


def local_each(paths: Sequence[pathlib.PurePath]) -> list[pathlib.Path]:
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as threads:
        found = list(threads.map(_found, paths))
        missing = [(path, one) for path, one in zip(paths, found, strict=True) if not _fetched.is_here(path, one)]
        if missing:
            _fetched.announce(missing)
            with _or_out_of_reach():
                for _ in threads.map(lambda one: _fetched.fetch(*one), missing):
                    pass
    return [_fetched.place_of(path) for path in paths]


def local_folder(folder: pathlib.PurePath, without: re.Pattern[str] | None) -> pathlib.Path:
    with _or_out_of_reach():
        names = _objects.below(folder)
    local_each([folder / name for name in names if without is None or not without.search(name)])
    return place_of_copies(folder)


def place_of_copies(folder: pathlib.PurePath) -> pathlib.Path:
    return _fetched.place_of(folder)


def _found(path: pathlib.PurePath) -> _objects.Object:
    with _or_out_of_reach():
        found = _objects.find(path)
    if found is None:
        raise _missing(path)
    return found


def _missing(path: pathlib.PurePath) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


@contextlib.contextmanager
def _or_out_of_reach() -> Iterator[None]:
    """Tells a bucket that does not answer from a file that cannot be read: a damaged record may be left out."""
    try:
        yield
    except OSError as problem:
        if problem.errno == errno.EIO:
            raise OutOfReachError(str(problem)) from None
        raise
