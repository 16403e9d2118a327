"""ImageNet's recipe from TFDS's files to figures of its suites: few images, small layers, all 1,000 classes."""

import dataclasses

import pytest

from configs import imagenet
from tests import imagenet_tiny
from vmoe_inform import config as config_lib
from vmoe_inform.data.images import ilsvrc, label_sets
from vmoe_inform.evaluation import run
from vmoe_inform.evaluation.files import EvaluationFiles
from vmoe_inform.runs import run as runs
from vmoe_inform.training import loop


@pytest.fixture(scope="module")
def config(prepared_imagenet, tmp_path_factory):
    suites = tmp_path_factory.mktemp("suites")
    for name in ("a", "r", "o"):
        imagenet_tiny.write_class_tree(suites / f"imagenet-{name}", label_sets.subset(name), 1)
    imagenet_tiny.write_real_labels(suites / "real.json")
    config = imagenet.get_config("recipe=vmoe300,router=attention_vmoe,variant=Ti/16,experts=4,where=1")
    config.model.image_size_px = 32
    config.model.num_layers = 2
    config.model.hidden_size = 16
    config.model.mlp_size = 32
    config.model.num_heads = 2
    config.model.representation_size = None
    config.model.dtype = "float32"
    config.model.moe.group_size_sequences = 2
    config.data.directory = str(prepared_imagenet)
    config.data.suites_directory = str(suites)
    config.data.num_workers = 1
    config.data.num_threads = 1
    config.train.epochs = None
    config.train.steps = 3
    config.train.batch_size = 16
    config.optimizer.warmup_steps = 1
    config.model.router.options.distilled.switch_step = 1
    config.evaluation.every_steps = None
    config.evaluation.batch_size = 64
    return config_lib.parse(config)


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    result = loop.train(config, workdir, show_progress=False)
    assert (result.steps_done, result.total_steps) == (3, 3)
    return workdir


def test_a_run_is_trained_and_evaluated_through_the_prepared_files(config, workdir):
    saved = runs.find(workdir)
    results = run.evaluate(saved, ["clean", "real", "a", "r", "o", "v2"], say=lambda _: None)
    assert dataclasses.replace(results, missing={}) == EvaluationFiles(saved.path).read_results()
    suites = results.suites
    # Sixteen validation images were prepared; of each suite there is an image of each of its 200 classes.
    assert {name: suites[name].count for name in ("clean", "a", "r", "o")} == {
        "clean": 16,
        "a": 200,
        "r": 200,
        "o": 200,
    }
    assert suites["clean"].origin == "TFDS"
    assert suites["a"].origin == "published folder"
    assert suites["a"].classes == suites["r"].classes == suites["o"].classes == 200
    known = set(label_sets.subset("o"))
    assert suites["o"].metrics["count_in_distribution"] == sum(
        name in known for name in ilsvrc.validation_classes()[:16]
    )
    # Validation image 2 has no ReaL label.
    assert (suites["real"].count, suites["real"].metrics["excluded"]) == (15, 1)
    assert "imagenetv2-matched-frequency-format-val" in results.missing["v2"].reason
    assert results.data.classes_are_imagenet
