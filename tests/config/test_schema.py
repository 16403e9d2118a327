import copy
import json
import re
from pathlib import Path
from typing import get_args

import pytest
from ml_collections import ConfigDict

from vmoe_inform import checks
from vmoe_inform import config as config_lib
from vmoe_inform.config import files as config_files
from vmoe_inform.config import from_text, groups, identity
from vmoe_inform.routing import steps

DIGITS = Path(__file__).parents[2] / "configs" / "digits.py"


def make(**changes):
    """The default config as a plain dict, with ``a__b=value`` for ``a.b``."""
    tree = config_lib.default().to_dict()
    tree["train"]["epochs"] = 1.0
    for path, value in changes.items():
        *groups, name = path.split("__")
        place = tree
        for group in groups:
            place = place[group]
        place[name] = value
    return tree


def leaves(tree, prefix=""):
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def test_the_groups_are_those_that_are_documented():
    single = {"seed", "task", "profile", "plugins"}
    assert set(config_lib.default()) - single == {
        *("model", "data", "train", "optimizer", "checkpoint", "evaluation", "mesh")
    }


def test_a_parsed_config_survives_json_and_parsing_again():
    config = config_lib.parse(make(model__router__inform=("similarity", "symphony"), model__moe__layers=(1, 3)))
    assert config_lib.parse(json.loads(json.dumps(config_lib.to_json(config)))) == config
    assert config_lib.parse(config) == config
    assert config.model.router.inform_steps == ("similarity", "symphony")
    # Options of the chosen steps only, all of them written out.
    assert set(config.model.router.options) == {"linear", "similarity", "symphony", "top_experts", "importance", "load"}


def test_what_is_left_out_has_its_default():
    assert config_lib.parse({"train": {"epochs": 1.0}}) == config_lib.parse(make())
    assert config_lib.parse_model({}) == config_lib.parse(make()).model
    assert config_lib.parse_model(ConfigDict()) == config_lib.parse(make()).model


def test_the_hash_is_stable_and_changes_with_settings_that_decide_scores():
    tree = make()
    config = config_lib.parse(tree)
    assert re.fullmatch("[0-9a-f]{16}", identity.config_hash(config))
    assert identity.config_hash(config) == identity.config_hash(config_lib.parse(json.loads(json.dumps(tree))))
    changes = [
        {"seed": 1},
        {"model__hidden_size": 256},
        {"model__router__options__linear__bias": True},
        {"model__router__losses": ("z",), "model__router__options__z__weight": 1e-4},
        {"optimizer__learning_rate": 1e-4},
        {"data__random_flip": True},
        {"train__epochs": 2.0},
        {"evaluation__attack__epsilon": 2.0},
    ]
    hashes = {identity.config_hash(config_lib.parse(make(**change))) for change in ({}, *changes)}
    assert len(hashes) == 1 + len(changes)


