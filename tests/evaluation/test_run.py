"""What is evaluated again, and what is not."""

import dataclasses
import json
import re
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from tests import imagenet_tiny
from vmoe_inform import documents, tasks
from vmoe_inform.config import AttackConfig, ImageConfig, VisionModelConfig, identity
from vmoe_inform.data.images.pipeline import SkippedRecords, evaluation_batches
from vmoe_inform.evaluation import run
from vmoe_inform.evaluation.evaluator import Evaluator
from vmoe_inform.evaluation.files import EvaluationFiles
from vmoe_inform.evaluation.results import SuiteResult
from vmoe_inform.evaluation.suites.base import AttackedPredictions
from vmoe_inform.evaluation.work import look
from vmoe_inform.nn import models
from vmoe_inform.runs.checkpoint_path import CheckpointPath
from vmoe_inform.runs.run import Run, SavedRun
from vmoe_inform.sharding.mesh import make_mesh

from . import imagenet_sample as sample

CONFIG = ImageConfig(model=VisionModelConfig(num_classes=10, image_size_px=32, patch_size_px=8))
FINISHED = {
    "checkpoint_step": 8,
    "config_hash": identity.config_hash(CONFIG),
    "model": {"parameters": 1, "router": {"score": "linear", "inform": "none"}},
    "suites": {"a": {"top1": 1.0, "count": 1}},
    "routing": {},
}


def undated(results):
    """Without the times at which suites were evaluated."""
    suites = {name: dataclasses.replace(result, evaluated="") for name, result in results.suites.items()}
    return dataclasses.replace(results, suites=suites, missing={})


def write(folder, value):
    files_of(folder).results.write_text(json.dumps(value))


def saved_run(folder, config, *, step=8, named=None, here=None, older_hash="older"):
    path = CheckpointPath(folder, named)
    return SavedRun("run", path, step, (step,), config, config if here is None else here, older_hash)


def files_of(folder, step=None):
    return EvaluationFiles(CheckpointPath(folder, step))


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


# -------------------------------------------------------------------------------------- what a killed evaluation keeps

SUITES = ("clean", "c", "r", "a", "o", "v2", "sketch", "real", "fgsm")
# Each of them asks for its own set, once, and all of them for the clean images, once.
NUM_SETS = 1 + 75 + 6


class Killed(BaseException):
    """What ends a process, as far as Python can tell."""


class CountingPredictor:
    """In place of a model: logits by the records' names, and a kill after so many sets."""

    def __init__(self, sets_to_live=10**6):
        self.sets_to_live = sets_to_live
        self.predicted = []
        self.workers = []

    def predict(self, variables, source):
        if len(self.predicted) == self.sets_to_live:
            raise Killed
        self.predicted.append(source.records.name(0))
        self.workers.append(self.task._workers)
        return sample.predictions(sample.logits_by_name(source, seed=1), sample.labels_of(source))

    def predict_attacked(self, variables, source, attack):
        found = self.predict(variables, source)
        return AttackedPredictions(**vars(found), without_gradient=np.zeros(len(found.labels), bool))

    def predict_with_routing(self, variables, source):
        return self.predict(variables, source), {}, {}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("imagenet")
    sample.write(directory)
    return directory


def evaluate_sample(folder, config, predictor, *, suites=SUITES, predictions=None, say=None, **options):
    """As :func:`vmoe_inform.evaluation.run.evaluate` does it, with another predictor; None: with none."""
    lines, saved = [], saved_run(folder, config, **options)
    say = lines.append if say is None else say
    work = look(saved, suites, again=predictions is not None)
    if work.is_left:
        mesh, model = make_mesh(1, 1, jax.devices()[:1]), models.from_config(config.model)
        evaluated = Run("run", folder, saved.step, saved.config, model, {"params": {}}, mesh)
        predictor.task = tasks.from_config(saved.config)
        run.complete(work, Evaluator(evaluated, predictor), predictions=predictions, say=say)
    return run.conclude(work, say=say), lines


@pytest.fixture(scope="module")
def whole(directory, tmp_path_factory):
    """An evaluation that nothing interrupts: its folder, results and lines."""
    workdir, predictor = tmp_path_factory.mktemp("whole"), CountingPredictor()
    results, lines = evaluate_sample(workdir, sample.config(directory), predictor)
    assert len(predictor.predicted) == NUM_SETS  # the clean images too are predicted once
    (workers,) = set(predictor.workers)  # of all sets
    assert workers is not None
    assert predictor.task._workers is None
    return workdir, results, lines


