"""Ends a process that makes no progress, such as one that waits for a peer that is gone."""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Self

from vmoe_inform.config import TrainConfig
from vmoe_inform.exit_codes import STUCK
from vmoe_inform.sharding import processes


class Watchdog:
    """A thread that ends the process unless :meth:`finished` is called in time; a context manager.

    It writes the stacks of all threads to standard error first. The process ends at once with the exit code ``STUCK``,
    without waiting for other threads or processes. The other processes of the run then notice, and end too.
    """

    def __init__(
        self,
        seconds: float | None,
        start_seconds: float,
        process: tuple[int, int] = (0, 1),
        *,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Args:
        seconds: longest time between two calls of :meth:`finished`; None: no thread is started.
        start_seconds: longest time until the first call, and after each of :meth:`expect_compilation`.
        process: number of this process, and how many there are.
        clock: seconds, from any beginning.
        """
        self._seconds = seconds
        self._start_seconds = start_seconds
        self._process = process
        self._clock = clock
        self._changed = threading.Condition()
        self._since = self._deadline = 0.0
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
        """Restarts the timeout: something was finished, e.g. ``"step 7"``."""
        if self._seconds is not None:
            with self._changed:
                self._last = what
                self._since = self._clock()
                self._deadline = self._since + self._seconds

    def expect_compilation(self, of: str) -> None:
        """Allows ``start_seconds`` for the first ``of`` of its kind, which is compiled."""
        if self._seconds is not None and of not in self._compiled:
            self._compiled.add(of)
            self.expect_pause()

    def expect_pause(self) -> None:
        """Allows ``start_seconds`` for what follows, if that is longer."""
        if self._seconds is not None:
            with self._changed:
                self._since = self._clock()
                self._deadline = self._since + max(self._seconds, self._start_seconds)

    def _watch(self) -> None:
        assert self._seconds is not None  # or there is no thread
        with self._changed:
            while not self._closed:
                left = self._deadline - self._clock()
                if left <= 0:
                    self._end()
                # The deadline after a compilation is earlier than that of the compilation: look now and then.
                self._changed.wait(min(left, self._seconds / 4))

    def _end(self) -> None:
        index, count = self._process
        where = f" in process {index} of {count}; another may be stopped or gone" if count > 1 else ""
        seconds = self._deadline - self._since
        print(
            f"error: watchdog: expected something to be finished within {seconds:g} s (train.watchdog_seconds, or "
            f"train.watchdog_start_seconds); received nothing after {self._last}{where}. All threads:",
            file=sys.stderr,
            flush=True,
        )
        faulthandler.dump_traceback(all_threads=True)
        os._exit(STUCK)


OFF = Watchdog(None, 0.0)  # watches nothing


def of_run(train: TrainConfig) -> Watchdog:
    """This process's watchdog, as a run's settings ask for it."""
    return Watchdog(train.watchdog_seconds, train.watchdog_start_seconds, processes.index_and_count())
