"""A lock that an object of a bucket stands for.

Who makes the object holds the lock: the store makes it for one of those who try (a precondition on its generation). The
holder writes it anew every few seconds. If the generation stays the same for a lease, the holder has gone, and the next
one replaces that very generation. No clock of another machine is compared.
"""

import contextlib
import errno
import os
import pathlib
import threading
import time
import uuid

from vmoe_inform.storage import _objects

LEASE_SECONDS = 60.0
_BEAT_SECONDS = 15.0  # from one sign of life to the next
_LOOK_EVERY_SECONDS = 0.2
_REQUEST_SECONDS = 20.0  # for a sign of life with all its repetitions
_HOLDER, _PROCESS = "holder", "process"  # facts of the object


class BucketLock:
    """A lock that is held from :meth:`take` to :meth:`close`."""

    lease_seconds = LEASE_SECONDS

    def __init__(self, path: pathlib.PurePath):
        self._path = path
        self._facts = {_HOLDER: uuid.uuid4().hex, _PROCESS: _this_process()}
        self._content = b""
        self._held: _objects.Object | None = None
        self._renewed = 0.0  # when the last request that renewed it began
        self._seen: tuple[int, float] | None = None  # the generation of another's lock, and since when it is that one
        self._mutex = threading.Lock()
        self._closing = threading.Event()
        self._beating: threading.Thread | None = None

    def take(self, *, wait: bool) -> bool:
        """Takes the lock; see :class:`vmoe_inform.storage.place.Lock`."""
        while not self._taken():
            if not wait:
                raise BlockingIOError(f"{self._path} is held")
            time.sleep(_LOOK_EVERY_SECONDS)
        self._beating = threading.Thread(target=self._beat, name="lock", daemon=True)
        self._beating.start()
        return True

    def _taken(self) -> bool:
        found = _objects.find(self._path)
        if found is not None and not self._has_gone(found):
            return False
        try:
            self._held = self._written(0 if found is None else found.generation)
        except _objects.ChangedError:
            return False
        return True

    def _written(self, generation: int) -> _objects.Object:
        """Writes the object in place of this generation; raises ChangedError if another has done so."""
        begun = time.monotonic()
        try:
            written = _objects.write(
                self._path, self._content, generation=generation, facts=self._facts, seconds=_REQUEST_SECONDS
            )
        except _objects.ChangedError:
            # By this very request, if its answer was lost.
            found = _objects.find(self._path, seconds=_REQUEST_SECONDS)
            if found is None or not self._is_mine(found):
                raise
            written = found
        self._renewed = begun
        return written

    def _is_mine(self, found: _objects.Object) -> bool:
        return found.facts.get(_HOLDER) == self._facts[_HOLDER]

    def _has_gone(self, found: _objects.Object) -> bool:
        """Whether another's lock is of a process that has ended."""
        now = time.monotonic()
        if self._seen is None or self._seen[0] != found.generation:
            self._seen = found.generation, now
        return now - self._seen[1] >= self.lease_seconds or _has_ended(found.facts.get(_PROCESS, ""))

    def _beat(self) -> None:
        """Gives signs of life until the lock is closed or lost."""
        while not self._closing.wait(_BEAT_SECONDS):
            with contextlib.suppress(OSError):  # the next one may succeed, or find that it is too late
                self.write(self._content)
            if self._held is None:
                return

    def read(self, most_bytes: int) -> bytes:
        """What the holder wrote; nothing if the lock has become free."""
        found = _objects.find(self._path)
        if found is None:
            return b""
        with contextlib.suppress(FileNotFoundError, _objects.ChangedError), _objects.opened(self._path, found) as file:
            return file.read(most_bytes)
        return b""

    def write(self, content: bytes) -> None:
        """Replaces what the holder wrote. Raises ChangedError if the lock was lost."""
        with self._mutex:
            if self._held is None:
                raise _objects.ChangedError(errno.EBUSY, "another holds the lock by now", str(self._path))
            self._content = content
            try:
                self._held = self._written(self._held.generation)
            except _objects.ChangedError:
                self._held = None
                raise

    def current(self, most_bytes: int) -> bytes:
        """What the object has now. While the lock is held that is what was written last: nobody else may write it.

        A lock that was not renewed for half a lease is renewed first, which finds out whether it was lost. So the
        holder has half a lease for what it asked for.
        """
        if self._held is not None and time.monotonic() - self._renewed >= self.lease_seconds / 2:
            with contextlib.suppress(_objects.ChangedError):
                self.write(self._content)
        if self._held is not None:
            return self._content
        found = _objects.find(self._path)
        if found is None:
            raise FileNotFoundError(str(self._path))
        return self._content if self._is_mine(found) else self.read(most_bytes)

    def close(self) -> None:
        """Frees the lock. Where the store cannot be reached, its lease ends."""
        self._closing.set()
        if self._beating is not None:
            self._beating.join()
        held, self._held = self._held, None
        if held is not None:
            with contextlib.suppress(OSError):
                _objects.delete(self._path, generation=held.generation)


def _this_process() -> str:
    """What tells this process from all others, on this machine and elsewhere; empty where the system does not say."""
    try:
        return f"{_processes()} {os.getpid()} {_start_of(os.getpid())}"
    except (OSError, IndexError):
        return ""


def _has_ended(process: str) -> bool:
    """Whether a process was one of this machine, and has ended."""
    words = process.rsplit(" ", 2)
    try:
        if len(words) != 3 or words[0] != _processes():
            return False
        return _start_of(int(words[1])) != words[2]
    except ProcessLookupError:
        return True
    except FileNotFoundError:  # it has ended, or /proc hides it since it is another user's (hidepid)
        return not _is_there(int(words[1]))
    except (OSError, IndexError, ValueError):
        return False


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _processes() -> str:
    """The set of processes that this one can see: the machine since its last start, and the container."""
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def _start_of(process: int) -> str:
    """When a process began, in ticks since the machine did: its number may be used again."""
    words = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    if words[0] in "ZX":  # it has ended, and nobody has asked how
        raise ProcessLookupError(process)
    return words[19]
