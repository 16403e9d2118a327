"""The terminal: each phase of a run with its time, and the progress of training with an ETA."""

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self, SupportsFloat

import rich.console

from vmoe_inform.progress import Bar, TimeLeft, describe_seconds


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
        self._clock = clock
        self._start = self._phase_start = clock()
        # The clock starts at the first step of this process: its time holds the compilation, which does not come again.
        self._left = TimeLeft()
        self._text = ""
        self._metrics: list[str] = []  # of the last log entry
        self._is_phase = False
        self._bar = Bar(self._line, console=console) if shown else None

    def phase(self, text: str) -> None:
        """Says what the run is doing from now on."""
        self._phase_start = self._clock()
        if self._bar is not None and self._bar.is_drawn:
            self._show(self._bar, text, is_phase=True)
        else:
            self.say(text)

    def advance(self, text: str, done: int, total: int) -> None:
        """Shows how far the phase is, on a terminal only; ``text`` replaces that of :meth:`phase`."""
        if self._bar is not None:
            self._show(self._bar, f"{text}  {done}/{total}", done, total, is_phase=True)

    def say(self, text: str) -> None:
        """Prints one line, which stays."""
        if self._bar is not None:
            self._bar.line(f"[{describe_seconds(self._clock() - self._start)}] {text}")

    def step(self, step: int, total_steps: int, metrics: Mapping[str, SupportsFloat] | None = None) -> None:
        """Shows that ``step`` of ``total_steps`` steps are done.

        Args:
          step: optimizer steps done.
          total_steps: steps of the whole run.
          metrics: such as loss, accuracy (a share) and images_per_second. Without them nothing is printed where there
            is no terminal, and a terminal keeps those of before.
        """
        if self._bar is None:
            return
        if metrics is not None:
            self._metrics = [_describe_metric(name, float(value)) for name, value in metrics.items()]
        parts = [f"{100 * step // total_steps:3d} %", f"step {step}/{total_steps}", *self._metrics]
        text = "  ".join([*parts, f"ETA {describe_seconds(self._left.seconds(step, total_steps, self._clock()))}"])
        if self._bar.is_drawn:
            self._show(self._bar, text, step, total_steps)
        elif metrics is not None:
            self._bar.line(text)

    def _show(self, bar: Bar, text: str, done: int = 0, total: int | None = None, *, is_phase: bool = False) -> None:
        self._text, self._is_phase = text, is_phase
        bar.show(done, total)

    def _line(self) -> str:
        """The text next to the bar."""
        passed = describe_seconds(self._clock() - self._phase_start)
        return f"{self._text}  {passed}" if self._is_phase else self._text

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, problem, trace)


def _describe_metric(name: str, value: float) -> str:
    counted, is_rate, _ = name.rpartition("_per_second")
    if is_rate:
        return f"{value:,.0f} {counted}/s"
    if name == "accuracy":
        return f"accuracy {100 * value:.1f} %"
    if name == "perplexity":
        return f"perplexity {value:,.1f}"
    return f"{name} {value:.4f}"
