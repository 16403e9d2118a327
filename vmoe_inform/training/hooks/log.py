"""Logs metrics: to the run's writers and on the terminal."""

from collections.abc import Callable, Mapping

import jax

from vmoe_inform.runs.lock import RunLock
from vmoe_inform.training.hooks.base import Hook
from vmoe_inform.training.in_flight import FinishedStep
from vmoe_inform.training.logging import MetricsLogger, Progress
from vmoe_inform.training.measurements import EXPERT_LOADS, Window
from vmoe_inform.training.nonfinite import WHERE

_SHOWN = ("loss", "accuracy", "images_per_second")  # on the terminal
_FOR_OTHERS = (WHERE, EXPERT_LOADS)  # metrics of a step that are not logged as they are


class Log(Hook):
    """Writes an entry every ``train.log_every_steps`` steps and after the last step of this process.

    docs/observability.md lists the metrics of an entry with their units.
    """

    def __init__(
        self,
        logger: MetricsLogger,
        progress: Progress,
        window: Window,
        *,
        every_steps: int,
        last_step: int,
        lock: RunLock,
        counters: Mapping[str, Callable[[], int]],
    ):
        """Args:
        logger: writes the metrics.
        progress: shows some of them.
        window: measures all steps since the entry before.
        every_steps: steps from one entry to the next.
        last_step: of this process.
        lock: of the run's folder; nothing is written to a folder that was replaced.
        counters: metrics that are counted on the host, by name.
        """
        self._logger = logger
        self._progress = progress
        self._window = window
        self._every_steps = every_steps
        self._last_step = last_step
        self._lock = lock
        self._counters = dict(counters)

    def step_finished(self, done: FinishedStep) -> None:
        """Raises RemovedError if the run's folder has gone."""
        self._window.add(done)
        if done.step % self._every_steps and done.step != self._last_step:
            return
        self._lock.check()
        values = jax.device_get({name: value for name, value in done.metrics.items() if name not in _FOR_OTHERS})
        scalars = {name: float(value) for name, value in values.items()} | self._window.close()
        scalars |= {name: float(count()) for name, count in self._counters.items()}
        self._logger.log(done.step, scalars)
        self._progress.update(done.step, {name: scalars[name] for name in _SHOWN if name in scalars})
