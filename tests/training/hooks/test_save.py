"""Saving: when, and what happens to a checkpoint that cannot be written."""

import pytest

from vmoe_inform.config import CheckpointConfig
from vmoe_inform.runs.checkpoints import SavingError
from vmoe_inform.training.hooks.base import Training
from vmoe_inform.training.hooks.save import Save


class _Recorder:
    """Stands for checkpoints, lock and watchdog: notes what it is asked, and fails where it is told to."""

    def __init__(self, failing: tuple[str, ...] = ()):
        self.asked: list[str] = []
        self._failing = failing

    def __getattr__(self, name):
        def ask(*_):
            self.asked.append(name)
            if name in self._failing:
                raise SavingError("no room")

        return ask


def _save(recorder: _Recorder, **config) -> Save:
    settings = CheckpointConfig(every_steps=10, **config)
    others = dict.fromkeys(("lock", "watchdog", "terminal", "logger"), recorder)
    return Save(recorder, settings, steps=(3,), **others)  # type: ignore[arg-type]


TRAINING = Training(None, None, 10, last_step=20, total_steps=20)


def test_it_is_due_periodically_and_at_given_steps():
    save = _save(_Recorder())
    assert [step for step in range(1, 21) if save.is_due(step)] == [3, 10, 20]


def test_the_folder_is_checked_before_each_save_and_the_last_is_waited_for():
    recorder = _Recorder()
    save = _save(recorder)
    save.step_started(TRAINING)
    save.act(TRAINING)
    assert recorder.asked == [
        "check",
        "check",
        "phase",
        "flush",
        "save",
    ]  # checkpoints, lock, log, checkpoints
    recorder.asked.clear()
    save.end(TRAINING)
    assert recorder.asked == ["phase", "wait", "check", "flush", "save", "wait", "finished"]


@pytest.mark.parametrize("method", ["step_started", "act", "end"])
def test_a_checkpoint_that_cannot_be_written_stops_the_run(method):
    with pytest.raises(SavingError, match="no room"):
        getattr(_save(_Recorder(("save",) if method != "step_started" else ("check",))), method)(TRAINING)


def test_training_may_continue_but_the_last_checkpoint_has_to_be_written(caplog):
    save = _save(_Recorder(("save",)), on_error="continue")
    save.act(TRAINING)
    assert "no room Training continues." in caplog.text
    with pytest.raises(SavingError, match="no room"):
        save.end(TRAINING)
