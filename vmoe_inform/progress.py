"""Progress: a bar on a terminal, and the time left."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

import rich.console
import rich.progress
import rich.table
import rich.text
from absl import logging


class _Console(rich.console.Console):
    def on_broken_pipe(self) -> None:
        """Nobody reads what a program prints any more (``train | head``), where rich would end it."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Bar:
    """A bar with a text next to it, and lines above it; a context manager.

    Elsewhere than on a terminal there are only the lines. Output that cannot be written, such as to a full disk, does
    not end the program; that is said once.
    """

    def __init__(
        self,
        text: Callable[[], str],
        *,
        total: int | None = None,
        console: rich.console.Console | None = None,
        transient: bool = False,
    ):
        """Args:
        text: asked for whenever the bar is drawn, several times a second.
        total: of what is to be done; None: not known yet.
        console: where to; standard output if None.
        transient: whether the bar vanishes at the end.
        """
        self._console = console or _Console()
        self._has_failed = False
        self._drawn: rich.progress.Progress | None = None
        if self._console.is_terminal:
            self._drawn = rich.progress.Progress(
                rich.progress.BarColumn(bar_width=None),
                _Text(text),
                console=self._console,
                expand=True,
                transient=transient,
                # Lines of the program stay above the bar; what goes to a file goes there.
                redirect_stdout=sys.stdout.isatty(),
                redirect_stderr=sys.stderr.isatty(),
            )
            self._task = self._drawn.add_task("", total=total)

    @property
    def is_drawn(self) -> bool:
        """Whether there is a terminal to draw it on."""
        return self._drawn is not None

    def show(self, done: int = 0, total: int | None = None) -> None:
        """Says how far it is, for the next time that the bar is drawn."""
        if self._drawn is not None:
            with self._unless_it_fails():
                self._drawn.update(self._task, completed=done, total=total)

    def line(self, text: str) -> None:
        """Prints one line, which stays."""
        with self._unless_it_fails():
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def draw(self) -> None:
        """Draws the bar now."""
        if self._drawn is not None:
            with self._unless_it_fails():
                self._drawn.refresh()

    @contextlib.contextmanager
    def _unless_it_fails(self) -> Iterator[None]:
        try:
            yield
        except OSError as problem:
            if not self._has_failed:
                logging.error("progress: expected output that can be written to; received %s", problem)
            self._has_failed = True

    def __enter__(self) -> Self:
        if self._drawn is not None:
            with self._unless_it_fails():
                self._drawn.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn is not None:
            with self._unless_it_fails():
                self._drawn.stop()


class _Text(rich.progress.ProgressColumn):
    """A text that is asked for whenever the bar is drawn."""

    def __init__(self, text: Callable[[], str]):
        self._ask = text
        super().__init__(table_column=rich.table.Column(no_wrap=True))

    def render(self, task: rich.progress.Task) -> rich.text.Text:
        return rich.text.Text(self._ask())


class TimeLeft:
    """The time that is left, at the pace since the first time that it was asked for."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None  # how much was done, and when

    def seconds(self, done: int, total: int, now: float) -> float | None:
        """Seconds until ``total`` is done, at the time ``now``; None where nothing was done since the first call."""
        if self._first is None:
            self._first = (done, now)
        first, then = self._first
        return (now - then) * (total - done) / (done - first) if done > first else None


def describe_seconds(seconds: float | None) -> str:
    """``1:38:00``, or ``0:40`` below an hour; ``-:--`` for None."""
    if seconds is None:
        return "-:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