# Bad input.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # unknown keys
        ({"sead": 1}, r"config: expected one of the keys .*; received 'sead' \(did you mean 'seed'\?\)"),
        ({"model__hiden_size": 8}, r"model: expected .*; received 'hiden_size' \(did you mean 'hidden_size'\?\)"),
        ({"model__router__losses": ("zz",)}, r"model.router.losses: expected one of balance, .*; received 'zz'"),
        ({"model__router__losses": ("z", "z")}, r"model.router.losses: expected each loss once; received"),
        ({"model__router__options__similarty": {}}, r"model.router.options: .* \(did you mean 'similarity'\?\)"),
        (
            {"model__router__options__attention__sigmas": 1.0},
            r"model.router.options.attention: expected .*received 'sigmas' \(did you mean 'sigma'\?\)",
        ),
        # wrong types
        ({"seed": "1"}, "seed: expected int >= 0 and < 4294967296; received '1'"),
        ({"seed": 1.5}, "seed: expected int >= 0 and < 4294967296; received 1.5"),
        ({"model": 3}, "model: expected a group with the keys of VisionModelConfig; received 3"),
        (
            {"model__router__options": 3},
            "model.router.options: expected a mapping from step name to options; received 3",
        ),
        ({"model__router__options__linear": 3}, "model.router.options.linear: expected a mapping .*; received 3"),
        ({"model__router__options__linear__bias": 1}, "model.router.options.linear.bias: expected true or false; rec"),
        ({"model__dtype": "float16"}, "model.dtype: expected one of 'float32', 'bfloat16'; received 'float16'"),
        (
            {"model__moe__layers": 1},
            "model.moe.layers: expected string .* or tuple of int >= 0 and <= 2147483647; received 1",
        ),
        (
            {"data__pixel_mean": float("nan")},
            "data.pixel_mean: expected float >= .* or tuple of float .*; received nan",
        ),
        (
            {"evaluation__suites": "clean"},
            "evaluation.suites: expected tuple of string .at most 200 characters.; received 'clean'",
        ),
        # bounds
        (
            {"model__router__options__attention__sigma": 0.0},
            "attention.sigma: expected float >= 1e-06 and <= 1000000 or one of 'sqrt_dim', 'estimated'; received 0.0",
        ),
        (
            {"model__router__options__attention__sigma": -1},
            "attention.sigma: expected float >= 1e-06 and <= 1000000 or one of 'sqrt_dim', 'estimated'; received -1",
        ),
        (
            {"model__router__options__similarity__temperature": 0.0},
            r"similarity.temperature: expected float >= 1e-06 and <= 1000000 or one of 'sqrt_dim'; received 0.0",
        ),
        ({"model__router__options__similarity__temperature": "sqrt"}, "similarity.temperature: .*; received 'sqrt'"),
        (
            {"model__router__options__symphony__decay": 1.1},
            "symphony.decay: expected float >= 0 and <= 1; received 1.1",
        ),
        (
            {"model__moe__capacity_factor": 0.0},
            "model.moe.capacity_factor: expected float > 0 and <= 1048576 or None; received 0.0",
        ),
        ({"model__dropout_rate": 1.0}, "model.dropout_rate: expected float >= 0 and < 1; received 1.0"),
        # combinations
        (
            {"model__moe__num_selected_experts": 9},
            "model.moe.num_selected_experts: expected at most model.moe.num_experts = 8; received 9",
        ),
        (
            {"model__image_size_px": 100},
            "model.image_size_px: expected a multiple of model.patch_size_px = 32; received 100",
        ),
        ({"model__num_heads": 7}, "model.hidden_size: expected a multiple of model.num_heads = 7; received 512"),
        (
            {"model__moe__group_size_sequences": 3, "evaluation__batch_size": 3},
            "train.batch_size: expected a multiple of model.moe.group_size_sequences = 3; received 128",
        ),
        (
            {"model__moe__group_size_sequences": 128, "evaluation__batch_size": 64},
            "evaluation.batch_size: expected a multiple of model.moe.group_size_sequences = 128; received 64",
        ),
        (
            {"model__moe__group_size_sequences": 64, "train__gradient_accumulation_steps": 4},
            "train.batch_size: expected .* = 64 in each accumulation step; received 32",
        ),
        (
            {"train__gradient_accumulation_steps": 3},
            "train.batch_size: expected a multiple of train.gradient_accumulation_steps = 3; received 128",
        ),
        ({"mesh__expert": 3}, "mesh.expert: expected a divisor of the 8 experts; received 3"),
        (
            {"mesh__expert": 2, "model__moe__layers": "none"},
            "mesh.expert: expected 1 without MoE layers; received 2",
        ),
        (
            {"model__moe__shared_experts": 1, "model__moe__layers": "none"},
            "model.moe.shared_experts: expected 0 without MoE layers; received 1",
        ),
        ({"mesh__fsdp": 3}, "mesh.fsdp: expected a divisor of model.hidden_size = 512; received 3"),
        (
            {"mesh__fsdp": 64, "model__representation_size": 100},
            "mesh.fsdp: expected a divisor of model.representation_size = 100; received 64",
        ),
        (
            {"model__moe__layers": "last5"},
            "model.moe.layers: expected at most 'last4' with 8 blocks .model.num_layers.; received .last5.",
        ),
        ({"model__moe__layers": (8,)}, r"model.moe.layers: expected distinct block indices 0 to 7; received \(8,\)"),
        ({"train__epochs": None}, r"train: expected exactly one of train.steps and .*; received \(None, None\)"),
        ({"train__steps": 5}, r"train: expected exactly one of train.steps and .*; received \(5, 1.0\)"),
        (
            {"train__steps": 20, "optimizer__warmup_steps": 100},
            r"train: .*, the other None \(for 20 steps: train.epochs=None and optimizer.warmup_steps=2\); received",
        ),
        (
            {"optimizer__name": "adam", "optimizer__weight_decay": 0.1},
            "optimizer.weight_decay: expected 0 with optimizer.name = 'adam'; received 0.1",
        ),
        (
            {"optimizer__learning_rate": 1e-4, "optimizer__end_learning_rate": 1e-3},
            "optimizer.end_learning_rate: expected at most optimizer.learning_rate = 0.0001; received 0.001",
        ),
        (
            {"optimizer__name": "momentum"},
            "optimizer.name: expected one of 'adamw', 'adam', 'sgd', 'adafactor', 'lion'; received 'momentum'",
        ),
        (
            {"optimizer__name": "lion", "optimizer__momentum": 0.5},
            "optimizer.momentum: expected 0.9, the default, with optimizer.name = 'lion', which has none; received 0.5",
        ),
        (
            {"optimizer__name": "adafactor", "optimizer__beta1": 0.0, "optimizer__first_moment_dtype": "bfloat16"},
            "optimizer.first_moment_dtype: expected 'float32' with optimizer.name = 'adafactor' and optimizer.beta1 = 0"
            ": there is no first moment; received 'bfloat16'",
        ),
        ({"optimizer__momentum": 1.0}, "optimizer.momentum: expected float >= 0 and < 1; received 1.0"),
        (
            {"model__stochastic_depth_rate": 0.1, "model__num_layers": 1, "model__moe__layers": (0,)},
            "model.stochastic_depth_rate: expected 0 with a single block: .*; received 0.1",
        ),
        ({"data__pixel_mean": (0.5, 0.5)}, r"data.pixel_mean: expected one number, or three .*; received \(0.5, 0.5\)"),
        ({"data__crop": "random"}, "data.crop: expected one of 'center', 'inception'; received 'random'"),
        ({"data__evaluation_crop": 0.0}, "data.evaluation_crop: expected float > 0 and <= 1; received 0.0"),
        ({"data__randaugment_magnitude": 11}, "randaugment_magnitude: expected float >= 0 and <= 10; received 11"),
        ({"data__random_erasing": 1.5}, "data.random_erasing: expected float >= 0 and <= 1; received 1.5"),
        ({"train__cutmix_alpha": -1.0}, "train.cutmix_alpha: expected float >= 0 and <= 1000000; received -1.0"),
        ({"evaluation__shots": ()}, r"evaluation.shots: expected distinct numbers, at least one; received \(\)"),
        ({"evaluation__shots": (5, 5)}, r"evaluation.shots: expected distinct numbers, .*; received \(5, 5\)"),
        (
            {"evaluation__attack__epsilon": 8.0},
            r"attack.step_size: expected at least epsilon / num_steps = 8 / 10, lest .*; received 0.25",
        ),
        ({"optimizer__weight_decay_pattern": "("}, "optimizer.weight_decay_pattern: expected a regular expression .*'"),
        ({"model__router__noise_std": 0.0}, "model.router.losses: expected no 'load' where .*noise_std is 0 .*; rec"),
        # names
        ({"model__router__score": "lin"}, "model.router.score: expected one of .*linear.*; received 'lin'"),
        ({"model__router__select": "top"}, "model.router.select: expected one of .*top_experts.*; received 'top'"),
        ({"model__router__inform": "sim"}, "model.router.inform: expected one of .*, or none alone; received 'sim'"),
        ({"model__router__inform": ("none", "symphony")}, "model.router.inform: .* or none alone; received 'none'"),
        (
            {"model__router__inform": ("symphony", "symphony")},
            r"model.router.inform: expected each step once; received \('symphony', 'symphony'\)",
        ),
        ({"model__moe__dispatch": "ragged?"}, "model.moe.dispatch: expected one of .*gather.*; received 'ragged"),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=f"{message}"):
        config_lib.parse(make(**changes))


