"""The pictures of studies show what the summary says."""

import itertools
import math

import pytest

from tests.studies import sample
from vmoe_inform.studies import drawing, summary
from vmoe_inform.studies.summary import Interval


@pytest.fixture(scope="module")
def drawn():
    measures = {
        "plain": [
            summary.measures_of(sample.result("plain", seed, clean=0.80 + 0.01 * seed, collapsed=0.25))
            for seed in range(3)
        ],
        "mixing": [
            summary.measures_of(
                sample.result("mixing", seed, clean=0.899 + 0.011 * seed, entropy=0.5 + 0.1 * seed, collapsed=0.5)
            )
            for seed in range(3)
        ],
    }
    overhead = {"plain": {"training_step": 0.0}, "mixing": {"training_step": 0.25}}
    return drawing.figures(summary.summarize(measures, "plain"), overhead, against="plain", study="digits.py, 6 steps")


def _marks(axes):
    """(position, row, filled) of each mark."""
    lines = [container.lines[0] for container in axes.containers]
    return [(line.get_xdata()[0], line.get_ydata()[0], line.get_markerfacecolor() != "white") for line in lines]


def test_accuracy_is_the_difference_in_points(drawn):
    clean, other = drawn["scores"].axes
    assert [label.get_text() for label in clean.get_yticklabels()] == ["mixing"]
    ((position, row, filled),) = _marks(clean)
    assert position == pytest.approx(10.0, abs=1e-9)  # 9.9, 10.0 and 10.1 points
    assert (row, filled) == (0, True)
    ((position, _, filled),) = _marks(other)
    assert (position, filled) == (0.0, False)
    assert clean.get_xlabel() == "difference in points"


def test_routing_is_the_paired_difference_or_ratio(drawn):
    fluctuation, entropy = drawn["fluctuation_and_entropy"].axes
    assert _marks(fluctuation) == [(0.0, 0.0, False)]
    assert fluctuation.get_xlabel() == "difference in points\nplain: 10"
    ((position, _, filled),) = _marks(entropy)
    assert position == pytest.approx(0.6)  # 0.5, 0.6 and 0.7 of 1
    assert filled
    (container,) = entropy.containers
    (bar,) = container.lines[2]
    half = 4.30265 * 0.1 / math.sqrt(3)  # Student's t with two degrees of freedom, of the ratios
    assert bar.get_segments()[0][:, 0] == pytest.approx([0.6 - half, 0.6 + half], abs=1e-4)


def test_load_and_cost(drawn):
    load, neighbours, collapsed, flops = drawn["load_and_cost"].axes
    assert [position for position, _, _ in _marks(collapsed)] == pytest.approx([25.0])
    assert [position for position, _, _ in _marks(load)] == pytest.approx([0.0])
    assert [position for position, _, _ in _marks(neighbours)] == [1.0]
    assert _marks(flops) == [(25.0, 0.0, True)]


def test_figures_name_the_study_and_the_router_compared_with(drawn):
    for figure in drawn.values():
        assert figure.get_suptitle().endswith("compared with plain")
        assert figure.get_supxlabel().startswith("digits.py, 6 steps\n")


def test_labels_of_many_layers_do_not_reach_those_of_the_next_panel():
    against = "similarity_smoe_top2@similarity.temperature=0.1"

    def in_many_layers(measures):
        names = {name: [name.replace("block_1", f"block_{n}") for n in range(9)] for name in measures}
        return {of_layer: value for name, value in measures.items() for of_layer in names[name]}

    measures = {
        router: [in_many_layers(summary.measures_of(sample.result(router, seed))) for seed in range(2)]
        for router in (against, "mixing")
    }
    overhead = {router: {"training_step": 0.0} for router in measures}
    made = drawing.figures(summary.summarize(measures, against), overhead, against=against, study="any")
    figure = made["load_and_cost"]
    figure.canvas.draw()
    boxes = [axes.xaxis.label.get_window_extent() for axes in figure.axes]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    assert all(axes.get_window_extent().height > 20 for axes in figure.axes)


def test_an_interval_of_few_seeds_does_not_set_the_axis():
    """Two seeds whose differences are 1 and 3 points: 2 points, and 12.7 to either side."""
    measures = {
        "plain": [summary.measures_of(sample.result("plain", seed, clean=0.80)) for seed in range(2)],
        "mixing": [summary.measures_of(sample.result("mixing", seed, clean=0.81 + 0.02 * seed)) for seed in range(2)],
    }
    overhead = {"plain": {"training_step": 0.0}, "mixing": {"training_step": 0.25}}
    made = drawing.figures(summary.summarize(measures, "plain"), overhead, against="plain", study="s")["scores"]
    axes = made.axes[0]
    assert axes.get_xlim() == pytest.approx((-4, 6))
    assert [line.get_marker() for line in axes.get_lines()][-2:] == ["<", ">"]
    assert "arrow: the interval reaches beyond the axis" in made.get_supxlabel()


def test_what_an_axis_shows():
    def of(mean, half):
        return Interval(mean, mean - half, mean + half)

    assert drawing.visible_range([of(2.0, 1.0), of(3.0, 1.0)], 0.0) == pytest.approx((-1.15, 4.15))  # all of them
    assert drawing.visible_range([of(2.0, 1.0), of(3.0, 50.0), of(1.0, 1.0)], 0.0) == pytest.approx((-1.15, 4.15))
    assert drawing.visible_range([of(0.0, 8.0)], 0.0) == pytest.approx((-2.0, 2.0))
    assert drawing.visible_range([of(25.0, 0.0)], 0.0) == pytest.approx((-2.0, 27.0))


def test_a_study_of_one_router_has_no_figures():
    measures = {"plain": [summary.measures_of(sample.result("plain", seed)) for seed in range(2)]}
    overhead = {"plain": {"training_step": 0.0}}
    assert drawing.figures(summary.summarize(measures, "plain"), overhead, against="plain", study="s") == {}
