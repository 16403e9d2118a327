"""Stops the run after a signal: after the same step in all processes, whichever of them received it."""

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh

from vmoe_inform.axes import Array
from vmoe_inform.sharding import processes
from vmoe_inform.sharding.mesh import batch_sharding, replicated
from vmoe_inform.training.hooks.base import Hook, Training
from vmoe_inform.training.stopping import Stopped, StopRequest


class Stop(Hook):
    """Agrees on stopping across processes.

    Between steps the processes tell each other on the devices, and read the answer one step later. So no process waits
    for a step that it has just started.
    """

    def __init__(self, request: StopRequest, mesh: Mesh):
        """Args:
        request: of this process.
        mesh: of all devices of all processes.
        """
        self._request = request
        self._sharding = batch_sharding(mesh)
        self._any = jax.jit(jnp.max, out_shardings=replicated(mesh))
        self._count = mesh.devices.size // processes.index_and_count()[1]
        self._said: Array | None = None

    def begin(self, training: Training) -> None:
        """A signal may have come while the run started."""
        training.stopping = training.stopping or self._agreed_now()

    def step_started(self, training: Training) -> None:
        """Sets ``training.stopping``."""
        training.stopping = training.stopping or self._agreed_before()

    def raise_if_agreed(self) -> None:
        """Raises Stopped if a process has received a signal; for hooks that take long. All processes call it."""
        if self._agreed_now():
            raise Stopped

    def end(self, training: Training) -> None:
        """Says what stopped the run."""
        if training.stopping and training.step < training.total_steps:
            signal, step, total = self._request.received or "a signal", training.step, training.total_steps
            logging.warning("%s: saved step %d of %d and stopped", signal, step, total)

    def _agreed_before(self) -> bool:
        """Whether some process had received a signal when this was last called."""
        if processes.index_and_count()[1] == 1:
            return self._request.received is not None
        before, flag = self._said, np.full(self._count, self._request.received is not None, np.int32)
        self._said = self._any(jax.make_array_from_process_local_data(self._sharding, flag))
        return before is not None and bool(before)

    def _agreed_now(self) -> bool:
        """The same without the delay, where the devices are waited for anyway."""
        return processes.any_process(self._request.received is not None)
