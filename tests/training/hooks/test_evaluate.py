"""Evaluation during training: when, what is logged, and what a run that resumes makes up for."""

import contextlib
import dataclasses
import types

import numpy as np
import pytest

from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation.results import SuiteResult
from vmoe_inform.evaluation.suites import NotAvailable, Predictions, RecordSet, Suite
from vmoe_inform.sharding import processes
from vmoe_inform.tasks import Headline
from vmoe_inform.training.hooks.base import Training
from vmoe_inform.training.hooks.evaluate import Evaluate, logged, logged_headline
from vmoe_inform.training.metrics_logger import MetricsLogger
from vmoe_inform.training.stopping import Stopped

SOURCE = Source([{}] * 4, ("a", "b"))
CADENCES = (("letters", 10), ("gone", 5))
HEADLINE = {"evaluation/clean/top1": 0.75}
LETTERS = {"evaluation/letters/top1": 0.5, "evaluation/letters/nll": 1.5, "evaluation/letters/count": 4.0}
GONE = {"evaluation/gone/count": 0.0}


class _Fakes:
    """Predictor, stop and terminal in one. A set is predicted in two batches."""

    def __init__(self):
        self.evaluated, self.shown, self.signal_after = [], [], None
        self._after_each_batch = lambda: None
        self.task = _Task(None)

    @contextlib.contextmanager
    def reporting(self, after_each_batch):
        self._after_each_batch = after_each_batch
        yield

    def predict(self, variables, source, *, crop=None):
        assert variables == "averaged"
        self.evaluated.append(self.shown[-1])
        for _ in range(2):
            self._after_each_batch()
        return Predictions(np.eye(4), np.array([0, 1, 2, 0]), np.arange(4), 0)

    def headline(self, variables):
        predictions = self.predict(variables, SOURCE)
        hits = np.argmax(predictions.logits, axis=1) == predictions.labels
        return Headline("clean/top1", float(np.mean(hits)))

    def phase(self, text):
        self.shown.append(text)

    def advance(self, text, done, total):
        self.shown.append(f"{text} {done}/{total}")

    say = phase

    def raise_if_agreed(self):
        if self.signal_after is not None and len(self.evaluated) > self.signal_after:
            raise Stopped


class _Task:
    headline_name = "clean/top1"
    test_source = SOURCE

    def __init__(self, config):
        self.config = config

    def num_examples(self, source):
        return len(source.records)

    def keeps_workers(self):
        return contextlib.nullcontext()


def _summarize(scores):
    return SuiteResult(count=len(scores["letters"]["hit"]), metrics={"nll": 1.5, "top1": 0.5}, origin="drawn")


def _not_available(scores):
    raise NotAvailable("no images")


def _suite(name, summarize) -> Suite:
    sets = {"letters": RecordSet(lambda: SOURCE)}
    return Suite(name, sets, lambda _, predictions: {"hit": predictions.labels == 0}, summarize)


def _training(step: int) -> Training:
    state = types.SimpleNamespace(variables=lambda *, averaged: "averaged" if averaged else "parameters")
    return Training(state, None, step, last_step=20, total_steps=20)  # type: ignore[arg-type]


@pytest.fixture
def made(tmp_path):
    """The hook of a run in ``tmp_path``, what it uses, and its task."""
    fakes = _Fakes()
    overrides = {"evaluation__every_steps": 5, "evaluation__suites_every_steps": CADENCES, "evaluation__batch_size": 2}
    config = config_lib.parse(tiny.config_dict(**overrides))
    task = _Task(config)
    suites = {"letters": _suite("letters", _summarize), "gone": _suite("gone", _not_available)}
    program = types.SimpleNamespace(model=None, mesh=None)
    with MetricsLogger(tmp_path) as logger:
        others = {"program": program, "predictor": fakes, "logger": logger, "stop": fakes, "terminal": fakes}
        yield Evaluate(config, tmp_path, task, suites, **others), fakes, task


