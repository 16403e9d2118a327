"""Which records an analysis shows to a run."""

import pytest

from vmoe_inform.analysis import inputs  # it registers them
from vmoe_inform.analysis.data import ANALYSED, kind_of
from vmoe_inform.tasks import task as tasks


def test_every_task_has_records():
    assert inputs.kind_of is kind_of
    assert set(ANALYSED) == {"classification", "language_modeling", "text_classification"} <= set(tasks.TASKS)


def test_a_task_of_your_own_has_those_of_the_task_that_it_is_a_kind_of(monkeypatch):
    class Twice(tasks.TASKS["language_modeling"]):
        """With twice the loss."""

    monkeypatch.setitem(tasks.TASKS._entries, "twice", Twice)
    assert kind_of("twice") is ANALYSED["language_modeling"]
    with pytest.raises(
        ValueError, match=r"task: expected one whose records can be analysed: classification, .*'other'"
    ):
        kind_of("other")