@pytest.mark.parametrize("given", [None, [], "digits"])
def test_a_config_has_to_be_a_mapping(given):
    with pytest.raises(ValueError, match="expected a group with the keys of ImageConfig; received"):
        config_lib.parse(given)


# Routers whose parts do not go together. Each error names both sides.

QUIET = {"model__router__noise_std": 0.0, "model__router__losses": ("importance",)}
DISTILLED = {**QUIET, "model__router__score": "distilled"}
FROZEN = {**QUIET, "model__router__score": "frozen"}
OPTIONS = "model__router__options__"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {**DISTILLED, "model__router__select": "expert_choice"},
            "model.router.select: expected top_experts with model.router.score = 'distilled'; received 'expert_choice'",
        ),
        (
            {**FROZEN, OPTIONS + "frozen__k_start": 2, OPTIONS + "frozen__k_end": 9},
            "model.router.options.frozen.k_end: expected at most model.moe.num_experts = 8; received 9",
        ),
        (
            {**FROZEN, OPTIONS + "frozen__k_start": 4, OPTIONS + "frozen__k_end": 3},
            "model.router.options.frozen.k_start: expected at most the K at the end, 3; received 4",
        ),
        (
            {**FROZEN, OPTIONS + "frozen__k_end": 3},
            r"model.router.options.frozen.k_end: expected None when k_start is None \(K does not grow\); received 3",
        ),
        (
            {**FROZEN, OPTIONS + "frozen__k_start": 1, "model__router__select": "expert_choice"},
            "model.router.options.frozen: expected a constant K with .*'expert_choice'; received 'K from 1 to 2'",
        ),
        (
            {"model__router__score": "frozen", OPTIONS + "frozen__k_start": 1},
            "model.router.losses: expected no 'load' where K grows; received",
        ),
        (
            {**QUIET, "model__router__score": "hash", OPTIONS + "hash__ids": "vocabulary"},
            r"model.router.options.hash.ids: expected 'position' \(the tokens of an image have no ids .*'vocabulary'",
        ),
        (
            {"model__router__select": "balanced_assignment"},
            "model.moe.num_selected_experts: expected 1 with model.router.select = 'balanced_assignment'; received 2",
        ),
        (
            {
                "model__router__select": "balanced_assignment",
                "model__moe__num_selected_experts": 1,
                "model__moe__capacity_factor": 0.9,
            },
            "model.moe.capacity_factor: expected at least 1.0 with .*select = 'balanced_assignment'; received 0.9",
        ),
        (
            {"model__router__select": "soft", "model__router__inform": "similarity"},
            "model.router.inform: expected 'none' with model.router.select = 'soft', which .*; received 'similarity'",
        ),
        (
            {"model__router__select": "expert_choice", "model__moe__batch_priority": True},
            "model.moe.batch_priority: expected false with model.router.select = 'expert_choice', .*; received True",
        ),
        (
            {"model__router__losses": ("distillation",)},
            "model.router.losses: expected one of balance, .*; received 'distillation'",
        ),
        (
            {**DISTILLED, "model__router__options__distilled__distillation_weight": 0.0},
            "options.distilled.distillation_weight: expected float >= 1e-18 .*; received 0.0",
        ),
        (
            {**DISTILLED, "model__router__noise_std": 1.0},
            "model.router.noise_std: expected 0 with model.router.score = 'distilled'; received 1.0",
        ),
        (
            {"model__router__inform": "symphony_across_layers", "model__moe__layers": "last1"},
            "model.moe.layers: expected a second MoE layer for .*'symphony_across_layers' to act in; received 'last1'",
        ),
        (
            {"model__router__inform_by_layer": ("attention", "similarity"), "model__router__inform": "symphony"},
            "model.router.inform: expected 'none' with model.router.inform_by_layer; received 'symphony'",
        ),
        (
            {"model__router__inform_by_layer": ("attention", "similarity", "none")},
            r"model.router.inform_by_layer: expected at most one choice for each of the 2 MoE layers .*; received \(",
        ),
        (
            {"model__router__inform_by_layer": ("attention", "similar")},
            "model.router.inform_by_layer: expected one of .*; received 'similar' .did you mean 'similarity'.*",
        ),
        (
            {**DISTILLED, "train__epochs": None, "train__steps": 100, OPTIONS + "distilled__switch_step": 100},
            "model.router.options.distilled.switch_step: expected less than the 100 training steps; received 100",
        ),
    ],
)
def test_steps_that_do_not_go_together(changes, message):
    with pytest.raises(ValueError, match=message):
        config_lib.parse(make(**changes))


