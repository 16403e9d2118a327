"""The pictures of studies show what the summary says."""

import pytest

from tests.studies import sample
from vmoe_inform.studies import drawing, summary


@pytest.fixture(scope="module")
def drawn():
    measures = {
        "plain": [summary.measures_of(sample.result("plain", seed, clean=0.80 + 0.01 * seed)) for seed in range(3)],
        "mixing": [
            summary.measures_of(sample.result("mixing", seed, clean=0.899 + 0.011 * seed, entropy=0.5 + 0.1 * seed))
            for seed in range(3)
        ],
    }
    overhead = {"plain": {"training_step": 0.0}, "mixing": {"training_step": 0.25}}
    return drawing.figures(summary.summarize(measures, "plain"), overhead, against="plain")


def _marks(axes):
    """(position, row, filled) of each mark."""
    lines = [container.lines[0] for container in axes.containers]
    return [(line.get_xdata()[0], line.get_ydata()[0], line.get_markerfacecolor() != "white") for line in lines]


def test_accuracy_is_the_difference_in_points(drawn):
    clean, other = drawn["accuracy"].axes
    assert [label.get_text() for label in clean.get_yticklabels()] == ["mixing"]
    ((position, row, filled),) = _marks(clean)
    assert position == pytest.approx(10.0, abs=1e-9)  # 9.9, 10.0 and 10.1 points
    assert (row, filled) == (0, True)
    ((position, _, filled),) = _marks(other)
    assert (position, filled) == (0.0, False)
    assert clean.get_xlabel() == "difference in points"


def test_routing_of_every_router(drawn):
    fluctuation, entropy = drawn["fluctuation_and_entropy"].axes
    assert [position for position, _, _ in _marks(fluctuation)] == pytest.approx([10.0, 10.0])
    assert [position for position, _, _ in _marks(entropy)] == pytest.approx([1.0, 0.6])
    assert [filled for _, _, filled in _marks(entropy)] == [False, True]


def test_load_and_cost(drawn):
    load, neighbours, flops = drawn["load_and_cost"].axes
    assert [position for position, _, _ in _marks(load)] == pytest.approx([1.0, 1.0])
    assert [position for position, _, _ in _marks(neighbours)] == [1.0, 2.0]
    assert [position for position, _, _ in _marks(flops)] == [0.0, 25.0]
