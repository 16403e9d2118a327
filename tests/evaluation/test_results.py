"""Results as they are written, and as older versions wrote them."""

import dataclasses
import json

import numpy as np
import pytest

from tests.report.sample_results import imagenet_results, results
from vmoe_inform import documents, storage
from vmoe_inform.evaluation import predict, stored
from vmoe_inform.evaluation.results import (
    AttackFacts,
    CleanData,
    Data,
    LayerRouting,
    ModelFacts,
    Reliability,
    Results,
    RiskCoverage,
    RouterFacts,
    SuiteResult,
    WorstClass,
)
from vmoe_inform.nn.trace import LayerStatistics

# results.json as it was written before it had a schema version.
VERSION_1 = {
    "checkpoint_step": 8,
    "config_hash": "0123456789abcdef",
    "seed": 1,
    "model": {"parameters": 5, "router": {"score": "linear", "inform": "none"}, "experts": 4, "moe_layers": [1, 3]},
    "data": {"source": "idx", "classes_are_imagenet": False, "place": "here", "fingerprint": "f" * 16},
    "routing": {"block_1": {"entropy": 1.0, "load": [0.5, 0.5], "effective_neighbours": None, "dropped": 0.0}},
    "suites": {
        "clean": {
            "top1": 0.5,
            "top1_standard_error": 0.1,
            "nll": 1.5,
            "ece": 0.25,
            "count": 20,
            "skipped": 1,
            "origin": "TFDS",
            "reliability": {"edges": [0.0, 1.0], "confidence": [0.75], "accuracy": [0.5], "count": [20]},
            "risk_coverage": {"coverage": [0.5, 1.0], "risk": [0.25, 0.5]},
            "worst_classes": [{"class": "n01440764", "title": "tench", "top1": 0.1, "count": 2}],
            "data": {"place": "here", "fingerprint": "e" * 16},
            "evaluated": "2026-11-20T14:02:33+00:00",
        },
        "c": {
            "mean_top1": 0.25,
            "mean_top1_standard_error": 0.1,
            "mce": None,
            "per_corruption": {"fog": [0.25] * 5},
            "generated": True,
            "count": 20,
        },
        "fgsm": {"top1": 0.1, "clean_top1": 0.5, "epsilon": 1.0, "num_steps": 1, "count": 20},
        "fewshot": {"top1": 0.75, "top1_by_shots": {"1": 0.5, "5": 0.75}, "seed": 0, "count": 20},
        "sketch": {"not_available": "put it there"},
    },
    "other_data": {"o": [{"aupr": 0.75, "count": 10, "count_in_distribution": 20, "classes": 200}]},
}


def test_results_of_an_older_version_are_read(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(VERSION_1))
    clean = SuiteResult(
        count=20,
        metrics={"top1": 0.5, "nll": 1.5, "ece": 0.25},
        standard_errors={"top1": 0.1},
        skipped=1,
        origin="TFDS",
        data=Data("here", "e" * 16),
        evaluated="2026-11-20T14:02:33+00:00",
        reliability=Reliability((0.75,), (0.5,), (20,), (0.0, 1.0)),
        risk_coverage=RiskCoverage((0.5, 1.0), (0.25, 0.5)),
        worst_classes=(WorstClass("n01440764", 0.1, 2, "tench"),),
    )
    corrupted = SuiteResult(
        count=20,
        metrics={"mean_top1": 0.25},
        headline="mean_top1",
        standard_errors={"mean_top1": 0.1},
        origin="generated",
        per_corruption={"fog": (0.25,) * 5},
    )
    attacked = SuiteResult(20, {"top1": 0.1, "clean_top1": 0.5}, attack=AttackFacts(1.0, 1, loss="cross-entropy"))
    few = SuiteResult(20, {"top1": 0.75}, top1_by_shots={"1": 0.5, "5": 0.75}, seed=0)
    found = stored.read_results(path, within=tmp_path)
    assert found == Results(
        checkpoint_step=8,
        config_hash="0123456789abcdef",
        model=ModelFacts(5, RouterFacts("linear"), experts=4, moe_layers=(1, 3)),
        suites={"clean": clean, "c": corrupted, "fgsm": attacked, "fewshot": few},  # what was missing then is no result
        routing={"block_1": LayerRouting(1.0, (0.5, 0.5), None, 0.0)},
        seed=1,
        data=CleanData("idx", classes_are_imagenet=False, place="here", fingerprint="f" * 16),
        other_data={"o": (SuiteResult(10, {"aupr": 0.75, "count_in_distribution": 20}, "aupr", classes=200),)},
    )
    stored.write_results(path, found, within=tmp_path)
    assert stored.read_results(path, within=tmp_path) == found


@pytest.mark.parametrize("found", [*results().values(), *imagenet_results().values()])
def test_results_are_read_as_they_were_written_but_for_what_is_missing_here(found, tmp_path):
    path = tmp_path / "results.json"
    stored.write_results(path, found, within=tmp_path)
    assert stored.read_results(path, within=tmp_path) == dataclasses.replace(found, missing={})
    written = path.read_text()
    assert json.loads(written)["version"] == 2
    assert "null" not in written.replace('"effective_neighbours": null', "")  # nothing that says nothing


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metrics": {"nll": 1.0}}, "metrics.top1: expected a share from 0 to 1, .*; received 'only nll'"),
        ({"metrics": {"top1": 1.5}}, "metrics.top1: expected a share from 0 to 1, .*; received 1.5"),
        ({"per_corruption": {"fog": ()}}, "per_corruption.fog: expected .* at least one"),
        ({"top1_by_shots": {"few": 0.5}}, "top1_by_shots: expected numbers of images"),
        ({"evaluated": "2026-11-26"}, "evaluated: expected a date and time with its zone"),
    ],
)
def test_a_result_without_sense_is_none(changes, message):
    with pytest.raises(ValueError, match=message):
        SuiteResult(**{"count": 3, "metrics": {"top1": 0.5}, **changes})


def test_curves_have_points_of_each_kind():
    with pytest.raises(ValueError, match="risk_coverage: expected as many points of each kind"):
        RiskCoverage((0.5, 1.0), (0.5,))
    with pytest.raises(ValueError, match=r"reliability: expected .* at least one"):
        Reliability((), (), ())
    with pytest.raises(ValueError, match="load: expected a share for each expert"):
        LayerRouting(1.0, (), None, 0.0)


def test_results_of_a_later_version_are_refused(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(documents.to_json(results()["vmoe"]) | {"version": 3}))
    with pytest.raises(storage.DamagedFileError, match="schema version 3"):
        stored.read_results(path, within=tmp_path)


def test_results_of_images_are_written_as_before_there_was_text():
    written = documents.to_json(results()["attention_vmoe"], leave_out_empty=True)
    text = {"counted", "scale", "swapped", "streams"}
    assert not any(text & set(suite) for suite in written["suites"].values())
    assert set(written["model"]) == {"parameters", "router"}


def test_a_layer_whose_tokens_have_no_expert_has_a_load():
    """As ReMoE's may, once no weight is positive."""
    ones, nobody = np.ones(2), np.full((2, 3, 2), 4)
    statistics = LayerStatistics(0 * ones, np.zeros((2, 4)), ones, 0 * ones, ones > 0, 0 * ones, nobody)
    assert predict._means(statistics, has_margin=False).load == (0.0, 0.0, 0.0, 0.0)
