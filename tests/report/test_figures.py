import sys

import numpy as np
import pytest

from vmoe_inform.evaluation.headlines import suites_of
from vmoe_inform.evaluation.results import RiskCoverage
from vmoe_inform.report import figures, routing_figures, styles

from .sample_results import imagenet_examples, imagenet_results, results, with_suite


def lines_by_label(axes):
    return {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_headline_figure_has_one_point_with_interval_for_each_run_and_suite():
    (axes,) = figures.headline_figure(results()).axes
    points = {container.get_label(): container.lines[0].get_xdata() for container in axes.containers}
    assert points["attention_vmoe"] == pytest.approx([90, 60, 50, 75])
    assert points["vmoe"] == pytest.approx([80])  # its R is not available: no point, and not at 0
    assert [title.partition(":")[0] for title in texts(axes)] == ["Clean test images", "C", "R", "O"]
    (bars,) = axes.containers[0].lines[2]
    low, high = bars.get_segments()[0][:, 0]
    # 180 of 200, z = 1.96: z^2/n = 0.019208; (0.909604 +- sqrt(0.019208 * 0.09 + 0.019208^2 / 4)) / 1.019208
    assert (low, high) == pytest.approx((85.06, 93.43), abs=0.01)


def test_corruption_figures_share_one_scale_and_show_the_clean_score():
    found = figures.corruption_figures(results())
    assert list(found) == ["shot_noise", "fog"]
    (axes,) = found["fog"].axes
    curve = lines_by_label(axes)["attention_vmoe"]
    assert list(curve.get_xdata()) == [1, 2, 3, 4, 5]
    assert curve.get_ydata() == pytest.approx([80, 70, 50, 40, 40])
    assert [line.get_ydata()[0] for line in axes.get_lines() if line.get_linestyle() == ":"] == pytest.approx([90])
    assert "vmoe" not in lines_by_label(axes)  # it was not evaluated on C
    # lowest score 40 %, two points of room, down to the ten
    assert {figure.axes[0].get_ylim() for figure in found.values()} == {(30, 101.5)}
    assert figures.corruption_figures({"vmoe": results()["vmoe"]}) == {}


def test_reliability_figure_leaves_out_empty_bins():
    above, below = figures.reliability_figure(results()).axes
    (name,) = [label for label in lines_by_label(above) if label.startswith("attention_vmoe")]
    assert name == "attention_vmoe (mean gap 7.0 points)"
    assert lines_by_label(above)[name].get_xdata() == pytest.approx([25, 90])
    assert lines_by_label(above)[name].get_ydata() == pytest.approx([50, 95])
    assert below.get_lines()[0].get_ydata() == pytest.approx([20, 180])


def test_runs_differ_in_more_than_colour():
    by_run = styles.series_styles(["a", "b", "c", "d"])
    for key in ("color", "marker", "linestyle"):
        assert len({style[key] for style in by_run.values()}) == 4


def test_no_figure_is_kept_by_pyplot():
    figures.headline_figure(results())
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


def test_risk_coverage_figures_show_every_suite_on_one_scale():
    curve = RiskCoverage((0.5, 1.0), (0.4, 0.8))
    found = with_suite(imagenet_results(), "vmoe", "a", risk_coverage=curve)
    drawn = figures.risk_coverage_figures(found)
    assert list(drawn) == [suite for suite in suites_of(found) if suite in ("clean", "real", "v2", "r", "a", "sketch")]
    (axes,) = drawn["a"].axes
    curve = lines_by_label(axes)["vmoe"]
    assert curve.get_xdata() == pytest.approx([50, 100])
    assert curve.get_ydata() == pytest.approx([40, 80])
    # The highest risk of all is 80 %, with a twentieth of room.
    assert all(figure.axes[0].get_ylim() == pytest.approx((0, 84)) for figure in drawn.values())
    assert figures.risk_coverage_figures(results()) == {}


LONG = "runs/imagenet/2026-11-22/attention_vmoe_s32_last2_seed0"


@pytest.mark.parametrize(
    "draw",
    [
        figures.headline_figure,
        lambda found: figures.legend_figure(list(found)),
        figures.reliability_figure,
        lambda found: figures.corruption_figures(found)["elastic_transform"],
        lambda found: figures.risk_coverage_figures(found)["sketch"],
        routing_figures.entropy_figure,
        lambda found: routing_figures.load_figures(found["vmoe"].routing)["block_7"],
        lambda found: routing_figures.example_figure(imagenet_examples()[1], num_experts=8),
        lambda found: routing_figures.example_figure(imagenet_examples()[2], num_experts=8),
    ],
)
def test_nothing_reaches_over_the_edge_of_a_figure(draw):
    found = imagenet_results()
    assert fits(draw({"vmoe": found["vmoe"], LONG: found["similarity_vmoe"]}))


def test_a_title_that_is_too_long_is_found():
    figure = figures.corruption_figures(results())["fog"]
    assert fits(figure)
    figure.axes[0].set_title(LONG)
    assert not fits(figure)


def fits(figure):
    """Whether all that is drawn is inside the figure, to a hundredth of an inch."""
    figure.draw_without_rendering()
    drawn, size = figure.get_tightbbox(), figure.get_size_inches()
    return np.all(drawn.min > -0.01) and np.all(drawn.max < size + 0.01)
