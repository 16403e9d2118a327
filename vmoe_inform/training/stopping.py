"""The wish to stop, as signals bring it, and what all processes of a run make of it together."""

import os
import signal
import threading
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vmoe_inform.axes import Array
from vmoe_inform.sharding import processes
from vmoe_inform.sharding.mesh import batch_sharding, replicated


class Stopped(Exception):
    """A signal came, and what was being done is left unfinished."""


class StopRequest:
    """Turns SIGTERM and SIGINT into a flag that the loop reads between steps.

    Launchers send more than one: to a process and to its group, or one of each kind. So the second is only noted, and
    the save completes. The third does what it would do without this: it ends a process, or interrupts a notebook.
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


class AgreedStop:
    """Whether to stop, in the same step in all processes: whichever of them the signal has reached.

    The processes tell each other on the devices, between two steps. What they have said is read one call later, so
    that no process waits for a step that it has just started.
    """

    def __init__(self, request: StopRequest, mesh: Mesh):
        """Args:
        request: of this process.
        mesh: of all devices of all processes.
        """
        self._request = request
        self._sharding = batch_sharding(mesh)
        self._any = jax.jit(jnp.max, out_shardings=replicated(mesh))
        self._count = mesh.devices.size // processes.place()[1]
        self._said: Array | None = None

    def between_steps(self) -> bool:
        """Whether to stop now; all processes ask after every step."""
        if processes.place()[1] == 1:
            return self._request.received is not None
        before, flag = self._said, np.full(self._count, self._request.received is not None, np.int32)
        self._said = self._any(jax.make_array_from_process_local_data(self._sharding, flag))
        return before is not None and bool(before)

    def now(self) -> bool:
        """The same without the delay, where the devices are waited for anyway."""
        return processes.any_process(self._request.received is not None)
