"""The report of the accelerator check while it grows: on the disk with every row, and whole at the deadline."""

import dataclasses
import threading
import time
from collections.abc import Sequence

from vmoe_inform import storage
from vmoe_inform.performance.accelerator import results
from vmoe_inform.performance.accelerator.results import Part, Report, Row, State


class Recorder:
    """Collects the rows of the parts; another thread may stop it.

    Attributes:
      report: of the parts that have ended.
    """

    def __init__(self, report: Report, file: storage.Path | None):
        """Args:
        report: without parts.
        file: JSON, which is written at once and with every row; None for none.
        """
        self.report = report
        self._file = file
        self._lock = threading.Lock()  # the deadline is another thread's
        self._running: tuple[str, float] | None = None
        self._rows: list[Row] = []
        self._write()

    def begin(self, name: str) -> None:
        """A part begins."""
        with self._lock:
            self._running, self._rows = (name, time.perf_counter()), []

    def add(self, row: Row) -> None:
        """The part that is running has found a row."""
        with self._lock:
            self._rows.append(row)
            self._write()

    def end(self, state: State, note: str) -> None:
        """The part that is running ends."""
        with self._lock:
            self.report = self._with_running(state, note)
            self._running = None
            self._write()

    def skip(self, name: str, note: str) -> None:
        """A part is left out."""
        with self._lock:
            self.report = dataclasses.replace(
                self.report, parts=(*self.report.parts, Part(name, "left out", 0.0, (), note))
            )
            self._write()

    def stop(self, names: Sequence[str]) -> Report:
        """The report at the deadline, with what is running now; nothing is added any more."""
        self._lock.acquire()  # for good
        report = self._with_running("cut short", "stopped at the deadline") if self._running else self.report
        known = {part.name for part in report.parts}
        left = tuple(Part(name, "left out", 0.0, (), "out of time") for name in names if name not in known)
        self.report, self._running = dataclasses.replace(report, parts=(*report.parts, *left)), None
        self._write()
        return self.report

    def _with_running(self, state: State, note: str) -> Report:
        if self._running is None:
            return self.report
        name, start = self._running
        part = Part(name, state, time.perf_counter() - start, tuple(self._rows), note)
        return dataclasses.replace(self.report, parts=(*self.report.parts, part))

    def _write(self) -> None:
        if self._file is not None:
            results.write(self._file, self._with_running("cut short", "still running"))
