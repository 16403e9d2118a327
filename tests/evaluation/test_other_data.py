"""Evaluations of one run on several sets of data, and on data that are gone."""

import dataclasses
import json
import re
import shutil

import pytest
from PIL import Image

from tests.evaluation.sample_evaluations import (
    FINISHED,
    SUITES,
    CountingPredictor,
    evaluate_sample,
    files_of,
    undated,
    write_results,
)
from vmoe_inform import documents
from vmoe_inform.data.images.pipeline import SkippedRecords, evaluation_batches
from vmoe_inform.evaluation import run
from vmoe_inform.evaluation.results import SuiteResult

from . import imagenet_sample as sample


def test_damaged_suites_are_said_and_the_rest_is_evaluated(directory, tmp_path):
    shutil.copytree(directory / "suites", tmp_path / "suites")
    for path in (tmp_path / "suites" / "imagenet-r").glob("*/*"):
        path.write_bytes(b"no image")
    shutil.rmtree(tmp_path / "suites" / "sketch" / sample.CLASSES[0])
    config = sample.config(directory)
    data = dataclasses.replace(config.data, suites_directory=str(tmp_path / "suites"))
    here = dataclasses.replace(config, data=data)
    suites = ("r", "sketch", "a")
    results, _ = evaluate_sample(tmp_path / "run", config, Unreadable(), suites=suites, here=here)
    assert run.damaged_suites(results) == ["sketch", "r"]
    assert results.missing["r"].reason.startswith("data: expected at most 1.00% unreadable")
    assert sample.CLASSES[0] in results.missing["sketch"].reason
    assert results.suites["a"].count == 6


class Unreadable(CountingPredictor):
    """Reads images that are none, as a real predictor does."""

    def predict(self, variables, source, **options):
        if source.records[0]["image"] == b"no image":
            list(evaluation_batches(source, image_size_px=8, batch_size=8, skipped=SkippedRecords(0.01)))
        return super().predict(variables, source, **options)


def test_figures_stay_when_the_images_are_gone(directory, whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "run")
    config = sample.config(directory)
    data = dataclasses.replace(config.data, suites_directory=str(tmp_path / "nowhere"))
    here = dataclasses.replace(config, data=data)
    folder = tmp_path / "predictions"
    results, lines = evaluate_sample(
        tmp_path / "run", config, CountingPredictor(), suites=("a",), here=here, predictions=folder
    )
    assert undated(results) == undated(whole[1])
    assert any(line.startswith("a: not available: ") for line in lines)


def test_an_evaluation_beside_another_keeps_what_that_has_on_other_data(directory, other_directory, whole, tmp_path):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    config, files, before = sample.config(directory), files_of(tmp_path), whole[1].suites["clean"]
    others = []

    def evaluate_other_data(line):  # while this evaluation is at work, of other suites
        if not others:
            here = _on(config, other_directory)
            others.append(evaluate_sample(tmp_path, config, CountingPredictor(), suites=("clean",), here=here)[0])

    left = json.loads(files.results.read_text())
    del left["suites"]["a"]
    files.results.write_text(json.dumps(left))
    evaluate_sample(tmp_path, config, CountingPredictor(), suites=("a",), say=evaluate_other_data)
    results = files.read_results()
    assert results.suites["clean"] == others[0].suites["clean"]
    assert results.other_data["clean"] == (before,)
    assert "a" in results.suites


def _on(config, directory):
    """The same run where its data lie elsewhere."""
    suites = str(directory / "suites")
    return dataclasses.replace(
        config, data=dataclasses.replace(config.data, directory=str(directory), suites_directory=suites)
    )


@pytest.fixture(scope="module")
def other_directory(tmp_path_factory):
    """The same classes as ``directory`` has, with as many images of the same names, which show something else."""
    directory = tmp_path_factory.mktemp("other")
    sample.write(directory)
    for path in (directory / "val").rglob("*.*"):
        Image.new("RGB", (8, 8), "red").save(path)
    return directory


def test_other_data_are_another_evaluation(directory, other_directory, whole, tmp_path):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    config, suites, predictor = sample.config(directory), ("clean", "sketch"), CountingPredictor()
    results, lines = evaluate_sample(tmp_path, config, predictor, suites=suites, here=_on(config, other_directory))
    assert len(predictor.predicted) == 1  # the clean ones; the sketches are the same
    assert "clean: 12 images" in lines
    assert any(line.startswith("sketch: 12 images, from before: evaluated 20") for line in lines)
    assert results.suites["clean"].data.place == results.data.place == str(other_directory / "val")
    assert results.other_data["clean"] == (whole[1].suites["clean"],)
    # Back to the first data: nothing is predicted but what the routers do.
    predictor = CountingPredictor()
    results, lines = evaluate_sample(tmp_path, config, predictor, suites=suites)
    assert len(predictor.predicted) == 1
    assert results.suites["clean"] == whole[1].suites["clean"]
    assert [entry.data.place for entry in results.other_data["clean"]] == [str(other_directory / "val")]
    assert files_of(tmp_path).read_results() == results
    for line in ("clean", "sketch"):
        assert any(shown.startswith(f"{line}: 12 images, from before: evaluated 20") for shown in lines)


def test_suites_that_are_known_on_other_data_only_stay(directory, whole, tmp_path):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    suites = dict(whole[1].suites)
    before = dataclasses.replace(whole[1], other_data={"v2": (suites.pop("a"),)}, suites=suites)
    write_results(tmp_path, documents.to_json(before))
    assert evaluate_sample(tmp_path, sample.config(directory), None, suites=("clean",))[0] == before
    assert files_of(tmp_path).read_results() == before


def test_a_copy_of_the_data_is_the_same_evaluation(directory, whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "run")
    shutil.copytree(directory, tmp_path / "copy")
    config = sample.config(directory)
    here = _on(config, tmp_path / "copy")
    assert evaluate_sample(tmp_path / "run", config, None, suites=SUITES, here=here)[0] == whole[1]


def test_data_that_are_gone_leave_the_figures_of_before(directory, whole, tmp_path):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    config = sample.config(directory)
    here = _on(config, tmp_path / "nowhere")
    results, lines = evaluate_sample(tmp_path, config, None, suites=("clean",), here=here)
    assert dataclasses.replace(results, missing={}) == whole[1]
    assert lines[0].startswith("clean: not available: data.directory: expected a directory")
    assert re.fullmatch(r"clean: 12 images, from before: evaluated 20\d\d-.* UTC, .*/val", lines[1])


def test_results_of_older_versions_say_that_they_know_no_data(directory, other_directory, whole, tmp_path):
    """They count where the run's config says that the data lie, as they always did, and nowhere else."""
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    older = {
        **FINISHED,
        "config_hash": whole[1].config_hash,
        "suites": {"clean": {"top1": 0.5, "top1_standard_error": 0.1, "count": 12}, "o": {"not_available": "then"}},
        "data": {"source": "folder", "classes_are_imagenet": True},
    }
    write_results(tmp_path, older)
    config = sample.config(directory)
    results, lines = evaluate_sample(tmp_path, config, None, suites=("clean",))
    expected = SuiteResult(12, {"top1": 0.5}, standard_errors={"top1": 0.1})
    assert results.suites == {"clean": expected}
    assert results == files_of(tmp_path).read_results()
    expected = "clean: 12 images, from before: evaluated by an older version, which recorded neither date nor data"
    assert lines == [expected]
    predictor = CountingPredictor()
    evaluate_sample(tmp_path, config, predictor, suites=("clean",), here=_on(config, other_directory))
    assert len(predictor.predicted) == 1