def test_each_suite_has_a_cadence_of_its_own_and_is_logged_once(made, tmp_path):
    hook, fakes, _ = made
    assert [step for step in range(1, 20) if hook.is_due(step)] == [5, 10, 15]
    for step in (5, 10, 10):  # the last as after a restart
        hook.act(_training(step))
    assert fakes.evaluated == [f"evaluating {name}" for name in ("clean/top1", "gone", "clean/top1", "letters", "gone")]
    assert logged(tmp_path, 5) == {"step": 5, **HEADLINE, **GONE}
    assert logged(tmp_path, 10) == {"step": 10, **HEADLINE, **LETTERS, **GONE}
    batches = [f"evaluating clean/top1{batch}" for batch in ("", " 1/2", " 2/2")]
    assert fakes.shown[:4] == [*batches, "step 5: clean/top1 0.7500"]


def test_a_set_that_another_process_lacks_is_predicted_by_none(made, tmp_path, monkeypatch, warnings):
    hook, fakes, _ = made
    answers = iter([True, True, True, False, True])  # what is left of three evaluations, then of each suite
    monkeypatch.setattr(processes, "any_process", lambda flag: next(answers))
    hook.act(_training(10))
    assert "evaluating letters" in fakes.evaluated
    assert "evaluating gone" not in fakes.evaluated
    assert warnings == ["evaluation of gone: not available: not found by another of the processes"]
    assert logged(tmp_path, 10) == {"step": 10, **HEADLINE, **LETTERS, **GONE}


def test_a_set_that_is_gone_does_not_end_a_training(made, tmp_path, warnings):
    hook, _, _ = made

    def load():
        raise FileNotFoundError("data.suites_directory: expected letters")

    suite = _suite("letters", _summarize)
    hook._suites["letters"] = dataclasses.replace(suite, sets={"letters": RecordSet(load)})
    hook.act(_training(10))
    assert warnings[0] == "evaluation of letters: not available: data.suites_directory: expected letters"
    assert logged(tmp_path, 10)["evaluation/letters/count"] == 0


def test_a_signal_interrupts_it_and_the_next_start_does_what_is_left(made, tmp_path):
    hook, fakes, task = made
    training, fakes.signal_after = _training(10), 1
    hook.act(training)
    assert training.stopping
    assert logged(tmp_path, 10) == {"step": 10, **HEADLINE}
    fakes.signal_after = None
    resumed = _training(10)
    hook.act(resumed)
    assert not resumed.stopping
    assert [name for name in fakes.evaluated if name == "evaluating clean/top1"] == ["evaluating clean/top1"]
    assert logged_headline(tmp_path, 10, task) == 0.75


def test_everything_is_evaluated_at_the_end_of_a_run_and_at_no_other_end(made, tmp_path):
    hook, fakes, _ = made
    for step, expected in ((7, None), (20, 0.75)):
        training = _training(step)
        hook.end(training)
        assert training.headline == expected
    assert logged(tmp_path, 20) == {"step": 20, **HEADLINE, **LETTERS, **GONE}
    stopping = _training(20)
    stopping.stopping = True
    hook.end(stopping)
    assert (stopping.headline, len(fakes.evaluated)) == (None, 3)


def test_a_run_is_not_finished_until_its_suites_are_evaluated(made, tmp_path):
    hook, fakes, task = made
    training, fakes.signal_after = _training(20), 1
    hook.end(training)
    assert (training.stopping, training.headline) == (True, None)
    assert logged_headline(tmp_path, 20, task) is None  # though the headline itself is logged
    fakes.signal_after = None
    resumed = _training(20)
    hook.end(resumed)
    assert resumed.headline == logged_headline(tmp_path, 20, task) == 0.75
    assert len(fakes.evaluated) == 4  # the interrupted suite twice, the others once


def test_evaluations_of_other_settings_do_not_count(made, tmp_path):
    hook, _, task = made
    hook.end(_training(20))
    with MetricsLogger(tmp_path, start_step=20, evaluates_again=True):
        assert logged_headline(tmp_path, 20, task) is None


def test_the_accuracy_is_known_where_the_log_cannot_be_written(made, tmp_path, monkeypatch):
    hook, _, _ = made
    monkeypatch.setattr(MetricsLogger, "log", lambda *_, **__: None)  # as on a full disk
    training = _training(20)
    hook.end(training)
    assert training.headline == 0.75
    assert logged(tmp_path, 20) == {}
