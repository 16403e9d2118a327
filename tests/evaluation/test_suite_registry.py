import pytest

from vmoe_inform.evaluation import suites
from vmoe_inform.evaluation.metric_registry import Metric
from vmoe_inform.evaluation.suites import registry


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
    assert suites.load("mine", "here").origin == "here"
    suites.check_names(["clean", "mine"])
    with pytest.raises(ValueError, match="'mine' is already registered"):
        suites.register("mine", title="Others")(mine)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("clean", "clen"), r"expected one of a, c, clean, .*, v2; received 'clen' \(did you mean 'clean'\?\)"),
        (("clean,c",), "expected one of a, c, clean, .*; received 'clean,c'"),
        (("c", "c"), r"expected each suite once; received \('c', 'c'\)"),
    ],
)
def test_names_are_checked(names, message):
    with pytest.raises(ValueError, match=f"^evaluation.suites: {message}"):
        suites.check_names(names)


def test_a_suite_that_is_not_registered_is_shown_by_its_name():
    kind = suites.kind("of_another_installation")
    assert (kind.title, kind.short_title, kind.metric.name) == ("of_another_installation",) * 2 + ("top1",)


def test_every_suite_says_what_it_is():
    for name in suites.names():
        kind = suites.kind(name)
        assert len(kind.title) > len(kind.short_title) > 0, name
    assert len(suites.names()) == 12
