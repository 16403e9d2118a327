"""A metric is one function and one line; evaluations that are finished have it too, or say that they are older."""

import copy
import dataclasses
import shutil

import numpy as np
import pytest
from scipy.special import softmax

from tests.evaluation.sample_evaluations import CountingPredictor, evaluate_sample, files_of
from tests.report.sample_results import results, with_suite
from vmoe_inform.evaluation import metric_registry
from vmoe_inform.evaluation.metric_registry import METRICS, SCORES, of_image, of_scores
from vmoe_inform.report import tables

from . import imagenet_sample as sample

SUITES = ("clean", "a", "sketch")


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """Leaves the registries as they were."""
    for registry in (METRICS, SCORES):
        monkeypatch.setattr(registry, "_entries", copy.copy(registry._entries))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    directory = tmp_path_factory.mktemp("imagenet")
    sample.write(directory)
    return sample.config(directory)


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    evaluate_sample(folder, config, CountingPredictor(), suites=SUITES)
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def register_brier(version=1):
    @of_image("brier", title="Brier score", unit="number", less_is_better=True, version=version)
    def brier(logits, labels):
        return version * np.square(softmax(logits, axis=1) - np.eye(logits.shape[1])[labels]).sum(axis=1)

    return brier


def register_wrong_confidence(version=1):
    @of_scores("wrong_confidence", title="confidence in wrong answers", needs=("hit", "confidence"), version=version)
    def wrong_confidence(hit, confidence):
        return version * confidence[~hit].mean()


def test_a_new_evaluation_has_a_new_metric_on_every_suite_of_labelled_images(config, tmp_path):
    brier = register_brier()
    found, _ = evaluate_sample(tmp_path, config, CountingPredictor(), suites=(*SUITES, "real", "o"))
    for name in SUITES:
        assert 0 < found.suites[name].metrics["brier"] < 2
        assert found.suites[name].standard_errors["brier"] > 0
        assert found.suites[name].versions["brier"] == 1
    for name in ("real", "o"):  # several labels are right; none is
        assert "brier" not in found.suites[name].metrics
    assert brier(np.zeros((1, 4)), np.array([2])) == pytest.approx([3 * 0.25**2 + 0.75**2])
    rows = {(suite, words): cells for suite, words, cells in tables.details({"run": found})}
    value = found.suites["sketch"].metrics["brier"]
    assert rows["Sketch: drawings of the same classes (published folder)", "Brier score"] == [f"{value:.4f}"]
    # Nothing is left to do, and nothing is said.
    again, lines = evaluate_sample(tmp_path, config, None, suites=(*SUITES, "real", "o"))
    assert again.suites == found.suites
    assert not any("brier" in line for line in lines)


def test_a_finished_evaluation_makes_a_new_metric_of_kept_scores(config, folder):
    before = files_of(folder).read_results()
    register_wrong_confidence()
    found, lines = evaluate_sample(folder, config, None, suites=SUITES)  # without a model
    for name in SUITES:
        assert 0 < found.suites[name].metrics["wrong_confidence"] < 1
        assert f"{name}: wrong_confidence computed from the scores of before" in lines
        del found.suites[name].metrics["wrong_confidence"], found.suites[name].versions["wrong_confidence"]
        assert found.suites[name] == before.suites[name]  # the date too
    assert files_of(folder).read_results().suites["a"].metrics["wrong_confidence"] > 0


def test_a_changed_metric_is_made_anew(config, folder):
    register_wrong_confidence()
    first, _ = evaluate_sample(folder, config, None, suites=("a",))
    del METRICS._entries["wrong_confidence"]
    register_wrong_confidence(version=2)
    second, lines = evaluate_sample(folder, config, None, suites=("a",))
    values = [found.suites["a"].metrics["wrong_confidence"] for found in (first, second)]
    assert values[1] == pytest.approx(2 * values[0])
    assert "a: wrong_confidence computed from the scores of before" in lines
    assert not any("computed from" in line for line in evaluate_sample(folder, config, None, suites=("a",))[1])


def test_what_kept_scores_do_not_suffice_for_is_said_in_one_line_and_made_when_the_suite_is_evaluated_again(
    config, folder
):
    register_brier()
    found, lines = evaluate_sample(folder, config, None, suites=SUITES)
    older = [line for line in lines if "brier" in line]
    assert len(older) == len(SUITES)
    assert older[0].startswith("clean: older than the current brier, for which its scores do not suffice; ")
    assert older[0].endswith(f"delete {folder / 'evaluation'}")
    assert "brier" not in found.suites["clean"].metrics
    # What they suffice for is made; of the other nothing is claimed.
    register_wrong_confidence()
    found, lines = evaluate_sample(folder, config, None, suites=("a",))
    assert "a: wrong_confidence computed from the scores of before" in lines
    assert any(line.startswith("a: older than the current brier, for which") for line in lines)
    assert found.suites["a"].versions.keys() >= {"wrong_confidence", "top1"}
    assert "brier" not in found.suites["a"].versions
    # Scores of a set are kept with their versions: without results, the sets are predicted again.
    files_of(folder).results.unlink()
    predictor = CountingPredictor()
    found, _ = evaluate_sample(folder, config, predictor, suites=SUITES)
    assert len(predictor.predicted) == len(SUITES)
    assert "brier" in found.suites["clean"].metrics
    # So they are for a changed score.
    files_of(folder).results.unlink()
    for registry in (METRICS, SCORES):
        del registry._entries["brier"]
    register_brier(version=2)
    changed, _ = evaluate_sample(folder, config, predictor, suites=SUITES)
    assert len(predictor.predicted) == 2 * len(SUITES)
    assert changed.suites["a"].metrics["brier"] == pytest.approx(2 * found.suites["a"].metrics["brier"], rel=1e-6)


def test_a_metric_that_is_no_number_is_said_in_one_line_and_the_other_suites_are_evaluated(config, tmp_path):
    of_scores("broken", title="of no image", needs=("hit_unmasked",))(lambda hit: float("nan"))
    found, lines = evaluate_sample(tmp_path, config, CountingPredictor(), suites=("clean", "a"))
    assert (list(found.suites), list(found.missing)) == (["clean"], ["a"])
    assert "metric broken: expected a finite number; received nan" in "\n".join(lines)


def test_scores_that_an_older_version_kept_are_of_the_first_versions(config, folder):
    for path in (folder / "evaluation" / "units").rglob("*.npz"):
        with np.load(path) as file:
            arrays = {name: file[name] for name in file if name != "score_versions"}
        np.savez(path.with_suffix(""), **arrays)
    register_wrong_confidence()
    _, lines = evaluate_sample(folder, config, None, suites=("a",))
    assert "a: wrong_confidence computed from the scores of before" in lines
    METRICS._entries["nll"] = dataclasses.replace(METRICS["nll"], version=2)
    SCORES._entries["nll"] = dataclasses.replace(SCORES["nll"], version=2)
    _, lines = evaluate_sample(folder, config, None, suites=("a",))
    assert any(line.startswith("a: older than the current nll") for line in lines)


def test_metrics_that_a_suite_does_not_list_have_a_row_of_details():
    register_brier()
    rows = tables.details(with_suite(results(), "vmoe", "clean", metrics={"top1": 0.5, "brier": 0.25}))
    assert ("Clean test images", "Brier score", ["-", "0.2500"]) in rows


def test_a_metric_is_registered_once():
    register_brier()
    with pytest.raises(ValueError, match="'brier' is already registered"):
        register_brier()
    assert metric_registry.score_versions().keys() >= metric_registry.FIRST_SCORES.keys()