def test_a_killed_evaluation_goes_on_where_it_was(directory, whole, tmp_path):
    config = sample.config(directory)
    first, second, third = CountingPredictor(30), CountingPredictor(47), CountingPredictor()
    for killed in (first, second):
        with pytest.raises(Killed):
            evaluate_sample(tmp_path, config, killed)
    results, lines = evaluate_sample(tmp_path, config, third)
    assert undated(results) == undated(whole[1])
    assert len(first.predicted) + len(second.predicted) + len(third.predicted) == NUM_SETS
    assert len(third.predicted) == NUM_SETS - 77
    assert "c, set 75 of 75, jpeg_compression/5: 12 images" in whole[2]
    assert "sketch: 12 images" in lines
    # What is left is small: a few bytes an image, and what a zip file takes for each array.
    assert sum(path.stat().st_size for path in tmp_path.rglob("units/**/*.npz")) < NUM_SETS * 4000


def test_results_that_are_lost_are_made_of_the_units(directory, whole, tmp_path):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "evaluation" / "results.json").unlink()
    predictor = CountingPredictor()
    results, _ = evaluate_sample(tmp_path, sample.config(directory), predictor)
    assert undated(results) == undated(whole[1])
    assert len(predictor.predicted) == 1  # for what the routers do, which is of no suite


@pytest.mark.parametrize("damage", [lambda content: content[:-100], lambda content: b"", lambda content: b"text"])
def test_damaged_units_are_made_again(directory, whole, tmp_path, damage):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "evaluation" / "results.json").unlink()
    unit = tmp_path / "evaluation" / "units" / "step_8" / "c" / "fog" / "3.npz"
    unit.write_bytes(damage(unit.read_bytes()))
    predictor = CountingPredictor()
    results, _ = evaluate_sample(tmp_path, sample.config(directory), predictor)
    assert undated(results) == undated(whole[1])
    assert len(predictor.predicted) == 1 + 1


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"ece_bins": 10}},  # another config
        {"move": "step_4"},  # scores of another checkpoint under this one's name
        {"attack": True},
    ],
    ids=str,
)
def test_foreign_units_are_made_again(directory, whole, tmp_path, change):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    units = tmp_path / "evaluation" / "units"
    step, config = 8, sample.config(directory)
    if "config" in change:
        config = sample.config(directory, **change["config"])
    elif "move" in change:
        (units / "step_8").rename(units / "step_4")
        step = 4
    else:
        config = sample.config(directory, attack=AttackConfig(epsilon=2.0))
    predictor = CountingPredictor()
    evaluate_sample(tmp_path, config, predictor, suites=("a", "fgsm"), step=step)
    assert len(predictor.predicted) == 3


def test_units_of_other_images_are_made_again(directory, whole, tmp_path):
    """The same suite, found in another place with other images: results of the one are not taken for the other."""
    shutil.copytree(whole[0], tmp_path / "run")
    (tmp_path / "run" / "evaluation" / "results.json").unlink()
    imagenet_tiny.write_suites(tmp_path / "suites", sample.CLASSES, 1, corruptions=())
    config = sample.config(directory)
    data = dataclasses.replace(config.data, suites_directory=str(tmp_path / "suites"))
    here = dataclasses.replace(config, data=data)
    predictor = CountingPredictor()
    results, _ = evaluate_sample(tmp_path / "run", config, predictor, suites=("clean", "a", "sketch"), here=here)
    assert len(predictor.predicted) == 3
    assert results.suites["sketch"].count == 6
    assert undated(results).suites["clean"] == undated(whole[1]).suites["clean"]
    assert results.config_hash == whole[1].config_hash  # where data lie does not make another run of it


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
    write(tmp_path, documents.to_json(before))
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
    write(tmp_path, older)
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


def test_units_that_were_tampered_with_are_computed_again(directory, whole, tmp_path):
    shutil.copytree(whole[0], tmp_path, dirs_exist_ok=True)
    files, predictor = files_of(tmp_path), CountingPredictor()
    files.results.unlink()
    unit = files.folder / "units" / "step_8" / "a" / "a.npz"
    unit.unlink()
    unit.symlink_to("/etc/passwd")
    results, _ = evaluate_sample(tmp_path, sample.config(directory), predictor, suites=("a",))
    assert undated(results).suites["a"] == undated(whole[1]).suites["a"]
    assert not unit.is_symlink()
    shutil.rmtree(unit.parents[1])
    unit.parents[1].symlink_to("/tmp")
    with pytest.raises(ValueError, match=r"units/step_8: expected a folder; received a symbolic link"):
        evaluate_sample(tmp_path, sample.config(directory), predictor, suites=("a",))
