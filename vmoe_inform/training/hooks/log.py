"""Logs metrics: to the run's writers and on the terminal."""

from collections.abc import Callable, Mapping, Sequence

import jax

from vmoe_inform.runs.lock import RunLock
from vmoe_inform.training.hooks.base import Hook, Training
from vmoe_inform.training.in_flight import FinishedStep
from vmoe_inform.training.measurements import EXPERT_LOADS, Window
from vmoe_inform.training.metrics_logger import MetricsLogger
from vmoe_inform.training.nonfinite import WHERE
from vmoe_inform.training.terminal import Terminal

_FOR_OTHERS = (WHERE, EXPERT_LOADS)  # metrics of a step that are not logged as they are


class Log(Hook):
    """Writes an entry every ``train.log_every_steps`` steps and after the last step of this process.

    docs/observability.md lists the metrics of an entry with their units.
    """

    def __init__(
        self,
        logger: MetricsLogger,
        terminal: Terminal,
        window: Window,
        *,
        shown: Sequence[str],
        every_steps: int,
        total_steps: int,
        last_step: int,
        lock: RunLock,
        counters: Mapping[str, Callable[[], int]],
    ):
        """Args:
        logger: writes the metrics.
        terminal: shows some of them, and how far the run is.
        window: measures all steps since the entry before.
        shown: metrics for the terminal.
        every_steps: steps from one entry to the next.
        total_steps: of the whole run.
        last_step: of this process.
        lock: of the run's folder; nothing is written to a folder that was replaced.
        counters: metrics that are counted on the host, by name.
        """
        self._logger = logger
        self._terminal = terminal
        self._window = window
        self._shown = shown
        self._every_steps = every_steps
        self._total_steps = total_steps
        self._last_step = last_step
        self._is_compiled = False
        self._lock = lock
        self._counters = dict(counters)

    def begin(self, training: Training) -> None:
        """Says that the first step is compiled, which may take minutes."""
        if training.step < training.last_step and not training.stopping:
            self._terminal.phase("compiling the training step")

    def step_started(self, training: Training) -> None:
        """Says when the compilation has ended."""
        if not self._is_compiled:
            self._is_compiled = True
            self._terminal.phase(f"running the first step; progress is shown every {self._every_steps} steps")

    def step_finished(self, done: FinishedStep) -> None:
        """Raises RemovedError if the run's folder has gone."""
        self._window.add(done)
        if done.step % self._every_steps and done.step != self._last_step:
            self._terminal.step(done.step, self._total_steps)
            return
        self._lock.check()
        values = jax.device_get({name: value for name, value in done.metrics.items() if name not in _FOR_OTHERS})
        scalars = {name: float(value) for name, value in values.items()} | self._window.close()
        scalars |= {name: float(count()) for name, count in self._counters.items()}
        self._logger.log(done.step, scalars)
        shown = {name: scalars[name] for name in self._shown if name in scalars}
        self._terminal.step(done.step, self._total_steps, shown)
