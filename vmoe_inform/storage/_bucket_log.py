"""A file of a bucket that grows.

An object cannot be appended to. So what is new is written as an object of its own, and the store joins the two within
itself. This happens in the background, at most once a second, which is what a store takes for one object.
"""

import concurrent.futures
import contextlib
import itertools
import pathlib
import secrets
import threading
import time

from vmoe_inform.storage import _objects

_SECONDS_BETWEEN = 1.0
_ATTEMPTS = 3  # where the object is another one than it was


class BucketLog:
    """A file that grows: bytes that cannot be written are kept, and written before the next ones.

    A request that was carried out and whose answer was lost adds nothing twice: the size tells.
    """

    def __init__(self, path: pathlib.PurePath, header: bytes):
        """Args:
        path: of the file, which is made with its first bytes if there is none.
        header: what it begins with.
        """
        self.path, self._header = path, header
        self._waiting = b""
        self._is_busy = False
        self._problem: OSError | None = None
        self._mutex = threading.Lock()
        self._hurry = threading.Event()
        self._worker = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="log")
        self._task: concurrent.futures.Future[None] | None = None
        self._found: _objects.Object | None = None  # as it is, if that is known
        self._is_known = False
        # Of requests since then that may have been carried out: the size after one, and its bytes of what is waiting.
        self._unanswered: dict[int, int] = {}
        self._begun = -_SECONDS_BETWEEN

    @property
    def waiting(self) -> int:
        """Bytes that are not written yet."""
        return len(self._waiting)

    def add(self, content: bytes) -> None:
        """Adds bytes, which are written in the background. Raises the OSError that earlier ones failed with."""
        with self._mutex:
            self._waiting += content
            problem, self._problem = self._problem, None
            if self._waiting and not self._is_busy:
                self._is_busy = True
                self._task = self._worker.submit(self._write_waiting)
        if problem is not None:
            raise problem

    def flush(self) -> None:
        """Waits until all is written. Raises OSError if it cannot be."""
        self._hurry.set()
        with contextlib.suppress(OSError):  # of before: it is tried again
            self.add(b"")
        if self._task is not None:
            self._task.result()
        self._hurry.clear()
        self.add(b"")

    def _write_waiting(self) -> None:
        """Writes until nothing is waiting, or something fails."""
        while True:
            self._hurry.wait(self._begun + _SECONDS_BETWEEN - time.monotonic())
            self._begun = time.monotonic()
            with self._mutex:
                content = self._waiting
                self._is_busy = bool(content)
            if not content:
                return
            try:
                self._append(content)
            except OSError as problem:
                with self._mutex:
                    self._problem, self._is_busy = problem, False
                return

    def _append(self, content: bytes) -> None:
        """Adds bytes that are waiting, less what requests that were not answered have added of them."""
        for attempt in itertools.count(1):
            if not self._is_known:
                content = content[self._look() :]
                if not content:
                    return
            before = self._found
            size = 0 if before is None else before.size
            added = content if size else self._header + content
            self._unanswered[size + len(added)] = len(content)
            self._is_known = False
            try:
                self._found = self._added(before, added)
            except _objects.ChangedError:
                if attempt == _ATTEMPTS:
                    raise
                continue
            self._is_known = True
            self._drop(len(content))
            return

    def _look(self) -> int:
        """Finds the object as it is; returns how many of the bytes that are waiting are in it already."""
        self._found = self._begin()
        self._is_known = True
        count = 0 if self._found is None else self._unanswered.get(self._found.size, 0)
        if count:
            self._drop(count)
        return count

    def _drop(self, count: int) -> None:
        """Takes note that the first bytes of what is waiting are written."""
        self._unanswered.clear()
        with self._mutex:
            self._waiting = self._waiting[count:]

    def _added(self, before: _objects.Object | None, content: bytes) -> _objects.Object:
        if before is None or not before.size:
            return _objects.write(self.path, content, generation=0 if before is None else before.generation)
        part = self.path.with_name(f"{self._prefix}{secrets.token_hex(8)}")
        _objects.write(part, content)
        try:
            return _objects.join(self.path, part, generation=before.generation)
        finally:
            with contextlib.suppress(OSError):
                _objects.delete(part)

    def _begin(self) -> _objects.Object | None:
        """What is there already. Parts that a process which was killed has left are deleted."""
        for name in _objects.level(self.path.parent)[0]:
            if name.startswith(self._prefix):
                _objects.delete(self.path.with_name(name))
        return _objects.find(self.path)

    @property
    def _prefix(self) -> str:
        """Of the names of parts."""
        return f".{self.path.name}.part."
