"""Progress of a study, read from the files of its runs: one bar on a terminal, plain lines elsewhere."""

import contextlib
import dataclasses
import threading
import time
import types
from collections.abc import Callable, Sequence
from typing import Self

import rich.console

from vmoe_inform import storage
from vmoe_inform.progress import Bar, TimeLeft, describe_seconds
from vmoe_inform.studies.plan import PlannedRun
from vmoe_inform.training.writers.jsonl import last_step

_LINE_EVERY_SECONDS = 60.0  # where there is no terminal, unless a run was finished


def steps_done(run: PlannedRun) -> int:
    """Training steps that a run has logged; all of them if it is finished."""
    if run.is_finished:
        return run.total_steps
    return last_step(run.folder / "metrics.jsonl")


@dataclasses.dataclass(frozen=True)
class _Line:
    """What a plain line has said, and when."""

    finished: int
    has_eta: bool
    time: float


class Progress:
    """Shows runs and steps done and the time left, while it is entered; a thread of its own looks at the files.

    Args:
      runs: of the study.
      console: where to; standard output if None.
      clock: seconds.
    """

    def __init__(
        self,
        runs: Sequence[PlannedRun],
        *,
        console: rich.console.Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._runs = runs
        self._clock = clock
        self._left = TimeLeft()
        self._text = ""
        self._shown: _Line | None = None  # the last
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._bar = Bar(lambda: self._text, total=sum(run.total_steps for run in runs), console=console)

    def update(self) -> None:
        """Reads the files and shows the progress; what a bucket does not answer is not news."""
        with contextlib.suppress(OSError):
            self._show(sum(map(steps_done, self._runs)), sum(run.is_finished for run in self._runs))

    def _show(self, steps: int, finished: int) -> None:
        now, total = self._clock(), sum(run.total_steps for run in self._runs)
        left = self._left.seconds(steps, total, now)
        is_measuring = steps == total and finished < len(self._runs)  # which no step says the time of
        self._text = (
            f"{100 * steps // total:3d} %  {finished} of {len(self._runs)} runs done  "
            f"step {steps:,} of {total:,}  {'measuring' if is_measuring else f'ETA {describe_seconds(left)}'}"
        )
        self._bar.show(steps, total)
        if not self._bar.is_drawn and self._is_news(finished, left, now):
            self._shown = _Line(finished, left is not None, now)
            self._bar.line(self._text)

    def _is_news(self, finished: int, left: float | None, now: float) -> bool:
        """Whether to print a line: the first, the first with an ETA, after each run, and once a minute."""
        last = self._shown
        if last is None or finished > last.finished or (left is not None and not last.has_eta):
            return True
        return now - last.time >= _LINE_EVERY_SECONDS

    def _watch(self) -> None:
        while not self._ended.wait(storage.look_seconds(self._runs[0].folder)):
            self.update()

    def __enter__(self) -> Self:
        self.update()
        self._bar.__enter__()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self.update()
        self._bar.__exit__(kind, problem, trace)