def test_settings_that_go_together():
    """A schedule that ends nowhere has no end to compare with; mixup and CutMix go with either loss."""
    config_lib.parse(
        make(optimizer__schedule="constant", optimizer__learning_rate=1e-4, optimizer__end_learning_rate=1)
    )
    for loss in ("softmax", "sigmoid"):
        config_lib.parse(make(train__loss=loss, train__mixup_alpha=0.2, train__cutmix_alpha=1.0))


def test_inform_steps_of_each_layer():
    four_layers = {"model__moe__layers": "every2"}
    router = config_lib.parse(make(model__router__inform=("similarity", "symphony"))).model.router
    assert [router.inform_steps_of(i) for i in range(2)] == [("similarity", "symphony")] * 2
    by_layer = ("attention", "none", ("similarity", "symphony"))
    router = config_lib.parse(make(**four_layers, model__router__inform_by_layer=by_layer)).model.router
    assert [router.inform_steps_of(i) for i in range(4)] == [
        ("attention",),
        (),
        ("similarity", "symphony"),
        ("attention",),  # from the start again
    ]
    assert router.inform_steps == ("attention", "similarity", "symphony")
    assert set(router.options) == {"linear", *router.inform_steps, "top_experts", *router.losses}


def test_the_number_of_steps_is_checked_before_a_run_in_epochs():
    config = config_lib.parse(make(**DISTILLED))
    config_lib.check_duration(config, steps.Duration(1001))
    with pytest.raises(ValueError, match=r"distilled.switch_step: expected less than the 1000 training steps; rec"):
        config_lib.check_duration(config, steps.Duration(1000))


