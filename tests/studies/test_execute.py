"""Which runs are done, in which process, and what is said of those that fail."""

import dataclasses

import pytest

from tests.studies import sample
from tests.studies.test_plan import make
from vmoe_inform.studies import execute, measure, plan, results
from vmoe_inform.training.stopping import Stopped


def _finish(run, stop):
    results.write(run.folder / plan.RESULT_FILE, sample.result(run.router, run.config.seed), within=run.folder)


@pytest.fixture
def runs(tmp_path):
    return plan.every(make(tmp_path, "vmoe", "attention_vmoe"))


def test_finished_runs_are_not_done_again(runs, monkeypatch):
    _finish(runs[0], None)
    begun = []
    monkeypatch.setattr(measure, "complete", lambda run, stop: (begun.append(run.name), _finish(run, stop)))
    assert execute.execute(runs, jobs=1) == execute.Outcome(stopped=False, failures={})
    assert begun == ["attention_vmoe, seed 0", "vmoe, seed 1", "attention_vmoe, seed 1"]


def test_runs_of_other_images_are_not_compared(runs, monkeypatch):
    """The folder of the data is no setting that decides a run, as data may be moved; what lies there is."""
    _finish(runs[0], None)
    path, data = runs[1].folder / plan.RESULT_FILE, measure.data_of(runs[1].config)
    finished = dataclasses.replace(sample.result(runs[1].router, runs[1].config.seed), data=data)
    results.write(path, finished, within=runs[1].folder)
    monkeypatch.setattr(measure, "complete", _finish)
    measure.check_data(runs)
    finished = dataclasses.replace(finished, data={**data, "train": "0" * 16})
    results.write(path, finished, within=runs[1].folder)
    with pytest.raises(ValueError, match=f"--workdir: expected a study of the data .*; received '{runs[1].folder}, "):
        execute.execute(runs, jobs=1)
    assert not runs[2].is_finished


def test_a_failed_run_does_not_lose_the_others(runs, monkeypatch):
    def complete(run, stop):
        if run is runs[1]:
            raise FloatingPointError("loss: expected a finite number; received nan at step 3")
        _finish(run, stop)

    monkeypatch.setattr(measure, "complete", complete)
    outcome = execute.execute(runs, jobs=1)
    assert not outcome.stopped
    ((name, reason),) = outcome.failures.items()
    assert name == "attention_vmoe, seed 0"
    assert reason.startswith("FloatingPointError: loss: expected a finite number; received nan at step 3")
    assert "Traceback" in (runs[1].folder / "log.txt").read_text()
    assert [run.is_finished for run in runs] == [True, False, True, True]


def test_after_a_signal_no_run_is_begun(runs, monkeypatch):
    begun = []

    def complete(run, stop):
        begun.append(run.name)
        stop.received = "SIGTERM"
        raise Stopped

    monkeypatch.setattr(measure, "complete", complete)
    assert execute.execute(runs, jobs=1) == execute.Outcome(stopped=True, failures={})
    assert begun == ["vmoe, seed 0"]


def test_a_run_that_fails_in_a_process_of_its_own(tmp_path):
    runs = make(tmp_path, "vmoe", model__num_classes=7)["vmoe"]
    _finish(runs[1], None)
    outcome = execute.execute(runs, jobs=2)
    ((name, reason),) = outcome.failures.items()
    assert name == "vmoe, seed 0"
    assert "model.num_classes: expected the 10 classes of the data; received 7" in reason
    assert "Traceback" in (runs[0].folder / "log.txt").read_text()
