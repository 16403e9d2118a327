"""What the page is made of: views of traces, and how they are packed into few bytes."""

import dataclasses
import re

import numpy as np
import pytest

from vmoe_inform.analysis.collect import views as views_lib
from vmoe_inform.analysis.images.views import View, Views
from vmoe_inform.analysis.page import packing
from vmoe_inform.analysis.page.render import routing_page

from ..sample import views


def mailed():
    """24 photographs of 224 px, 2 runs, 6 severities, 2 layers of 197 tokens, with numbers that do not compress."""
    random = np.random.default_rng(0)
    slope = np.linspace(0, 1, 224)[:, None, None] * np.array([200, 120, 60]) + np.zeros((224, 224, 3))
    waves = 40 * np.sin(np.arange(224) / 5)[None, :, None]
    conditions = [("", 0), *(("fog", severity) for severity in range(1, 6))]
    images = {
        (name, severity): np.clip(
            (slope + waves + (4 + 5 * severity) * random.standard_normal((24, 224, 224, 1), np.float32)), 0, 255
        ).astype(np.uint8)
        for name, severity in conditions
    }

    def layer():
        return views_lib.LayerView(
            experts=random.integers(0, 8, (24, 197, 2)),
            weights=random.random((24, 197, 2)),
            own_experts=random.integers(0, 8, (24, 197, 2)),
            undecided=random.random((24, 197)),
            neighbours=views_lib.Neighbours(
                random.random((24, 197)), random.integers(0, 197, (24, 197, 6)), random.random((24, 197, 6))
            ),
        )

    return Views(
        images=images,
        labels=[0] * 24,
        class_names=["a"],
        views=[
            View(
                run=run,
                condition=condition,
                predictions=np.zeros(24, int),
                confidence=np.full(24, 0.5),
                layers={"block_9": layer(), "block_11": layer()},
                num_experts=8,
                grid=(14, 14),
                class_token=True,
            )
            for run in ("attention", "plain")
            for condition in conditions
        ],
    )


def test_page_names_the_step_of_each_run():
    shown = views(severities=())
    labelled = [dataclasses.replace(view, label=f"{view.run}, step 1,380") for view in shown.views]
    assert "attention_vmoe, step 1,380; vmoe, step 1,380" in routing_page(dataclasses.replace(shown, views=labelled))
    assert "step" not in routing_page(shown).partition("<script")[0].partition("<body>")[2].replace('step="1"', "")


def test_page_is_small_enough_to_mail():
    found = routing_page(mailed())
    assert len(found) < 5_000_000
    assert found.count("data:image/jpeg") == 24 * 6
    assert "images are shown" not in found


def test_a_page_that_would_be_too_large_has_fewer_images_and_says_so():
    shown = views(num_experts=8)
    one = len(routing_page(shown.take([0])))
    found = routing_page(shown, most_bytes=int(1.4 * one))
    assert len(found) <= 1.4 * one
    (number,) = re.findall(r"(\d) of 3 images are shown", found)
    assert 1 <= int(number) < 3
    with pytest.raises(ValueError, match=r"most_bytes: expected at least .*, the page of one image; received 1000"):
        routing_page(shown, most_bytes=1000)


def test_neighbours_are_the_largest_of_a_row_without_the_token_itself():
    graph = np.array([[[0.5, 0.1, 0.3, 0.1], [0.2, 0.1, 0.3, 0.4], [0, 0, 1, 0], [0.4, 0.3, 0.2, 0.1]]])
    found = views_lib.neighbours_of(graph, 2)
    assert found.itself[0].tolist() == [0.5, 0.1, 1, 0.1]
    assert found.others[0, 1].tolist() == [3, 2]
    assert found.weights[0].tolist() == [[0.3, 0.1], [0.4, 0.3], [0, 0], [0.4, 0.3]]
    assert views_lib.neighbours_of(np.ones((1, 1, 1))).others.shape == (1, 1, 0)


def test_undecided_is_the_share_of_the_largest_entropy():
    rows = np.array([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25] * 4])
    assert views_lib.undecided(rows, 4) == pytest.approx([0, 0.5, 1])


def test_weights_beyond_one_keep_their_scale():
    layer = views().views[0].layers["block_1"]
    packed = packing.packed(dataclasses.replace(layer, weights=4 * layer.weights / layer.weights.max()), 4, 2)
    assert packed["scale"] == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_experts": 9}, "view of vmoe, clean: expected 4 experts, as attention_vmoe has; received 9"),
        ({"grid": (2, 8)}, r"expected \(4, 4\) rows and columns of patches, as attention_vmoe has; received \(2, 8\)"),
        ({"condition": ("frost", 1)}, "view of vmoe, frost, severity 1: expected a condition with images"),
        ({"predictions": np.zeros(2, int)}, "expected 3 images; received 2"),
        ({"layers": {}}, "expected a MoE layer that all runs have"),
    ],
)
def test_views_that_cannot_stand_beside_each_other_are_refused(change, message):
    found = views(severities=())
    changed = [found.views[0], dataclasses.replace(found.views[1], **change)]
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(found, views=changed)


def test_views_need_images_and_traces_that_kept_the_choice():
    found = views(severities=())
    with pytest.raises(ValueError, match="views: expected at least one"):
        dataclasses.replace(found, views=[])
    with pytest.raises(ValueError, match=r"images\[\('', 0\)\]: expected 2 images, one a label; received 3"):
        dataclasses.replace(found, labels=[0, 1])


def test_a_layer_that_one_run_lacks_is_not_shown():
    found = views(severities=())
    fewer = dataclasses.replace(found.views[1], layers={"block_3": found.views[1].layers["block_3"]})
    assert dataclasses.replace(found, views=[found.views[0], fewer]).layers == ["block_3"]