# Layers, devices, arguments.


@pytest.mark.parametrize(
    ("layers", "num_layers", "expected"),
    [
        ("last2", 8, (5, 7)),  # odd blocks are 1, 3, 5, 7
        ("last1", 3, (1,)),
        ("every1", 3, (0, 1, 2)),
        ("every2", 5, (1, 3)),
        ("every3", 8, (2, 5)),
        ("none", 8, ()),
        ((3, 0), 4, (0, 3)),
        ((), 4, ()),
    ],
)
def test_resolve_layers(layers, num_layers, expected):
    assert config_lib.resolve_layers(layers, num_layers) == expected


@pytest.mark.parametrize(
    ("layers", "num_layers"),
    [("last3", 5), ("last0", 4), ("every5", 4), ("every", 4), ("2", 4), ((1, 1), 4), ((4,), 4), ("last1", 1)],
)
def test_bad_layers(layers, num_layers):
    with pytest.raises(ValueError, match=r"^model.moe.layers: expected .*; received "):
        config_lib.resolve_layers(layers, num_layers)


@pytest.mark.parametrize(
    ("mesh", "experts", "num_devices", "expected"),
    [
        ({"expert": 1}, 8, 1, (1, 1, 1)),
        ({"expert": 2}, 8, 8, (4, 1, 2)),
        ({"replica": 2, "expert": 4}, 8, 8, (2, 1, 4)),
        ({"fsdp": 4, "expert": 2}, 8, 16, (2, 4, 2)),
        # chosen: one device, as many experts as devices, more devices than experts, and those that do not go together
        ({}, 8, 1, (1, 1, 1)),
        ({}, 8, 8, (1, 1, 8)),
        ({}, 8, 16, (2, 1, 8)),
        ({}, 8, 4, (1, 1, 4)),
        ({}, 6, 4, (2, 1, 2)),
        ({}, 5, 4, (4, 1, 1)),
        ({"fsdp": 2}, 8, 8, (1, 2, 4)),
        ({"replica": 4}, 8, 8, (4, 1, 2)),
    ],
)
def test_mesh_sizes(mesh, experts, num_devices, expected):
    config = config_lib.parse(make(mesh=mesh, model__moe__num_experts=experts))
    assert config_lib.mesh_sizes(config, num_devices) == dict(zip(("replica", "fsdp", "expert"), expected, strict=True))


@pytest.mark.parametrize(
    ("mesh", "num_slices", "expected"),
    [
        ({}, 2, (2, 1, 8)),  # within a slice of 8, although 16 devices could share out 16 experts
        ({}, 4, (4, 1, 4)),
        ({}, 16, (16, 1, 1)),
        ({"fsdp": 2}, 2, (2, 2, 4)),
        ({"replica": 4}, 2, (4, 1, 4)),
        ({"replica": 1}, 2, (1, 1, 16)),  # as it was said: whether the slices can do it, the mesh says
    ],
)
def test_experts_stay_within_a_slice_unless_told_otherwise(mesh, num_slices, expected):
    config = config_lib.parse(make(mesh=mesh, model__moe__num_experts=16))
    sizes = dict(zip(("replica", "fsdp", "expert"), expected, strict=True))
    assert config_lib.mesh_sizes(config, 16, num_slices) == sizes


def test_experts_that_cannot_be_spread_are_on_every_device():
    for changes in ({"model__moe__dispatch": "ragged"}, {"model__moe__layers": "none"}):
        assert config_lib.mesh_sizes(config_lib.parse(make(**changes)), 8) == {"replica": 8, "fsdp": 1, "expert": 1}


@pytest.mark.parametrize(
    ("changes", "num_devices", "message"),
    [
        ({"mesh__expert": 2}, 3, "mesh.expert: expected a divisor of the 3 devices; received 2"),
        ({"mesh__expert": 8}, 4, "mesh.expert: expected a divisor of the 4 devices; received 8"),
        ({"mesh__fsdp": 4}, 2, "mesh.fsdp: expected a divisor of the 2 devices; received 4"),
        ({"mesh__replica": 3}, 8, "mesh.replica: expected a divisor of the 8 devices; received 3"),
        (
            {"mesh__replica": 2, "mesh__expert": 2},
            8,
            "mesh: expected replica x fsdp x expert = 8 devices; received '2 x 1 x 2'",
        ),
        ({}, 3, "train.batch_size: expected a multiple of 3 devices x 1 sequences of a group; received 128"),
        (
            {"model__moe__group_size_sequences": 64},
            4,
            "train.batch_size: expected a multiple of 4 devices x 64 sequences of a group; received 128",
        ),
        (
            {"train__gradient_accumulation_steps": 32},
            8,
            "train.batch_size: expected .* x 32 accumulation steps; received 128",
        ),
        (
            {"evaluation__batch_size": 100},
            8,
            "evaluation.batch_size: expected a multiple of 8 devices .*; received 100",
        ),
    ],
)
def test_devices_that_do_not_fit(changes, num_devices, message):
    with pytest.raises(ValueError, match=message):
        config_lib.mesh_sizes(config_lib.parse(make(**changes)), num_devices)


def test_evaluation_checks_its_own_batch_only():
    config = config_lib.parse(make(train__batch_size=100))
    config_lib.check_evaluation_batch(config, 8)
    with pytest.raises(ValueError, match=r"evaluation.batch_size: expected a multiple of 3 devices .*; received 256"):
        config_lib.check_evaluation_batch(config, 3)


def test_parse_argument():
    parse = lambda argument: config_lib.parse_argument(argument, router="vmoe", experts="8")
    assert parse(None) == parse("") == {"router": "vmoe", "experts": "8"}
    assert parse("experts=16, router=a=b") == {"router": "a=b", "experts": "16"}


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("vmoe", "config argument: expected a comma list of key=value; received 'vmoe'"),
        ("router=", "config argument: expected a comma list of key=value; received 'router='"),
        ("expert=3", "config argument: expected one of the keys router, experts; received 'expert'"),
        ("router=a,router=b", "config argument: expected the key router once; received 'router=a,router=b'"),
    ],
)
def test_bad_argument(argument, message):
    with pytest.raises(ValueError, match=message):
        config_lib.parse_argument(argument, router="vmoe", experts="8")


# The command line.


def command_line(*arguments):
    """The config that ``--config=configs/digits.py`` and further arguments make."""
    rest, fields = config_files.take_fields(arguments)
    assert rest == []
    return config_files.load(str(DIGITS), fields)


def another(path, value):
    """Another value of a field, as the command line spells it."""
    hint = groups.hint_of([config_lib.ImageConfig], path)
    plain = checks.plain(hint)
    words = [word for choice in (plain, *get_args(plain)) for word in get_args(choice)]
    for text in (
        "7",
        "0.25",
        "true",
        "false",
        "2",
        "c",
        "other",
        "(('head', 2.0),)",
        "(('head', 2),)",
        *map(str, words),
    ):
        try:
            if from_text.value(path, text, hint) not in (value, None):
                return text
        except ValueError:
            continue
    raise AssertionError(f"{path}: no other value")


