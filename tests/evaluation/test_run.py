"""Which results count for a checkpoint, and what an evaluation leaves and says."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

from tests.evaluation.sample_evaluations import (
    CONFIG,
    FINISHED,
    SUITES,
    CountingPredictor,
    evaluate_sample,
    files_of,
    saved_run,
    undated,
)
from vmoe_inform.config import identity
from vmoe_inform.evaluation import run
from vmoe_inform.evaluation.results import SuiteResult

from . import imagenet_sample as sample


def _evaluate(folder, suites=("a",), *, config=CONFIG, step=8):
    """There is no checkpoint to load."""
    files_of(folder).folder.mkdir(exist_ok=True)
    files_of(folder).results.write_text(json.dumps(FINISHED))
    return run.evaluate(saved_run(folder, config, step=step), suites)


no_checkpoint = pytest.raises(FileNotFoundError, match="checkpoint: expected one")


def test_what_is_there_for_this_checkpoint_is_kept(tmp_path):
    results = _evaluate(tmp_path)
    assert (results.suites, results.checkpoint_step) == ({"a": SuiteResult(1, {"top1": 1.0})}, 8)
    with no_checkpoint:
        _evaluate(tmp_path, ("a", "clean"))


def test_what_an_older_version_has_finished_counts(tmp_path):
    """It hashed all settings, so that its hash is another."""
    files = files_of(tmp_path)
    files.folder.mkdir()
    files.results.write_text(json.dumps(FINISHED | {"config_hash": "older"}))
    results = run.evaluate(saved_run(tmp_path, CONFIG), ("a",))
    assert results == files.read_results()
    assert results.config_hash == identity.config_hash(CONFIG)
    assert results.suites["a"].metrics == {"top1": 1.0}


@pytest.mark.parametrize("other", [{"step": 4}, {"config": dataclasses.replace(CONFIG, seed=1)}], ids=str)
def test_results_of_another_checkpoint_are_not_mixed_in(tmp_path, other):
    with no_checkpoint:
        _evaluate(tmp_path, (), **other)  # not even what belongs to no suite


def test_what_is_missing_is_said_and_the_rest_is_evaluated(directory, tmp_path):
    config = sample.config(directory)
    here = dataclasses.replace(
        config, data=dataclasses.replace(config.data, suites_directory=str(tmp_path / "nowhere"))
    )
    suites = ("clean", "a", "o", "real")
    results, lines = evaluate_sample(tmp_path, config, CountingPredictor(), suites=suites, here=here)
    assert results.suites["clean"].count == 12
    for name in ("a", "o", "real"):
        assert "nowhere" in results.missing[name].reason
        assert sum(line.startswith(f"{name}: not available: ") for line in lines) == 1
    assert set(results.suites) == {"clean"}
    # That is so here and today: no other evaluation shows it.
    assert files_of(tmp_path).read_results() == dataclasses.replace(results, missing={})
    # Once the data are there, what was missing is evaluated.
    predictor = CountingPredictor()
    results, _ = evaluate_sample(tmp_path, config, predictor, suites=suites)
    assert set(results.suites) == set(suites)
    assert len(predictor.predicted) == 3  # a, o, and the clean images for o and real


def test_an_evaluation_of_nothing_that_is_here_is_an_error_and_leaves_nothing(directory, tmp_path):
    saved = saved_run(tmp_path, CONFIG)  # of digits
    with pytest.raises(run.NothingAvailableError, match=r"^suites: expected some that .*; sketch: there is no such"):
        run.evaluate(saved, ("v2", "sketch"))
    assert list(tmp_path.iterdir()) == []
    with no_checkpoint:  # it would be loaded for the others
        run.evaluate(saved, ("clean", "sketch"))


def test_evaluations_side_by_side_keep_each_others_figures(directory, tmp_path):
    config, files = sample.config(directory), files_of(tmp_path)

    def finish_another(line):  # while this evaluation is at work
        if line.startswith("clean: "):
            written = json.loads(files.results.read_text())
            written["suites"]["v2"] = {"metrics": {"top1": 0.5}, "count": 3}
            files.results.write_text(json.dumps(written))

    results, _ = evaluate_sample(tmp_path, config, CountingPredictor(), suites=("clean", "a"), say=finish_another)
    assert set(results.suites) == {"clean", "a", "v2"}
    assert files.read_results() == results


def test_predictions_for_others(directory, whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "run")
    config, suites = sample.config(directory), ("clean", "a", "o")
    predictor, folder = CountingPredictor(), tmp_path / "predictions"
    results, _ = evaluate_sample(tmp_path / "run", config, predictor, suites=suites, predictions=folder)
    assert undated(results) == undated(whole[1])  # nothing else comes of it
    written = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert written == ["a/a.npz", "clean/clean.npz", "o/o.npz"]
    with np.load(folder / "a" / "a.npz", allow_pickle=False) as file:
        assert file["logits"].dtype == np.float32
        assert file["logits"].shape == (6, 6)
        assert file["class_names"].tolist() == list(sample.CLASSES)
        named = [str(name).partition("/")[0] for name in file["names"]]
        assert [sample.CLASSES[label] for label in file["labels"]] == named
        assert int(file["checkpoint_step"]) == 8
    # They are kept like everything else; those of another checkpoint are not taken for these.
    again = CountingPredictor()
    evaluate_sample(tmp_path / "run", config, again, suites=suites, predictions=folder)
    assert again.predicted == []
    other = CountingPredictor()
    evaluate_sample(tmp_path / "run", config, other, suites=("a",), step=9, predictions=folder)
    assert len(other.predicted) == 2


def test_a_named_checkpoint_has_files_of_its_own(directory, whole, tmp_path):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    config = sample.config(directory)
    named = files_of(tmp_path, 4)
    results, _ = evaluate_sample(tmp_path, config, CountingPredictor(), suites=("a",), step=4, named=4)
    assert named.read_results() == results
    assert set(results.suites) == {"a"}
    assert files_of(tmp_path).read_results() == whole[1]
    assert named.results.name == "results_step_4.json"
    with pytest.raises(FileNotFoundError, match=rf"--workdir={tmp_path}@5"):
        files_of(tmp_path, 5).read_results()


def test_facts_of_the_run(whole, directory):
    data, model = whole[1].data, whole[1].model
    assert re.fullmatch("[0-9a-f]{16}", data.fingerprint)
    assert (data.source, data.classes_are_imagenet, data.place) == ("folder", True, str(directory / "val"))
    assert model.moe_layers == (5, 7)
    assert (model.image_size_px, model.patch_size_px) == (32, 8)
    # Half of them from all over the images that are taken for something else (all but a few of these twelve), and then
    # what is left of the others.
    examples = files_of(whole[0]).read_examples()
    assert len({example["label"] for example in examples}) > 4
    assert len(examples) == 8
    assert examples[0]["image"].shape == (32, 32, 3)


@pytest.mark.parametrize(
    "change",
    [{"evaluated": "yesterday"}, {"evaluated": "2026-11-26"}, {"data": {"place": "here"}}, {"other_data": [1]}],
)
def test_dates_and_data_that_are_none_are_damage(whole, tmp_path, change):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    results = json.loads(files_of(tmp_path).results.read_text())
    (results if "other_data" in change else results["suites"]["clean"]).update(change)
    files_of(tmp_path).results.write_text(json.dumps(results))
    with pytest.raises(ValueError, match=r"results.json: expected .*evaluate it again"):
        files_of(tmp_path).read_results()


@pytest.mark.parametrize("damage", [b"", b"\x00\xff", b'{"suites": {}}', b"{" * 10_000, b'{"a": NaN}', b"[]"])
def test_damaged_results_are_put_aside_and_evaluated_again(directory, whole, tmp_path, damage, caplog):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    files, predictor = files_of(tmp_path), CountingPredictor()
    files.results.write_bytes(damage)
    results, _ = evaluate_sample(tmp_path, sample.config(directory), predictor, suites=SUITES)
    assert undated(results) == undated(whole[1])
    assert files.read_results() == results
    assert len(predictor.predicted) == 1  # the clean images, for what is not kept set by set
    assert (files.folder / "damaged_results.json").read_bytes() == damage
    assert sum("results.json: expected " in line for line in caplog.text.splitlines()) == 1
    files.results.write_bytes(damage)
    with pytest.raises(ValueError, match=rf"evaluate it again: python -m vmoe_inform.evaluate --workdir={tmp_path}\)$"):
        files.read_results()


def test_damaged_examples_are_made_again(directory, whole, tmp_path):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    files = files_of(tmp_path)
    before = files.read_examples()
    files.examples.write_bytes(files.examples.read_bytes()[:-100])
    assert files.read_examples() == []
    evaluate_sample(tmp_path, sample.config(directory), CountingPredictor(), suites=("a",))
    assert [example["label"] for example in files.read_examples()] == [example["label"] for example in before]
