"""How far a study is: one bar on a terminal, plain lines elsewhere, from nothing but the files that its runs write."""

import datetime
import threading
import time
import types
from collections.abc import Callable, Sequence
from typing import Self

import rich.console
import rich.progress

from vmoe_inform.studies.plan import Run
from vmoe_inform.training.writers.jsonl import last_step

_LOOK_EVERY_SECONDS = 1.0
_LINE_EVERY_SECONDS = 60.0  # where there is no terminal, unless a run was finished


def steps_done(run: Run) -> int:
    """Training steps that a run has logged; all of them if it is finished."""
    if run.is_finished:
        return run.total_steps
    return last_step(run.folder / "metrics.jsonl")


class Progress:
    """Shows runs and steps done and the time left, while it is entered; a thread of its own looks at the files.

    Args:
      runs: of the study.
      console: where to; standard output if None.
      clock: seconds.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        *,
        console: rich.console.Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._runs = runs
        self._clock = clock
        self._console = console or rich.console.Console()
        self._before: tuple[int, float] | None = None  # steps done, and when: at the start
        self._shown: tuple[int, float] | None = None  # runs done, and when: of the last plain line
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._bar: rich.progress.Progress | None = None
        if self._console.is_terminal:
            columns = (
                rich.progress.BarColumn(bar_width=None),
                rich.progress.TextColumn("{task.description}", markup=False),
            )
            self._bar = rich.progress.Progress(*columns, console=self._console, expand=True)
            self._task = self._bar.add_task("", total=sum(run.total_steps for run in runs))

    def update(self) -> None:
        """Looks at the files and shows what they say."""
        now = self._clock()
        steps, total = sum(map(steps_done, self._runs)), sum(run.total_steps for run in self._runs)
        finished = sum(run.is_finished for run in self._runs)
        if self._before is None:
            self._before = (steps, now)
        steps_before, then = self._before
        left = (now - then) * (total - steps) / (steps - steps_before) if steps > steps_before else None
        text = (
            f"{100 * steps // total:3d} %  {finished} of {len(self._runs)} runs done  "
            f"step {steps:,} of {total:,}  time left {_words(left)}"
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=steps, description=text)
        elif self._shown is None or finished > self._shown[0] or now - self._shown[1] >= _LINE_EVERY_SECONDS:
            self._shown = (finished, now)
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK_EVERY_SECONDS):
            self.update()

    def __enter__(self) -> Self:
        self.update()
        if self._bar is not None:
            self._bar.start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self.update()
        if self._bar is not None:
            self._bar.stop()


def _words(seconds: float | None) -> str:
    return "-:--" if seconds is None else str(datetime.timedelta(seconds=round(seconds)))
