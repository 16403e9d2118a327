import itertools
import math

import numpy as np
import pytest

from vmoe_inform.evaluation.results import LayerRouting
from vmoe_inform.report import routing_figures, styles

from .sample_results import example, imagenet_examples, results


def lines_by_label(axes):
    return {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_load_figures_show_every_expert_against_an_even_share():
    found = routing_figures.load_figures(results()["attention_vmoe"].routing)
    assert list(found) == ["block_1", "block_3"]
    (axes,) = found["block_1"].axes
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([50, 25, 25, 0])
    assert [bar.get_facecolor()[:3] for bar in axes.patches] == styles.expert_colors(4)
    assert axes.get_lines()[0].get_ydata() == pytest.approx([25, 25])
    assert found["block_3"].axes[0].get_ylim() == axes.get_ylim()


def test_load_figures_number_no_expert_that_is_not_there():
    layer = LayerRouting(1.0, (1 / 16,) * 16, 1.0, 0.0)
    (axes,) = routing_figures.load_figures({"block_1": layer})["block_1"].axes
    low, high = axes.get_xlim()
    assert low < -0.4 < 15.4 < high < 16  # bars are 0.8 wide
    assert axes.yaxis.get_major_formatter()(4) == "4 %"


def test_entropy_figure_has_each_layer_of_each_run_and_the_bound():
    (axes,) = routing_figures.entropy_figure(results()).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["block_1", "block_3"]
    runs = lines_by_label(axes)
    assert list(runs["attention_vmoe"].get_ydata()) == [1.0, 1.2]
    assert (list(runs["vmoe"].get_xdata()), list(runs["vmoe"].get_ydata())) == ([0], [0.8])
    assert [line.get_ydata()[0] for line in axes.get_lines() if line.get_color() == "#666666"] == [math.log(4)]
    assert texts(axes) == ["undecided between 4 experts: ln 4 = 1.39"]
    assert axes.get_ylim()[1] > math.log(4)


def test_example_figure_paints_each_patch_in_its_experts_color():
    figure = routing_figures.example_figure(example(), num_experts=4)
    image, first, second = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["image", "block_1", "block_3"]
    assert len(image.images) == 1
    colors = np.asarray(styles.expert_colors(4))
    np.testing.assert_array_equal(first.images[1].get_array(), [[colors[0], colors[1]], [colors[2], colors[3]]])
    # Patch (row 1, column 0) of the 8 px image has its middle at x = 2, y = 6.
    assert [(text.get_position(), text.get_text()) for text in first.texts][2] == ((2, 6), "2")
    assert texts(second) == ["3", "3", "0", "0"]
    assert figure.get_suptitle() == "right: 3 (90 % sure)"


def test_wrong_examples_are_marked_in_words_and_by_a_thick_frame():
    right = routing_figures.example_figure(example(), num_experts=4)
    wrong = routing_figures.example_figure(example(prediction="8"), num_experts=4)
    assert wrong.get_suptitle() == "wrong: says 8, is 3 (90 % sure)"
    widths = [figure.axes[0].spines["left"].get_linewidth() for figure in (right, wrong)]
    assert widths[1] > 2 * widths[0]


def test_a_patch_that_no_expert_took_is_grey_and_has_no_number():
    axes = routing_figures.example_figure(example(experts={"block_1": np.array([[0, 4]])}), num_experts=4).axes[1]
    assert texts(axes) == ["0", "–"]
    red, green, blue = axes.images[-1].get_array()[0, 1][:3]
    assert red == green == blue


def test_numbers_are_left_out_where_patches_are_too_small():
    fine = example(experts={"block_1": np.zeros((14, 14), int)})
    assert texts(routing_figures.example_figure(fine, num_experts=4).axes[1]) == []


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
        routing_figures.example_figure(example(experts={"block_1": experts}), num_experts=4)


@pytest.mark.parametrize("num_experts", [1, 8, 9, 64])
def test_expert_colors_are_distinct(num_experts):
    colors = styles.expert_colors(num_experts)
    assert len(colors) == num_experts
    assert all(np.abs(np.subtract(a, b)).max() > 0.005 for a, b in itertools.combinations(colors, 2))


def test_where_patches_have_no_numbers_a_key_says_the_colours():
    figure = routing_figures.example_figure(imagenet_examples()[2], num_experts=8)
    key = figure.axes[-1]
    assert (key.get_xlabel(), key.images[0].get_array().shape) == ("expert", (1, 8, 3))
    np.testing.assert_allclose(key.images[0].get_array()[0], styles.expert_colors(8))
    # Expert 3 is over 3 on the scale below.
    assert key.images[0].get_extent()[:2] == [-0.5, 7.5]
    assert len(routing_figures.example_figure(imagenet_examples()[1], num_experts=8).axes) == 3


def test_classes_of_imagenet_are_named_in_words():
    wrong = routing_figures.example_figure(imagenet_examples()[1], num_experts=8)
    assert wrong.get_suptitle() == "wrong: says laptop, is great white shark (40 % sure)"


@pytest.mark.parametrize(("layers", "rows"), [(1, 1), (2, 1), (3, 2), (6, 3)])
def test_many_layers_are_shown_in_rows_of_three(layers, rows):
    experts = {f"block_{block}": np.zeros((2, 2), int) for block in range(layers)}
    figure = routing_figures.example_figure(example(experts=experts), num_experts=4)
    assert [axes.get_title() for axes in figure.axes] == ["image", *experts]
    assert len({axes.get_subplotspec().rowspan.start for axes in figure.axes}) == rows
