"""Saves checkpoints: periodically, at given steps, and after the last step."""

import contextlib
from collections.abc import Collection, Iterator

from absl import logging

from vmoe_inform.config import CheckpointConfig
from vmoe_inform.runs.checkpoints import Checkpoints, SavingError
from vmoe_inform.runs.lock import RunLock
from vmoe_inform.sharding.watchdog import Watchdog
from vmoe_inform.training.hooks.base import Hook, Training
from vmoe_inform.training.metrics_logger import MetricsLogger
from vmoe_inform.training.terminal import Terminal


class Save(Hook):
    """Writes checkpoints in the background; whether that failed is noticed at the next step.

    A state is saved only after :class:`~vmoe_inform.training.hooks.watch.Watch` has seen its step: one that is not
    finite is not kept.
    """

    counts_as_step_time = True

    def __init__(
        self,
        checkpoints: Checkpoints,
        config: CheckpointConfig,
        *,
        steps: Collection[int],
        lock: RunLock,
        watchdog: Watchdog,
        terminal: Terminal,
        logger: MetricsLogger,
    ):
        """Args:
        checkpoints: of the run.
        config: when to save, and whether training continues if a checkpoint cannot be written.
        steps: steps that are saved besides.
        lock: of the run's folder.
        watchdog: of this process.
        terminal: says what takes time.
        logger: of the run; nothing is saved that is newer than the log.
        """
        self._logger = logger
        self._checkpoints = checkpoints
        self._config = config
        self._steps = frozenset(steps)
        self._lock = lock
        self._watchdog = watchdog
        self._terminal = terminal

    def step_started(self, training: Training) -> None:
        """Raises SavingError if saving in the background has failed and ``checkpoint.on_error`` is ``"stop"``."""
        with self._tolerating():
            self._checkpoints.check()

    def is_due(self, step: int) -> bool:
        """Every ``checkpoint.every_steps`` steps, and at the given ones."""
        return step % self._config.every_steps == 0 or step in self._steps

    def act(self, training: Training) -> None:
        """Begins to save. Raises SavingError as :meth:`step_started`, and RemovedError if the folder has gone."""
        self._lock.check()
        self._terminal.phase(f"saving step {training.step}")
        self._logger.flush()
        with self._tolerating():
            self._checkpoints.save(training.state, training.data)

    def end(self, training: Training) -> None:
        """Saves the last step and waits for it. Raises SavingError if it cannot be written."""
        self._terminal.phase(f"saving step {training.step}")
        with self._tolerating():
            self._checkpoints.wait()
        self._lock.check()
        self._logger.flush()
        self._checkpoints.save(training.state, training.data)
        self._checkpoints.wait()
        self._watchdog.finished("the last save")

    @contextlib.contextmanager
    def _tolerating(self) -> Iterator[None]:
        try:
            yield
        except SavingError as problem:
            if self._config.on_error == "stop":
                raise
            logging.error("%s Training continues.", problem)
