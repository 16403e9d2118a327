import dataclasses
import math

import numpy as np
import pytest

from tests.report.test_figures import fits, texts
from vmoe_inform.analysis.draw import maps
from vmoe_inform.report.styles import expert_colors

from .sample import images, trace

LONG = "runs/imagenet/2026-11-22/attention_vmoe_s32_last2_seed0"


def without(found, block, field):
    layer = dataclasses.replace(found.layers[block], **{field: None})
    return dataclasses.replace(found, layers={**found.layers, block: layer})


def test_each_patch_has_the_colour_and_number_of_its_first_expert():
    found = dataclasses.replace(trace(), label="a run, step 3")
    figure = maps.routing_map(images()[1], found, 1)
    image, first, second, key = figure.axes
    assert "a run, step 3" in [text.get_text() for text in figure.texts]
    assert [axes.get_title() for axes in (image, first, second)] == ["image", "block 1", "block 3"]
    np.testing.assert_array_equal(image.images[0].get_array(), images()[1])
    experts = found.layers["block_1"].indices[1, 1:, 0].reshape(4, 4)  # token 0 is the class token
    colors = np.asarray(expert_colors(4))
    np.testing.assert_array_equal(first.images[1].get_array(), colors[experts])
    assert texts(first) == [str(expert) for expert in experts.ravel()]
    grey = np.asarray(first.images[0].get_array())
    assert grey.shape == (32, 32)  # no colours of its own
    assert grey.min() >= 90  # nor any black
    assert key.get_ylabel() == "expert"


def test_a_patch_without_an_expert_is_grey():
    found = trace(class_token=False)
    found.layers["block_1"].indices[0, 0] = 4
    axes = maps.routing_map(images()[0], found).axes[1]
    red, green, blue = axes.images[1].get_array()[0, 0]
    assert red == green == blue
    assert texts(axes)[0] == "–"


def test_weights_and_entropies_are_shades_on_one_scale():
    found = trace()
    figure = maps.routing_map(images()[0], found, by="weight")
    weights = found.layers["block_3"].weights[0, :, 0]
    np.testing.assert_array_equal(figure.axes[2].images[1].get_array(), weights[1:].reshape(4, 4))
    assert figure.axes[1].images[1].get_clim() == figure.axes[2].images[1].get_clim()
    figure = maps.routing_map(images()[0], found, by="entropy")
    rows = found.layers["block_1"].informed[0, 1:]
    entropy = -(rows * np.log(rows)).sum(-1).reshape(4, 4)
    np.testing.assert_allclose(figure.axes[1].images[1].get_array(), entropy, rtol=1e-5)
    assert figure.axes[1].images[1].get_clim() == (0, math.log(4))
    assert figure.axes[-1].get_ylabel() == "entropy in nats"


def test_maps_beside_each_other_have_a_column_for_each_router():
    first, second = trace(seed=1), trace(seed=2, layers=("block_3",), class_token=False)
    figure = maps.side_by_side({"attention": (images()[0], first), "plain": (images()[1], second)})
    assert [axes.get_title() for axes in figure.axes[:2]] == ["attention", "plain"]
    assert [axes.get_ylabel() for axes in figure.axes[:4]] == ["image", "", "block 3", ""]  # the layer both have
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), images()[1])
    experts = second.layers["block_3"].indices[0, :, 0].reshape(4, 4)
    np.testing.assert_array_equal(figure.axes[3].images[1].get_array(), np.asarray(expert_colors(4))[experts])


def test_weights_beside_each_other_share_their_scale():
    shown = {"a": (images()[0], trace(seed=1)), "b": (images()[0], trace(seed=2))}
    figure = maps.side_by_side(shown, by="weight", layers=["block_1"])
    highest = max(found.layers["block_1"].weights[0, 1:, 0].max() for _, found in shown.values())
    assert [axes.images[1].get_clim() for axes in figure.axes[2:4]] == [(0, highest)] * 2


def test_each_expert_has_its_map():
    found = trace()
    figure = maps.expert_maps(images()[0], found, "block_3")
    assert [axes.get_title() for axes in figure.axes[:-1]] == ["image", *(f"expert {expert}" for expert in range(4))]
    wanted = found.layers["block_3"].informed[0, 1:, 2].reshape(4, 4)
    np.testing.assert_array_equal(figure.axes[3].images[1].get_array(), wanted)


