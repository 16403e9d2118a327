import itertools
import math
import sys

import numpy as np
import pytest

from vmoe_inform.evaluation import figures

from .sample_results import example, results


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
    assert name == "attention_vmoe (mean gap 2.0 points)"
    assert lines_by_label(above)[name].get_xdata() == pytest.approx([25, 90])
    assert lines_by_label(above)[name].get_ydata() == pytest.approx([50, 95])
    assert below.get_lines()[0].get_ydata() == pytest.approx([20, 180])


def test_load_figures_show_every_expert_against_an_even_share():
    found = figures.load_figures(results()["attention_vmoe"]["routing"])
    assert list(found) == ["block_1", "block_3"]
    (axes,) = found["block_1"].axes
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([50, 25, 25, 0])
    assert [bar.get_facecolor()[:3] for bar in axes.patches] == figures.expert_colors(4)
    assert axes.get_lines()[0].get_ydata() == pytest.approx([25, 25])
    assert found["block_3"].axes[0].get_ylim() == axes.get_ylim()


def test_entropy_figure_has_each_layer_of_each_run_and_the_bound():
    (axes,) = figures.entropy_figure(results()).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["block_1", "block_3"]
    runs = lines_by_label(axes)
    assert list(runs["attention_vmoe"].get_ydata()) == [1.0, 1.2]
    assert (list(runs["vmoe"].get_xdata()), list(runs["vmoe"].get_ydata())) == ([0], [0.8])
    assert [line.get_ydata()[0] for line in axes.get_lines() if line.get_color() == "#666666"] == [math.log(4)]
    assert texts(axes) == ["undecided between 4 experts: ln 4 = 1.39"]
    assert axes.get_ylim()[1] > math.log(4)


def test_example_figure_paints_each_patch_in_its_experts_color():
    figure = figures.example_figure(example(), num_experts=4)
    image, first, second = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["image", "block_1", "block_3"]
    assert len(image.images) == 1
    colors = np.asarray(figures.expert_colors(4))
    np.testing.assert_array_equal(first.images[1].get_array(), [[colors[0], colors[1]], [colors[2], colors[3]]])
    # Patch (row 1, column 0) of the 8 px image has its middle at x = 2, y = 6.
    assert [(text.get_position(), text.get_text()) for text in first.texts][2] == ((2, 6), "2")
    assert texts(second) == ["3", "3", "0", "0"]
    assert figure.get_suptitle() == "right: 3 (90 % sure)"


def test_wrong_examples_are_marked_in_words_and_by_a_thick_frame():
    right = figures.example_figure(example(), num_experts=4)
    wrong = figures.example_figure(example(prediction="8"), num_experts=4)
    assert wrong.get_suptitle() == "wrong: says 8, is 3 (90 % sure)"
    widths = [figure.axes[0].spines["left"].get_linewidth() for figure in (right, wrong)]
    assert widths[1] > 2 * widths[0]


def test_a_patch_that_no_expert_took_is_grey_and_has_no_number():
    axes = figures.example_figure(example(experts={"block_1": np.array([[0, 4]])}), num_experts=4).axes[1]
    assert texts(axes) == ["0", "–"]
    red, green, blue = axes.images[-1].get_array()[0, 1][:3]
    assert red == green == blue


def test_numbers_are_left_out_where_patches_are_too_small():
    fine = example(experts={"block_1": np.zeros((14, 14), int)})
    assert texts(figures.example_figure(fine, num_experts=4).axes[1]) == []


@pytest.mark.parametrize(
    ("experts", "message"),
    [
        (np.array([0, 1]), r"experts\['block_1'\]: expected shape \(rows, columns\); received \(2,\)"),
        (np.array([[0, 5]]), r"expected 0 to 4; received \(0, 5\)"),
        (np.array([[-1, 0]]), r"expected 0 to 4; received \(-1, 0\)"),
    ],
)
def test_example_figure_checks_the_experts(experts, message):
    with pytest.raises(ValueError, match=message):
        figures.example_figure(example(experts={"block_1": experts}), num_experts=4)


@pytest.mark.parametrize("num_experts", [1, 8, 9, 64])
def test_expert_colors_are_distinct(num_experts):
    colors = figures.expert_colors(num_experts)
    assert len(colors) == num_experts
    assert all(np.abs(np.subtract(a, b)).max() > 0.005 for a, b in itertools.combinations(colors, 2))


def test_runs_differ_in_more_than_colour():
    styles = figures.run_styles(["a", "b", "c", "d"]).values()
    for key in ("color", "marker", "linestyle"):
        assert len({style[key] for style in styles}) == 4


def test_no_figure_is_kept_by_pyplot():
    figures.headline_figure(results())
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []
