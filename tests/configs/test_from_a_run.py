"""Config files that continue from a run: its settings, and what upcycling and fine-tuning change of them."""

import dataclasses

import pytest

from configs import finetune, upcycle
from tests import tiny, tiny_text
from vmoe_inform import config as config_lib
from vmoe_inform.config import files
from vmoe_inform.runs.folder import write_config


def _run(folder, router="vmoe", **overrides):
    """A folder with the settings of a run, which is all that config files read."""
    config = config_lib.parse(tiny.config_dict(router, **({"train__steps": 400} | overrides)))
    write_config(folder, config_lib.with_class_names(config, tuple("0123456789")))
    return config


def _parsed(file, argument):
    return config_lib.parse(file.get_config(argument))


def test_a_dense_run_gets_experts_that_start_as_it_is(tmp_path):
    """GLaM scales the weights of a token to sum 1, and no token is dropped."""
    dense = _run(tmp_path, model__moe__layers="none", data__random_flip=True, optimizer__frozen=("head",))
    config = _parsed(upcycle, f"from={tmp_path}")
    moe, options = config.model.moe, config.model.router.options
    assert (config.model.moe_layers, moe.num_experts, moe.num_selected_experts) == ((1,), 8, 2)
    assert (moe.capacity_factor, moe.capacity_factor_evaluation) == (None, None)
    assert options["top_experts"]["renormalize"] is True
    assert (config.train.steps, config.train.initial_checkpoint) == (200, str(tmp_path))
    assert config.data == dataclasses.replace(dense.data, class_names=())
    optimizer = config.optimizer
    assert optimizer.warmup_steps == dense.optimizer.warmup_steps // 2
    assert optimizer.learning_rate == pytest.approx(dense.optimizer.learning_rate / 3)
    assert (optimizer.trained_first, optimizer.trained_first_steps, optimizer.frozen) == (("moe/router/",), 100, ())
    _run(tmp_path, model__moe__layers="none", train__steps=None, train__epochs=9.0)
    assert _parsed(upcycle, f"from={tmp_path}").train.epochs == 4.5


def test_the_argument_says_where_experts_are_and_what_routes(tmp_path):
    _run(tmp_path, model__moe__layers="none")
    config = _parsed(upcycle, f"from={tmp_path},router=smoe_top1@top_experts.renormalize=one,experts=4,where=0")
    assert (config.model.moe_layers, config.model.moe.num_experts) == ((0,), 4)
    assert config.model.router.options["top_experts"]["renormalize"] == "one"
    assert config.optimizer.trained_first == ()  # no auxiliary loss would move the router alone
    dense = _parsed(upcycle, f"from={tmp_path},where=none")
    assert (dense.model.moe_layers, dense.optimizer.trained_first) == ((), ())


@pytest.mark.parametrize("layers", ["last1", (0, 1)])
def test_a_run_with_experts_keeps_its_router_and_their_places(tmp_path, layers):
    sparse = _run(tmp_path, "similarity_vmoe", model__moe__layers=layers)
    config = _parsed(upcycle, f"from={tmp_path},experts=16")
    assert config.model.moe_layers == sparse.model.moe_layers
    assert config.model.router == sparse.model.router
    assert config.model.moe.num_experts == 16


def test_a_language_model_is_upcycled_too(tmp_path):
    write_config(tmp_path, tiny_text.parse(tmp_path, model__moe__layers="none"))
    config = _parsed(upcycle, f"from={tmp_path},experts=4")
    assert (config.model.inputs, config.model.moe_layers, config.model.moe.num_experts) == ("tokens", (1,), 4)
    with pytest.raises(ValueError, match=r"from: expected a run with model.inputs = 'images'; received 'tokens'"):
        finetune.get_config(f"from={tmp_path}")


@pytest.mark.parametrize(
    ("recipe", "optimizer", "epochs"), [("vit", "sgd", None), ("layerwise", "adamw", 50.0), ("head", "sgd", 50.0)]
)
def test_fine_tuning_has_an_optimizer_of_its_own_and_the_model_of_the_run(tmp_path, recipe, optimizer, epochs):
    """The head is linear, of the classes of the data."""
    source = _run(tmp_path, "symphony_vmoe", optimizer__beta1=0.8, model__representation_size=8, train__mixup_alpha=0.2)
    config = _parsed(finetune, f"from={tmp_path},recipe={recipe}")
    assert config.model == dataclasses.replace(source.model, representation_size=None)
    assert config.data == source.data
    assert (config.optimizer.name, config.optimizer.beta1, config.train.epochs) == (optimizer, 0.9, epochs)
    assert config.train.mixup_alpha == (0.2 if recipe == "layerwise" else 0.0)
    assert config.optimizer.frozen == (("^(?!head/)",) if recipe == "head" else ())


def test_fine_tuning_with_another_router(tmp_path):
    _run(tmp_path)
    router = _parsed(finetune, f"from={tmp_path},router=similarity_vmoe@similarity.temperature=0.5").model.router
    assert (router.inform, router.options["similarity"]["temperature"]) == ("similarity", 0.5)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (None, r"config argument: expected from=RUN, the folder of the run to begin from; received nothing"),
        ("from=/no/such", r"from: expected the folder of a run, with config.json; received '/no/such'"),
        ("from=s3://bucket/run", r"from: expected path on this machine, or gs://.*; received 's3://bucket/run'"),
        ("fom=x", r"config argument: expected one of the keys router, .*; received 'fom'"),
    ],
)
def test_bad_arguments(argument, message):
    for file in (upcycle, finetune):
        with pytest.raises(ValueError, match=message):
            file.get_config(argument)


def test_a_damaged_run_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json"):
        files.load(f"upcycle:from={tmp_path}")


@pytest.mark.parametrize("file", [upcycle, finetune])
def test_the_run_may_be_in_a_bucket(tmp_path, bucket_folder, monkeypatch, file):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    run = _run(bucket_folder, model__moe__layers="none")
    config = _parsed(file, f"from={bucket_folder},router=vmoe")
    assert config.model.hidden_size == run.model.hidden_size
    assert config.train.initial_checkpoint == str(bucket_folder)
