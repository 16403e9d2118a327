"""What a killed evaluation keeps, and which of it counts later."""

import dataclasses
import shutil

import pytest

from tests import imagenet_tiny
from tests.evaluation.sample_evaluations import (
    NUM_SETS,
    CountingPredictor,
    Killed,
    evaluate_sample,
    files_of,
    undated,
)
from vmoe_inform.config import AttackConfig

from . import imagenet_sample as sample


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