def test_token_graph_has_lines_to_the_strongest_neighbours():
    found = trace()
    row, column = 1, 2
    figure = maps.token_graph(images()[0], found, "block_1", (row, column))
    lines, shares, _ = figure.axes
    weights = found.layers["block_1"].graph[0, 1 + 4 * row + column]
    shown = shares.images[1].get_array()
    assert np.ma.getmaskarray(shown)[row, column]  # its own weight is not on the scale of the others
    np.testing.assert_allclose(np.delete(shown, 6), np.delete(100 * weights[1:], 6))
    assert shares.images[1].get_clim()[1] == pytest.approx(100 * np.delete(weights[1:], 6).max())
    assert texts(shares) == [f"{100 * weights[7]:.0f} %"]
    others = np.argsort(-np.where(np.arange(17) == 7, -1, weights))[:8]
    drawn = [line for line in lines.get_lines() if line.get_color() == "black"]
    ends = [(line.get_xdata()[1], line.get_ydata()[1]) for line in drawn]
    # Patches of 8 px; a line to the class token would have no place.
    assert ends == [(8 * ((o - 1) % 4) + 4, 8 * ((o - 1) // 4) + 4) for o in others if o > 0]
    assert {(line.get_xdata()[0], line.get_ydata()[0]) for line in drawn} == {(20, 12)}
    widths = [line.get_linewidth() for line in drawn]
    assert widths == sorted(widths, reverse=True)
    assert shares.get_title() == f"itself {100 * weights[7]:.0f} %, class token {100 * weights[0]:.0f} %"
    marked = shares.patches[0]
    assert (marked.get_xy(), marked.get_width()) == ((16, 8), 8)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda i, t: maps.routing_map(i, t, by="mood"), "by: expected one of 'expert', 'weight', 'entropy'"),
        (lambda i, t: maps.routing_map(i, t, 2), "index: expected 0 to 1, the images of the trace; received 2"),
        (
            lambda i, t: maps.routing_map(i, without(t, "block_3", "indices")),
            r"trace.layers\['block_3'\]: expected a trace that kept 'indices'",
        ),
        (
            lambda i, t: maps.token_graph(i, without(t, "block_1", "graph"), "block_1", (0, 0)),
            r"trace.layers\['block_1'\]: expected a trace that kept 'graph'",
        ),
        (lambda i, t: maps.token_graph(i, t, "block_1", (4, 0)), "patch: expected a row below 4"),
        (lambda i, t: maps.expert_maps(i, t, "block_9"), "block: expected one of block_1, block_3; received 'block_9'"),
        (lambda i, t: maps.side_by_side({}), "shown: expected at least one image"),
        (
            lambda i, t: maps.side_by_side({"a": (i, t), "b": (i, trace(num_experts=8))}),
            "shown: expected traces of the same number of experts",
        ),
        (lambda i, t: maps.side_by_side({"a": (i, t)}, layers=["block_2"]), "layers: expected at least one of block_1"),
    ],
)
def test_bad_input_is_named(draw, message):
    with pytest.raises(ValueError, match=message):
        draw(images()[0], trace())


@pytest.mark.parametrize("num_experts", [2, 32])
def test_nothing_reaches_over_the_edge_of_a_map(num_experts):
    found = trace(1, num_experts=num_experts, grid=(10, 10), layers=tuple(f"block_{block}" for block in range(9, 14)))
    image = images(1, 224)[0]
    for figure in (
        maps.routing_map(image, found),
        maps.side_by_side({LONG: (image, found), "vmoe": (image, found)}, by="entropy", layers=["block_9"]),
        maps.expert_maps(image, found, "block_12"),
        maps.token_graph(image, found, "block_12", (9, 9)),
    ):
        assert fits(figure)
        boxes = [axes.title.get_window_extent() for axes in figure.axes if axes.get_title()]
        assert not any(box.overlaps(other) for place, box in enumerate(boxes) for other in boxes[:place])
