"""Stop signals. How the processes of a run agree on them is in hooks/stop.py."""

import os
import signal
import threading
import types
from typing import Any


class Stopped(Exception):
    """A signal interrupted work, which is left unfinished and can be resumed."""


class StopRequest:
    """Turns SIGTERM and SIGINT into a flag that the loop reads between steps; a context manager.

    Launchers often send two signals: to a process and to its group, or one of each kind. The second is therefore only
    noted, and the save completes. The third has its default effect: it ends the process, or interrupts a notebook.

    Attributes:
      received: name of the first signal; None if there was none.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._count = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: types.FrameType | None) -> None:
        self._count += 1
        name = signal.Signals(number).name
        if self._count == 1:
            self.received = name
        elif self._count == 2:
            _say(f"{name} after {self.received}: stopping when the step is saved; a third signal ends at once")
        else:
            _say(f"{name}: ending at once; steps since the last checkpoint are lost")
            before = self._before[number]  # what was started in the background of a script ignores SIGINT
            signal.signal(number, signal.SIG_DFL if before == signal.SIG_IGN else before)
            signal.raise_signal(number)


def _say(line: str) -> None:
    """A signal may interrupt a write to standard error, whose buffer must not be touched then."""
    os.write(2, f"{line}\n".encode())
