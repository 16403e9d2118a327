"""Evaluation during training: when, what is logged, and what a run that resumes makes up for."""

import types

import numpy as np
import pytest

from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform.evaluation.suites.base import Predictions
from vmoe_inform.training.hooks.base import Training
from vmoe_inform.training.hooks.evaluate import Evaluate, logged_accuracy
from vmoe_inform.training.metrics_logger import MetricsLogger
from vmoe_inform.training.stopping import Stopped


class _Fakes:
    """Predictor, watchdog and stop in one. The model gets three of four images right."""

    def __init__(self):
        self.evaluations, self.told, self.phases, self.signal = 0, [], [], False

    def predict(self, variables, source, *, after_each_batch):
        assert variables == "averaged"
        self.evaluations += 1
        for _ in range(2):
            after_each_batch()
        return Predictions(np.eye(4), np.array([0, 1, 2, 0]), np.arange(4), 0)

    def expect_compilation(self, of):
        self.told.append(f"compilation of {of}")

    def phase(self, text):
        self.phases.append(text)

    def finished(self, what):
        self.told.append(what)

    def raise_if_agreed(self):
        if self.signal:
            raise Stopped


def _training(step: int) -> Training:
    state = types.SimpleNamespace(variables=lambda *, averaged: "averaged" if averaged else "parameters")
    return Training(state, None, step, last_step=20, total_steps=20)  # type: ignore[arg-type]


@pytest.fixture
def made(tmp_path):
    """The hook of a run in ``tmp_path``, and what it uses."""
    fakes = _Fakes()
    config = config_lib.parse(tiny.config_dict(evaluation__every_steps=5))
    with MetricsLogger(tmp_path) as logger:
        others = {"workdir": tmp_path, "watchdog": fakes, "stop": fakes, "terminal": fakes}
        hook = Evaluate(fakes, None, config, logger=logger, **others)
        yield hook, fakes


def test_it_is_due_at_its_steps(made):
    assert [step for step in range(1, 20) if made[0].is_due(step)] == [5, 10, 15]


def test_accuracy_is_logged_once_for_each_step(made, tmp_path):
    hook, fakes = made
    hook.act(_training(5))
    hook.act(_training(5))  # as after a restart
    assert fakes.evaluations == 1
    assert logged_accuracy(tmp_path, 5) == 0.75
    assert logged_accuracy(tmp_path, 10) is None
    assert fakes.told == ["compilation of evaluation", *["a batch of evaluation"] * 2]


def test_a_signal_interrupts_it_and_the_next_start_makes_up_for_it(made, tmp_path):
    hook, fakes = made
    training = _training(5)
    fakes.signal = True
    hook.act(training)
    assert training.stopping
    assert logged_accuracy(tmp_path, 5) is None
    fakes.signal = False
    resumed = _training(5)
    hook.act(resumed)
    assert not resumed.stopping
    assert logged_accuracy(tmp_path, 5) == 0.75


def test_the_end_of_a_run_is_evaluated_and_no_other_end(made):
    hook, fakes = made
    for step, expected in ((7, None), (20, 0.75)):
        training = _training(step)
        hook.end(training)
        assert training.clean_top1 == expected
    stopping = _training(20)
    stopping.stopping = True
    hook.end(stopping)
    assert (stopping.clean_top1, fakes.evaluations) == (None, 1)
