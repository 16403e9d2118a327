"""How many files are done, where nothing else tells."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import rich.console
import rich.progress

_SECONDS_BETWEEN_LINES = 10.0  # where there is no terminal


class Progress:
    """A bar on the terminal, plain lines elsewhere, both on standard error; a context manager."""

    def __init__(
        self,
        total: int,
        *,
        console: rich.console.Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Args:
        total: files.
        console: where to; standard error if None.
        clock: seconds.
        """
        self._total, self._done, self._clock = total, 0, clock
        self._console = console or rich.console.Console(stderr=True)
        self._last_line: float | None = None  # before the first file the model is compiled
        self._bar: rich.progress.Progress | None = None
        if self._console.is_terminal:
            self._bar = rich.progress.Progress(
                rich.progress.BarColumn(bar_width=None),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TextColumn("images"),
                rich.progress.TimeRemainingColumn(),
                console=self._console,
                expand=True,
                transient=True,
                redirect_stdout=sys.stdout.isatty(),  # lines of the table stay above the bar
            )
            self._task = self._bar.add_task("", total=total)

    def advance(self) -> None:
        """Shows that one more file is done."""
        self._done += 1
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done)
            return
        now = self._clock()
        if self._last_line is None:
            self._last_line = now
        elif now - self._last_line >= _SECONDS_BETWEEN_LINES and self._done < self._total:
            self._last_line = now
            self._console.print(f"{self._done:,} of {self._total:,} images", highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
