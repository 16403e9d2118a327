from dataclasses import dataclass

import pytest

from vmoe_inform.evaluation import suites
from vmoe_inform.evaluation.metric_registry import Metric
from vmoe_inform.evaluation.results import Scale
from vmoe_inform.evaluation.suites import registry


@dataclass(frozen=True)
class Config:
    """What of a config decides which suites a run has."""

    task: str


@pytest.fixture
def registered(monkeypatch):
    """Leaves the registry as it was."""
    monkeypatch.setattr(registry._KINDS, "_entries", dict(registry._KINDS._entries))
    monkeypatch.setattr(registry, "_FUNCTIONS", dict(registry._FUNCTIONS))


def test_a_suite_of_ones_own_is_known_by_its_decorator(registered):
    before = suites.names()
    metric = Metric("recall", "recall")

    @suites.register("mine", title="My images", metric=metric)
    def mine(config):
        return suites.Suite("mine", {}, None, None, origin=config)

    assert suites.names() == (*before, "mine")
    assert (suites.kind("mine").title, suites.kind("mine").short_title) == ("My images", "My images")
    assert suites.kind("mine").metric is metric
    assert suites.load("mine", Config("classification")).origin.task == "classification"
    suites.check_names(["clean", "mine"])
    with pytest.raises(ValueError, match="'mine' is already registered"):
        suites.register("mine", title="Others")(mine)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("clean", "clen"),
            r"expected one of a, c, class.*, word_swap; received 'clen' \(did you mean 'clean'\?\)",
        ),
        (("clean,c",), "expected one of a, c, classification, clean, .*; received 'clean,c'"),
        (("c", "c"), r"expected each suite once; received \('c', 'c'\)"),
    ],
)
def test_names_are_checked(names, message):
    with pytest.raises(ValueError, match=f"^evaluation.suites: {message}"):
        suites.check_names(names)


def test_a_suite_goes_with_the_runs_of_its_tasks(registered):
    metric = Metric("perplexity", "perplexity", unit="perplexity", less_is_better=True)

    @suites.register("mine", title="My text", metric=metric, tasks=("language_modeling", "chat"))
    def mine(config):
        return suites.Suite("mine", {}, None, None)

    assert "mine" in suites.names("chat")
    assert "mine" not in suites.names("classification")
    assert "clean" in suites.names("classification")
    assert "clean" not in suites.names("chat")
    assert suites.chosen(("all",), Config("chat")) == suites.names("chat")
    assert suites.chosen(("mine", "clean"), Config("chat")) == ("mine", "clean")  # some run may have it
    assert suites.load("mine", Config("chat")).scale == Scale("perplexity", less_is_better=True)
    with pytest.raises(suites.NotAvailable, match="a suite of classification, and the run's task is chat"):
        suites.load("clean", Config("chat"))
    with pytest.raises(ValueError, match=r"^field: expected suites of task chat: mine; received 'clean'$"):
        suites.check_names(["mine", "clean"], "field", task="chat")


def test_a_suite_that_is_not_registered_is_shown_by_its_name():
    kind = suites.kind("of_another_installation")
    assert (kind.title, kind.short_title, kind.metric.name) == ("of_another_installation",) * 2 + ("top1",)


def test_every_suite_says_what_it_is():
    for name in suites.names():
        kind = suites.kind(name)
        assert len(kind.title) > len(kind.short_title) > 0, name
    assert len(suites.names()) == 15
