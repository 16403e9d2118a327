"""How many files are done, where nothing else tells."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import rich.console

from vmoe_inform.progress import Bar, TimeLeft, describe_seconds

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
        self._left = TimeLeft()  # from the first file on: before it the model is compiled
        self._text = self._words(None)
        self._last_line: float | None = None
        console = console or rich.console.Console(stderr=True)
        self._bar = Bar(lambda: self._text, total=total, console=console, transient=True)

    def advance(self) -> None:
        """Shows that one more file is done."""
        self._done += 1
        now = self._clock()
        self._text = self._words(self._left.seconds(self._done, self._total, now))
        self._bar.show(self._done, self._total)
        if self._last_line is None:
            self._last_line = now
        elif not self._bar.is_drawn and now - self._last_line >= _SECONDS_BETWEEN_LINES and self._done < self._total:
            self._last_line = now
            self._bar.line(self._text)

    def _words(self, left: float | None) -> str:
        return f"{self._done:,} of {self._total:,} images  ETA {describe_seconds(left)}"

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, problem, trace)
