"""The terminal: each phase of a run with its time, and the progress of training with an ETA."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Self, SupportsFloat

import rich.console
import rich.progress
import rich.table
import rich.text
from absl import logging


class _Console(rich.console.Console):
    def on_broken_pipe(self) -> None:
        """Nobody reads what a run prints any more (``train | head``), where rich would end it."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Terminal:
    """A bar on a terminal, plain lines elsewhere; a context manager.

    A phase, such as compiling, lasts until the next one or until :meth:`step`. On a terminal its time is shown as it
    passes. A plain line has the time since the run started, so the difference of two lines is the time of a phase.
    """

    def __init__(
        self,
        *,
        shown: bool = True,
        console: rich.console.Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Args:
        shown: False shows nothing, as in all processes but the main one.
        console: where to; standard output if None.
        clock: seconds.
        """
        self._shown = shown
        self._clock = clock
        self._console = console or _Console()
        self._has_failed = False
        self._start = self._phase_start = clock()
        self._first: tuple[int, float] | None = None  # step and time of the first step of this process
        self._text = ""
        self._metrics: list[str] = []  # of the last log entry
        self._is_phase = False
        self._bar: rich.progress.Progress | None = None
        if shown and self._console.is_terminal:
            columns = (rich.progress.BarColumn(bar_width=None), _Text(self._line))
            self._bar = rich.progress.Progress(*columns, console=self._console, expand=True)
            self._task = self._bar.add_task("", total=None)

    def phase(self, text: str) -> None:
        """Says what the run is doing from now on."""
        self._phase_start = self._clock()
        if self._bar is not None:
            self._show(text, is_phase=True)
        else:
            self.say(text)

    def advance(self, text: str, done: int, total: int) -> None:
        """Shows how far the phase is, on a terminal only; ``text`` replaces that of :meth:`phase`."""
        if self._bar is not None:
            self._show(f"{text}  {done}/{total}", done, total, is_phase=True)

    def say(self, text: str) -> None:
        """Prints one line, which stays."""
        if not self._shown:
            return
        with self._unless_it_fails():
            line = f"[{describe_seconds(self._clock() - self._start)}] {text}"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def step(self, step: int, total_steps: int, metrics: Mapping[str, SupportsFloat] | None = None) -> None:
        """Shows that ``step`` of ``total_steps`` steps are done.

        Args:
          step: optimizer steps done.
          total_steps: steps of the whole run.
          metrics: such as loss, accuracy (a share) and images_per_second. Without them nothing is printed where there
            is no terminal, and a terminal keeps those of before.
        """
        if not self._shown:
            return
        now = self._clock()
        # The clock starts at the first step of this process: its time holds the compilation, which does not come again.
        if self._first is None:
            self._first = (step, now)
        first_step, first_time = self._first
        left = (now - first_time) * (total_steps - step) / (step - first_step) if step > first_step else None
        if metrics is not None:
            self._metrics = [_describe_metric(name, float(value)) for name, value in metrics.items()]
        parts = [f"{100 * step // total_steps:3d} %", f"step {step}/{total_steps}", *self._metrics]
        text = "  ".join([*parts, f"ETA {'-:--' if left is None else describe_seconds(left)}"])
        if self._bar is not None:
            self._show(text, step, total_steps)
        elif metrics is not None:
            with self._unless_it_fails():
                self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _show(self, text: str, done: int = 0, total: int | None = None, *, is_phase: bool = False) -> None:
        assert self._bar is not None  # its callers ask
        self._text, self._is_phase = text, is_phase
        with self._unless_it_fails():
            self._bar.update(self._task, completed=done, total=total)

    def _line(self) -> str:
        """The text next to the bar, as it is drawn several times a second."""
        passed = describe_seconds(self._clock() - self._phase_start)
        return f"{self._text}  {passed}" if self._is_phase else self._text

    @contextlib.contextmanager
    def _unless_it_fails(self) -> Iterator[None]:
        """Output that cannot be written, such as to a full disk, does not end the run; that is said once."""
        try:
            yield
        except OSError as problem:
            if not self._has_failed:
                logging.error("progress: expected output that can be written to; received %s", problem)
            self._has_failed = True

    def __enter__(self) -> Self:
        if self._bar is not None:
            with self._unless_it_fails():
                self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            with self._unless_it_fails():
                self._bar.stop()


class _Text(rich.progress.ProgressColumn):
    """A text that is asked for whenever the bar is drawn."""

    def __init__(self, text: Callable[[], str]):
        self._ask = text
        super().__init__(table_column=rich.table.Column(no_wrap=True))

    def render(self, task: rich.progress.Task) -> rich.text.Text:
        return rich.text.Text(self._ask())


def _describe_metric(name: str, value: float) -> str:
    counted, is_rate, _ = name.rpartition("_per_second")
    if is_rate:
        return f"{value:,.0f} {counted}/s"
    if name == "accuracy":
        return f"accuracy {100 * value:.1f} %"
    if name == "perplexity":
        return f"perplexity {value:,.1f}"
    return f"{name} {value:.4f}"


def describe_seconds(seconds: float) -> str:
    """``1:38:00``, or ``0:40`` below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
