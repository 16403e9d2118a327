"""Objects of a bucket that users name, as :mod:`vmoe_inform.storage.inputs` gives them."""

import concurrent.futures
import contextlib
import errno
import itertools
import os
import pathlib
import re
import threading
from collections.abc import Iterator, Sequence

from vmoe_inform import checks
from vmoe_inform.storage import _fetched, _objects
from vmoe_inform.storage._damage import OutOfReachError
from vmoe_inform.storage.place import Entry

_THREADS = 16  # requests at a time
_ATTEMPTS = 5  # to fetch an object that others replace


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
    with _threads() as threads:
        yield from threads.map(entries, folders)


def size(path: pathlib.PurePath) -> int:
    return _found(path).size


def read_bytes(path: pathlib.PurePath) -> bytes:
    try:
        with _or_out_of_reach():
            return _objects.read(path)
    except PermissionError as problem:  # of the whole bucket, as when credentials have expired
        raise OutOfReachError(str(problem)) from None


def first_bytes(path: pathlib.PurePath, count: int) -> bytes:
    found = _found(path)
    with _or_out_of_reach():
        return _objects.read_part(path, found, 0, min(count, found.size)) if found.size else b""


def local_each(paths: Sequence[pathlib.PurePath]) -> list[pathlib.Path]:
    abandoned = threading.Event()
    with contextlib.ExitStack() as stack:
        threads = stack.enter_context(_threads())
        stack.callback(abandoned.set)
        found = list(threads.map(_found, paths))
        missing = [(path, one) for path, one in zip(paths, found, strict=True) if not _fetched.is_here(path, one)]
        if missing:
            _fetched.announce(missing)
            for _ in threads.map(lambda one: _fetch_newest(one[0], one[1], abandoned), missing):
                pass
    return [_fetched.place_of(path) for path in paths]


def _fetch_newest(path: pathlib.PurePath, found: _objects.Object, abandoned: threading.Event) -> None:
    """Fetches an object as it was found, or as it is by then. An error ends the other threads' work, too."""
    try:
        for attempt in itertools.count(1):
            try:
                with _or_out_of_reach():
                    _fetched.fetch(path, found, abandoned)
                return
            except _objects.ChangedError:
                if attempt == _ATTEMPTS:
                    raise
            found = _found(path)
    except BaseException:
        abandoned.set()
        raise


def local_folder(folder: pathlib.PurePath, without: re.Pattern[str] | None) -> pathlib.Path:
    with _or_out_of_reach():
        names = _objects.below(folder)
    local_each([folder / name for name in names if without is None or not without.search(name)])
    _fetched.forget_others(folder, set(names))
    return place_of_copies(folder)


def place_of_copies(folder: pathlib.PurePath) -> pathlib.Path:
    return _fetched.place_of(folder)


def _found(path: pathlib.PurePath) -> _objects.Object:
    with _or_out_of_reach():
        found = _objects.find(path)
    if found is None:
        raise _missing(path)
    if found.encoding:  # what comes has another size and checksum
        expected = "an object without Content-Encoding (gcloud storage cp without --gzip-local and --gzip-in-flight)"
        raise checks.error(str(path), expected, found.encoding)
    return found


def _missing(path: pathlib.PurePath) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


@contextlib.contextmanager
def _threads() -> Iterator[concurrent.futures.ThreadPoolExecutor]:
    """Threads for requests. After an error, or Ctrl-C, nobody waits for those that are under way."""
    threads = concurrent.futures.ThreadPoolExecutor(_THREADS)
    try:
        yield threads
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


@contextlib.contextmanager
def _or_out_of_reach() -> Iterator[None]:
    """Tells a bucket that does not answer from a file that cannot be read: a damaged record may be left out."""
    try:
        yield
    except OSError as problem:
        if problem.errno == errno.EIO:
            raise OutOfReachError(str(problem)) from None
        raise
