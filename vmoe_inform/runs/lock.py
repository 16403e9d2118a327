"""One training at a time in a run's folder.

The lock is free when the process that took it ends, for any reason: at once on a disk, after a lease in a bucket.
Nothing is left to tidy up. On a disk DIR/train.lock is never deleted, since two processes could then lock two files of
that name. Its content is for error messages, and tells whether the folder is still the one that was locked.
"""

import contextlib
import json
import os
import pathlib
import socket
import time
import uuid
from typing import Any, Self

from absl import logging

from vmoe_inform import checks, storage
from vmoe_inform.sharding import processes
from vmoe_inform.storage import locks, strict

LOCK_FILE = "train.lock"
_OWNER_BYTES = 4096
_UNKNOWN = {"process": "?", "host": "?", "since": "?"}
_ATTEMPTS = 10
_LOOK_EVERY_SECONDS = 0.5
# How long to wait for a lock that is held. A process that was killed holds its own until its memory is freed. The lock
# of a machine that is gone is freed by the file system's server when its lease ends: 90 s for Linux' NFS 4.
_PATIENCE_SECONDS_HERE, _PATIENCE_SECONDS_ELSEWHERE = 5.0, 120.0


class RemovedError(OSError):
    """The folder of the run has gone; what was trained since the last checkpoint cannot be saved in it."""


class RunLock:
    """A context manager in which no other process trains in a folder.

    Process 0 of several holds the lock, and the others learn from it how that went.
    """

    def __init__(self, workdir: storage.Path):
        """Args:
        workdir: an existing folder that can be written to.
        """
        self._workdir, self._path = workdir, workdir / LOCK_FILE
        self._lock: storage.Lock | None = None
        self._owner = {
            "process": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
            "machine": _machine(),
            "training": uuid.uuid4().hex,
        }

    def __enter__(self) -> Self:
        """Raises ValueError, in every process of this run, if another run trains there."""
        if problem := processes.from_main(self._take):
            raise checks.InputError(problem)
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def check(self) -> None:
        """Raises RemovedError if the folder no longer is the one that was locked; process 0 alone looks after it."""
        try:
            self.confirm()
        except RemovedError:
            raise
        except OSError:
            return  # which will be said by what has to be read or written

    def confirm(self) -> None:
        """As :meth:`check`. Also raises OSError if it cannot be found out now."""
        if self._lock is not None and not self._is_in_place(self._lock):
            raise RemovedError(
                f"workdir: expected {str(self._workdir)!r} to stay while training runs; it was removed or replaced"
            )

    def _is_in_place(self, lock: storage.Lock) -> bool:
        try:
            found = _owner_in(lock.current(_OWNER_BYTES))
        except (FileNotFoundError, storage.DamagedFileError):
            return False
        return not found or found == self._owner  # there is none where the disk was full

    def _take(self) -> str:
        """Takes the lock, or returns the reason in one line."""
        try:
            for _ in range(_ATTEMPTS):
                self._lock = self._locked()
                with contextlib.suppress(OSError):  # such as a full disk: the lock holds without
                    self._lock.write((json.dumps(self._owner) + "\n").encode())
                with contextlib.suppress(RemovedError):
                    self.check()
                    return ""
                self.__exit__()  # the file was removed since it was opened
            return str(checks.error("workdir", "a folder whose files stay in place", str(self._workdir)))
        except checks.InputError as problem:
            return str(problem)

    def _locked(self) -> storage.Lock:
        """The lock file, when it is locked."""
        begun, told = time.monotonic(), False
        lock = _open(self._path)
        while True:
            try:
                if not lock.take(wait=False):
                    words = "%s: this file system has no locks; two trainings in one folder are noticed late"
                    logging.warning(words, self._path)
                return lock
            except BlockingIOError:
                owner = _owner_in(lock.read(_OWNER_BYTES))
            except OSError as problem:
                lock.close()
                raise checks.error(str(self._path), "a file that can be locked", problem.strerror) from None
            is_here = owner.get("machine") == self._owner["machine"]
            patience = _PATIENCE_SECONDS_HERE if is_here else _PATIENCE_SECONDS_ELSEWHERE
            patience = max(patience, 1.1 * lock.lease_seconds)
            who = "in use by process {process!r} on {host!r} since {since!r}".format_map({**_UNKNOWN, **owner})
            if time.monotonic() - begun >= patience:
                lock.close()
                expected = "a folder in which no other training runs"
                raise checks.InputError(f"workdir: expected {expected}; received {str(self._workdir)!r}, {who}")
            if not is_here and not told:
                logging.warning("%s: %s; waiting up to %g s", self._workdir, who, patience)
                told = True
            time.sleep(_LOOK_EVERY_SECONDS)


def _open(path: storage.Path) -> storage.Lock:
    try:
        return locks.lock_at(path)
    except OSError as problem:
        raise checks.error(str(path), "a file that can be written to", problem.strerror) from None


def _machine() -> str:
    """An id of this machine until it reboots, the same in all of its containers."""
    try:
        return pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _owner_in(content: bytes) -> dict[str, Any]:
    """The holder's text; ``{}`` if it cannot be read, or was cut short."""
    try:
        owner = strict.parse_json(content)
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}
