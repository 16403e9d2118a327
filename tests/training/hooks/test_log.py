"""Log entries: at which steps, and what is in them."""

import jax.numpy as jnp
import pytest

from vmoe_inform.runs.lock import RemovedError
from vmoe_inform.training.hooks.base import Training
from vmoe_inform.training.hooks.log import Log
from vmoe_inform.training.in_flight import FinishedStep
from vmoe_inform.training.measurements import EXPERT_LOADS
from vmoe_inform.training.nonfinite import WHERE


class _Fakes:
    """Logger, terminal, window and lock in one."""

    def __init__(self):
        self.logged, self.shown, self.window, self.phases, self.removed = [], [], [], [], False

    def log(self, step, scalars):
        self.logged.append((step, scalars))

    def step(self, step, total_steps, scalars=None):
        self.shown.append((step, scalars))

    def phase(self, text):
        self.phases.append(text)

    def add(self, done):
        self.window.append(done.step)

    def close(self):
        steps, self.window = self.window, []
        return {"images_per_second": float(len(steps))}

    def check(self):
        if self.removed:
            raise RemovedError("removed")


def _log(fakes: _Fakes, last_step: int = 7) -> Log:
    counters = {"skipped_records": lambda: 2}
    steps = {"every_steps": 3, "total_steps": 9, "last_step": last_step}
    shown = ("loss", "accuracy", "images_per_second")
    return Log(fakes, fakes, fakes, shown=shown, **steps, lock=fakes, counters=counters)


def _step(step: int) -> FinishedStep:
    metrics = {"loss": jnp.float32(step), "gradient_norm": jnp.float32(1.5), WHERE: jnp.int32(-1)}
    return FinishedStep(step, metrics | {EXPERT_LOADS: jnp.ones((1, 4))}, 0.5, 0.0)


def test_an_entry_every_so_many_steps_and_after_the_last():
    fakes = _Fakes()
    log = _log(fakes)
    for step in range(1, 8):
        log.step_finished(_step(step))
    steps = [3, 6, 7]
    assert [step for step, _ in fakes.logged] == steps
    assert [step for step, _ in fakes.shown] == list(range(1, 8))  # a bar moves on at each step
    # The window has all steps since the entry before: 3, 3 and 1. Arrays and what others look at are not logged.
    assert [scalars for _, scalars in fakes.logged] == [
        {"loss": float(step), "gradient_norm": 1.5, "images_per_second": window, "skipped_records": 2.0}
        for step, window in zip(steps, (3.0, 3.0, 1.0), strict=True)
    ]
    assert [scalars for _, scalars in fakes.shown[:3]] == [None, None, {"loss": 3.0, "images_per_second": 3.0}]


def test_nothing_is_written_to_a_folder_that_was_removed():
    fakes = _Fakes()
    fakes.removed = True
    with pytest.raises(RemovedError):
        _log(fakes, last_step=1).step_finished(_step(1))
    assert fakes.logged == []


def test_the_compilation_of_the_first_step_is_said():
    fakes = _Fakes()
    log, training = _log(fakes), Training(None, None, 0, last_step=7, total_steps=9)
    log.begin(training)
    for _ in range(2):
        log.step_started(training)
    assert fakes.phases == ["compiling the training step", "running the first step; progress is shown every 3 steps"]
    log.begin(Training(None, None, 7, last_step=7, total_steps=9))  # nothing left to do
    assert len(fakes.phases) == 2
