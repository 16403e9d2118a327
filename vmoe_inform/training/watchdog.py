"""Ends a process in which nothing is finished any more, such as one that waits for a peer that is gone."""

import faulthandler
import os
import sys
import threading
import time
from typing import Self

STUCK = 124  # exit code, as of the command ``timeout``


class Watchdog:
    """A thread that ends the process unless it hears in time that something was finished; a context manager.

    The stacks of all threads are written to standard error first. The process ends at once, without waiting for other
    threads or processes, with the exit code ``STUCK``: the others miss it then, and end too.
    """

    def __init__(self, seconds: float | None, start_seconds: float):
        """Args:
        seconds: longest time between two calls of :meth:`finished`; None: no thread is started.
        start_seconds: longest time until the first call, and after each of :meth:`expect_compilation`.
        """
        self._seconds = seconds
        self._start_seconds = start_seconds
        self._changed = threading.Condition()
        self._deadline = 0.0
        self._last = "the start"
        self._compiled: set[str] = set()
        self._closed = False

    def __enter__(self) -> Self:
        if self._seconds is not None:
            self.expect_compilation("the start")
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def finished(self, what: str) -> None:
        """Something was finished, e.g. ``"step 7"``: the time begins anew."""
        if self._seconds is not None:
            with self._changed:
                self._last = what
                self._deadline = time.monotonic() + self._seconds

    def expect_compilation(self, of: str) -> None:
        """What comes next takes longer, the first time."""
        if self._seconds is not None and of not in self._compiled:
            self._compiled.add(of)
            with self._changed:
                self._deadline = time.monotonic() + max(self._seconds, self._start_seconds)

    def _watch(self) -> None:
        assert self._seconds is not None  # or there is no thread
        with self._changed:
            while not self._closed:
                left = self._deadline - time.monotonic()
                if left <= 0:
                    self._end()
                # The deadline after a compilation is earlier than that of the compilation: look now and then.
                self._changed.wait(min(left, self._seconds / 4))

    def _end(self) -> None:
        print(
            f"error: watchdog: nothing was finished in time; the last was {self._last}. All threads:",
            file=sys.stderr,
            flush=True,
        )
        faulthandler.dump_traceback(all_threads=True)
        os._exit(STUCK)
