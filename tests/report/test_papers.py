import dataclasses

import pytest

from vmoe_inform.evaluation.results import CleanData, RouterFacts
from vmoe_inform.report import papers

from .sample_results import imagenet_results, results

TABLE = "Mutual-Inform SMoE, Table 2"


def changed(**changes):
    result = imagenet_results()["vmoe"]
    return dataclasses.replace(result, model=dataclasses.replace(result.model, **changes))


def test_each_informed_kind_is_set_beside_its_own_row():
    rows = {run: {m.source: m.top1 for m in papers.models_of(result)} for run, result in imagenet_results().items()}
    assert rows["vmoe"][TABLE] == {"clean": 72.71, "r": 35.42, "a": 5.27, "c": 48.72}
    assert rows["similarity_vmoe"] == {TABLE: {"clean": 73.21, "r": 36.58, "a": 5.60, "c": 50.45}}
    assert rows["attention_vmoe"] == {TABLE: {"clean": 73.33, "r": 36.66, "a": 6.78, "c": 50.85}}


def test_v_moes_own_figures_depend_on_the_image_size():
    (own,) = [m.top1 for m in papers.models_of(changed()) if m.source != TABLE]
    (fine_tuned,) = [m.top1 for m in papers.models_of(changed(image_size_px=384))]
    assert (own, fine_tuned) == ({"clean": 73.1, "v2": 59.2}, {"clean": 75.9, "v2": 62.0})


@pytest.mark.parametrize("layers", [(5, 7), (6, 7)])
def test_the_last_two_blocks_may_be_counted_either_way(layers):
    assert papers.models_of(changed(moe_layers=layers))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_classes": 10}, "num classes 10 instead of 1,000 classes"),
        ({"experts": 16}, "experts 16 instead of 8 experts"),
        ({"experts_per_token": 1}, "experts per token 1 instead of 2 experts of a patch"),
        ({"num_layers": 12}, "num layers 12 instead of 8 blocks"),
        ({"hidden_size": 384}, "hidden size 384 instead of width 512"),
        ({"patch_size_px": 16}, "patch size px 16 instead of patches of 32 px"),
        ({"moe_layers": (1, 3, 5, 7)}, "moe layers 1, 3, 5, 7 instead of MoE layers in the last two blocks"),
        ({"image_size_px": 256}, "images of 256 px"),
        ({"router": RouterFacts("cosine")}, "router 'cosine' instead of a linear one"),
        (
            {"router": RouterFacts("linear", ("attention", "similarity"))},
            "a router informed by attention and similarity",
        ),
    ],
)
def test_a_run_that_differs_is_not_compared_and_it_is_said_why(changes, words):
    result = changed(**changes)
    assert papers.models_of(result) == []
    assert papers.differences(result) == [words]


def test_other_data_and_earlier_results_are_not_compared():
    assert not any(papers.applies(result) for result in results().values())
    digits = dataclasses.replace(changed(), data=CleanData("digits"))
    assert not papers.applies(digits)
    assert papers.models_of(digits) == []
