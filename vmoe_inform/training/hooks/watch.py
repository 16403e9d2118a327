"""Watches over the steps: the watchdog is told of each, and a loss or gradient that is not finite stops the run."""

import math
from collections.abc import Mapping

from absl import logging

from vmoe_inform.axes import Array, Tree
from vmoe_inform.sharding.watchdog import Watchdog
from vmoe_inform.training.hooks.base import Hook, Training
from vmoe_inform.training.in_flight import FinishedStep
from vmoe_inform.training.nonfinite import WHERE, parameter_groups


class Watch(Hook):
    """Comes before the hooks that use a step's metrics: they see no step that stops the run.

    Attributes:
      skipped: steps whose updates were left out, since this process began.
    """

    def __init__(self, watchdog: Watchdog, params: Tree, max_nonfinite_steps: int):
        """Args:
        watchdog: of this process.
        params: of the model, for the names of their groups.
        max_nonfinite_steps: consecutive steps that may be left out; one more stops the run.
        """
        self._watchdog = watchdog
        self._groups = list(parameter_groups(params))
        self._max_in_a_row = max_nonfinite_steps
        self._in_a_row = 0
        self.skipped = 0

    def begin(self, training: Training) -> None:
        """The first step takes longer."""
        self._watchdog.expect_compilation("training")

    def step_finished(self, done: FinishedStep) -> None:
        """Raises FloatingPointError if more consecutive steps than allowed were not finite."""
        self._watchdog.finished(f"step {done.step}")
        self._look(done.step, done.metrics)

    def _look(self, step: int, metrics: Mapping[str, Array]) -> None:
        index = int(metrics[WHERE])
        if index < 0:
            self._in_a_row = 0
            return
        name = "gradient_norm" if math.isfinite(float(metrics["loss"])) else "loss"
        group = self._groups[index] if index < len(self._groups) else "none"
        what = (
            f"{name}: expected a finite number; received {float(metrics[name])} at step {step}; "
            f"first parameter group with a gradient that is not finite: {group}"
        )
        self._in_a_row += 1
        if self._in_a_row > self._max_in_a_row:
            often = f" ({self._in_a_row} steps in a row)" if self._max_in_a_row else ""
            raise FloatingPointError(what + often)
        self.skipped += 1
        logging.warning("%s; left out", what)