def test_every_leaf_can_be_set_from_the_command_line():
    before = dict(leaves(command_line().to_dict()))
    # A choice of one, which a later version adds to, has no other value.
    given = {path: another(path, value) for path, value in before.items() if path != "model.inputs"}
    after = dict(leaves(command_line(*(f"--config.{path}={text}" for path, text in given.items())).to_dict()))
    assert after.keys() == before.keys()
    for path, text in given.items():
        assert (
            after[path] == from_text.value(path, text, groups.hint_of([config_lib.ImageConfig], path)) != before[path]
        )


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("model.router.inform", "similarity", "similarity"),
        ("model.router.inform", "('similarity','symphony')", ("similarity", "symphony")),
        ("model.moe.layers", "(1,3)", (1, 3)),
        ("model.moe.layers", "every2", "every2"),
        ("model.representation_size", "64", 64),
        ("optimizer.gradient_clip_norm", "2", 2.0),
        ("optimizer.gradient_clip_norm", "None", None),
        ("optimizer.learning_rate", "1", 1.0),
        ("mesh.replica", "2", 2),
        ("evaluation.every_steps", "50", 50),
        ("evaluation.suites_every_steps", "(('c',5000),('o',500))", (("c", 5000), ("o", 500))),
        ("evaluation.suites", "('clean','c')", ("clean", "c")),
        ("evaluation.suites", "['clean', 'c']", ("clean", "c")),
        ("evaluation.suites", "clean,c", ("clean", "c")),
        ("evaluation.suites", "clean, c", ("clean", "c")),
        ("evaluation.suites", "clean", ("clean",)),
        ("evaluation.suites", "", ()),
        ("evaluation.shots", "1,5", (1, 5)),
        ("evaluation.shots", "5", (5,)),
        ("data.pixel_mean", "0.1,0.2,3", (0.1, 0.2, 3.0)),
        ("model.moe.layers", "1,3", (1, 3)),
        ("model.router.inform", "similarity,symphony", ("similarity", "symphony")),
        ("data.directory", "a,b", "a,b"),
        ("data.train_split", "None", "None"),
    ],
)
def test_overrides_are_parsed_to_the_type_of_the_field(path, text, expected):
    value = config_lib.parse(command_line(f"--config.{path}={text}"))
    for name in path.split("."):
        value = getattr(value, name)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("step", "option", "text", "expected"),
    [
        ("similarity", "temperature", "0.5", 0.5),
        ("similarity", "temperature", "2", 2.0),
        ("similarity", "temperature", "sqrt_dim", "sqrt_dim"),
        ("similarity", "block_size", "16", 16),
        ("similarity", "learned_weight", "true", True),
        ("attention", "sigma", "2", 2.0),
        ("top_experts", "renormalize", "one", "one"),
        ("top_experts", "renormalize", "False", False),
    ],
)
def test_overrides_of_options(step, option, text, expected):
    inform = step if step in ("similarity", "attention") else "none"
    config = command_line(
        f"--config.model.router.inform={inform}", f"--config.model.router.options.{step}.{option}={text}"
    )
    value = config_lib.parse(config).model.router.options[step][option]
    assert value == expected
    assert type(value) is type(expected)


def test_epochs_can_be_exchanged_for_steps():
    config = config_lib.parse(command_line("--config.train.epochs=None", "--config.train.steps=10"))
    assert (config.train.epochs, config.train.steps) == (None, 10)


def test_a_wrong_type_from_the_command_line_is_refused():
    with pytest.raises(ValueError, match=r"train.steps: expected int >= 1 and <= 2147483647 or None; received 'many'"):
        config_lib.parse(command_line("--config.train.steps=many"))


def test_a_config_file_cannot_add_a_key():
    config = config_lib.default()
    with pytest.raises(AttributeError):
        config.model.hiden_size = 8
    assert copy.deepcopy(config) == config_lib.default()


def test_override_replaces_fields_and_nothing_else():
    config = config_lib.parse(make(model__router__options__linear__bias=True, data__directory="there"))
    assert config_lib.override(config, {}) == config
    here = config_lib.override(config, {"data.directory": "here", "evaluation.batch_size": 8, "mesh.replica": 2})
    assert (here.data.directory, here.evaluation.batch_size, here.mesh.replica) == ("here", 8, 2)
    assert config_lib.override(
        here, {"data.directory": "there", "evaluation.batch_size": 256, "mesh.replica": None}
    ) == (config)
    for values, message in (
        ({"data.colour": 1}, "data: expected one of the keys .*; received 'colour'"),
        ({"data.directory.x": "y"}, "data.directory: expected a field without fields of its own"),
        ({"data.num_workers": -1}, "data.num_workers: expected int >= 0 and <= 1024; received -1"),
    ):
        with pytest.raises(ValueError, match=message):
            config_lib.override(config, values)
