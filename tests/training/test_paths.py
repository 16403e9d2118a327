"""Parameters that are frozen, or learn and decay at rates of their own, by their paths."""

import pathlib
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import tiny, tiny_text
from vmoe_inform import config as config_lib
from vmoe_inform.nn import models
from vmoe_inform.runs import run as runs
from vmoe_inform.sharding.rules import path_name
from vmoe_inform.training import loop, paths
from vmoe_inform.training import program as program_lib
from vmoe_inform.training.optimizer import make_optimizer

PARAMS = {
    "patch_embedding": {"kernel": jnp.ones(2), "bias": jnp.ones(2)},
    "block_1": {"moe": {"router": {"linear": {"kernel": jnp.ones(2)}}, "experts": {"kernel": jnp.ones(2)}}},
    "head": {"kernel": jnp.full(2, -0.0), "bias": jnp.ones(2)},
}
STATES = {"block_1": {"moe": {"router": {"symphony": {"state": jnp.ones(2)}}}}}


def settings(**overrides):
    constant = {"schedule": "constant", "warmup_steps": 0, "learning_rate": 0.5, "weight_decay": 0.0}
    fields = {f"optimizer__{name}": value for name, value in (constant | overrides).items()}
    return config_lib.parse(tiny.config_dict(**fields)).optimizer


def names(tree):
    return [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"frozen": ("head", "embeding")},
            r"optimizer.frozen: expected a pattern found in the path of some parameter, such as patch_embedding.*; "
            "received 'embeding'",
        ),
        ({"multipliers": (("haed", 2.0),)}, r"optimizer.multipliers: expected .* such as head.*; received 'haed'"),
        ({"multipliers": (("symphony", 2.0),)}, r"optimizer.multipliers: .* received 'symphony'"),  # a state
        ({"weight_decay": 0.1, "weight_decay_pattern": "weight$"}, "optimizer.weight_decay_pattern: .* 'weight\\$'"),
        (
            {"weight_decay": 0.1, "weight_decay_multipliers": (("expert/", 0.0),)},
            "optimizer.weight_decay_multipliers: .* such as experts.*; received 'expert/'",
        ),
        ({"frozen": ("kernel", "bias")}, "optimizer.frozen: expected patterns that leave some parameter to train"),
        ({"trained_first": ("ruoter",), "trained_first_steps": 2}, r"optimizer.trained_first: .* 'ruoter'"),
        (
            {"trained_first": ("router",), "trained_first_steps": 2, "frozen": ("moe",)},
            r"optimizer.trained_first: expected parameters that are not frozen; received \('router',\)",
        ),
    ],
)
def test_patterns_that_mean_nothing(changes, message):
    with pytest.raises(ValueError, match=message):
        paths.check(settings(**changes), PARAMS, STATES)


def test_patterns_that_mean_something():
    paths.check(settings(frozen=("symphony", "^head/bias$")), PARAMS, STATES)
    paths.check(settings(weight_decay_pattern="none of these"), PARAMS, STATES)  # without weight decay


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frozen": ("(",)}, r"optimizer.frozen: expected a regular expression \(.*; received '\('"),
        ({"frozen": (3,)}, r"optimizer.frozen: expected tuple of string .*; received \(3,\)"),
        ({"multipliers": (("head", 0.0),)}, r"optimizer.multipliers: expected tuple of \(string .*, float > 0"),
        ({"multipliers": (("head",),)}, r"optimizer.multipliers: expected tuple of \(string .*, float > 0"),
        ({"multipliers": (("[", 1.0),)}, "optimizer.multipliers: expected a regular expression"),
        ({"layer_decay": 0.0}, r"optimizer.layer_decay: expected float > 0 and <= 1; received 0.0"),
        ({"layer_decay": 1.1}, r"optimizer.layer_decay: expected float > 0 and <= 1; received 1.1"),
        ({"trained_first": ("(",), "trained_first_steps": 2}, "optimizer.trained_first: expected a regular expression"),
        ({"trained_first": ("head",)}, r"optimizer: expected trained_first together with trained_first_steps, or nei"),
        ({"trained_first_steps": 3}, r"optimizer: expected trained_first together with trained_first_steps, or neith"),
        (
            {"weight_decay_multipliers": (("head", 2.0),)},
            "optimizer.weight_decay_multipliers: expected none with optimizer.weight_decay = 0",
        ),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        settings(**changes)


def test_of_several_multipliers_the_first_that_matches_counts():
    optimizer = make_optimizer(
        settings(
            weight_decay=0.1, multipliers=(("head", 10.0), ("kernel", 0.1)), weight_decay_multipliers=(("moe", 3.0),)
        ),
        20,
    )
    params = jax.tree.map(jnp.ones_like, PARAMS)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    # Adam's update of a zero gradient is zero; what is left is the decay, -0.5 * 0.1 of kernels, times both factors.
    found = {name: float(leaf[0]) for name, leaf in zip(names(updates), jax.tree.leaves(updates), strict=True)}
    assert found == pytest.approx(
        {
            "block_1/moe/experts/kernel": -0.05 * 3 * 0.1,
            "block_1/moe/router/linear/kernel": -0.05 * 3 * 0.1,
            "head/bias": 0.0,
            "head/kernel": -0.05 * 10,
            "patch_embedding/bias": 0.0,
            "patch_embedding/kernel": -0.05 * 0.1,
        }
    )


def _updates(optimizer, params, **extra):
    """Of a gradient of one everywhere, by path."""
    gradients = jax.tree.map(jnp.ones_like, params)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params, **extra)
    return {name: float(leaf[0]) for name, leaf in zip(names(updates), jax.tree.leaves(updates), strict=True)}


def test_rates_fall_from_layer_to_layer_also_where_some_are_frozen():
    """Of two blocks; by 0.5 each. The last one is frozen and counts, and multipliers come on top."""
    params = jax.tree.map(jnp.ones_like, PARAMS) | {"block_0": {"mlp": {"kernel": jnp.ones(2)}}}
    optimizer = make_optimizer(
        settings(
            name="sgd", gradient_clip_norm=None, layer_decay=0.5, frozen=("block_1",), multipliers=(("head/bias", 3.0),)
        ),
        20,
    )
    assert _updates(optimizer, params) == pytest.approx(
        {
            "block_0/mlp/kernel": -0.5 * 0.5**2,
            "block_1/moe/experts/kernel": 0.0,
            "block_1/moe/router/linear/kernel": 0.0,
            "head/bias": -0.5 * 3,
            "head/kernel": -0.5,
            "patch_embedding/bias": -0.5 * 0.5**3,
            "patch_embedding/kernel": -0.5 * 0.5**3,
        }
    )


@pytest.mark.parametrize("config", [tiny.config_dict(), tiny_text.config_dict(pathlib.Path())], ids=["image", "text"])
def test_every_parameter_is_in_a_layer(config):
    """An embedding of another name than trunk.py lists would learn as fast as the head."""
    model = models.from_config(config.model)
    params = jax.eval_shape(lambda: models.initialize(model, jax.random.key(0)))["params"]
    whole = {
        name
        for name, factor in params.items()
        if set(jax.tree.leaves(paths.layer_factors({name: factor}, 0.5))) == {1.0}
    }
    assert whole <= {"encoder_norm", "final_norm", "head"}


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_what_is_trained_first_learns_alone_for_the_first_steps(name):
    optimizer = make_optimizer(
        settings(name=name, weight_decay=0.1, trained_first=("router", "^head"), trained_first_steps=3), 20
    )
    params = jax.tree.map(jnp.ones_like, PARAMS)
    alone = {path for path in names(params) if re.search("router|^head", path)}
    for step in (0, 2, 3):
        updates = _updates(optimizer, params, step=jnp.int32(step))
        assert {path for path, update in updates.items() if update} == (alone if step < 3 else set(updates))
    with pytest.raises(ValueError, match=r"optimizer.trained_first_steps: expected less than the 3 training steps"):
        make_optimizer(settings(trained_first=("head",), trained_first_steps=3), 3)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_what_is_frozen_has_no_state_no_update_and_no_part_in_the_norm(name):
    optimizer = make_optimizer(
        settings(name=name, weight_decay=0.1, gradient_clip_norm=1.0, frozen=("router", "embedding")), 20
    )
    state = optimizer.init(PARAMS)
    assert not [path for path in names(state) if re.search("router|embedding", path)]
    assert [path for path in names(state) if path.endswith("head/kernel")]
    gradients = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e6), PARAMS)
    gradients |= {"head": {"kernel": jnp.array([3.0, 4.0]), "bias": jnp.zeros(2)}}
    gradients["block_1"]["moe"]["experts"]["kernel"] = jnp.zeros(2)
    updates, state = optimizer.update(gradients, state, PARAMS)
    assert not updates["patch_embedding"]["kernel"].any()
    assert not updates["block_1"]["moe"]["router"]["linear"]["kernel"].any()
    moment = optax.tree.get(state, "mu" if name == "adamw" else "trace")["head"]["kernel"]
    np.testing.assert_allclose(moment, np.array([0.6, 0.8]) * (0.1 if name == "adamw" else 1.0), rtol=1e-5)


def test_the_backward_pass_ends_where_all_below_is_frozen():
    def flops(**changes):
        config = config_lib.parse(tiny.config_dict(optimizer__name="sgd", **changes))
        program = program_lib.build(config, 20, jax.devices()[:1])
        with program.in_use():
            return program.train_step.lower(program.state_shapes, program.batch_shapes).cost_analysis()["flops"]

    everything = flops()
    assert flops(optimizer__frozen=("^(?!head)",)) < 0.5 * everything
    accumulated = {"train__gradient_accumulation_steps": 2}
    assert flops(**accumulated, optimizer__frozen=("^(?!head)",)) < 0.5 * everything


def test_a_run_whose_batches_are_accumulated():
    config = config_lib.parse(
        tiny.config_dict(
            train__gradient_accumulation_steps=2, optimizer__frozen=("moe", "norm"), optimizer__warmup_steps=0
        )
    )
    program = program_lib.build(config, 20, jax.devices()[:1])
    random = np.random.default_rng(0)
    batch = {"image": random.integers(0, 256, (16, 32, 32, 3), np.uint8), "label": np.arange(16, dtype=np.int32) % 10}
    with program.in_use():
        state = program.initialize()
        before = jax.device_get(state.params)
        for _ in range(3):
            state, _ = program.train_step(state, program.to_devices(batch))
    _assert_frozen(before, jax.device_get(state.params), "moe|norm")
    frozen = [
        leaf.size
        for name, leaf in zip(names(before), jax.tree.leaves(before), strict=True)
        if re.search("moe|norm", name)
    ]
    assert program.num_frozen == sum(frozen)  # which the log and the dry run say


def _assert_frozen(before, after, pattern):
    """What the pattern is found in is the same to the last bit, all else is not."""
    for name, old, new in zip(names(before), jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        same = np.asarray(old).tobytes() == np.asarray(new).tobytes()
        assert same == (re.search(pattern, name) is not None), name


def test_fine_tuning_a_run_from_which_parts_are_frozen_also_after_a_restart(tmp_path):
    """With a moving average, Symphony's state, parameters in parts on several devices, and negative zeros."""
    options = {"router": "symphony_vmoe", "train__ema_decay": 0.9}
    loop.train(config_lib.parse(tiny.config_dict(**options)), tmp_path / "source", stop_at_step=3)
    start = runs.load(tmp_path / "source").variables
    config = config_lib.parse(
        tiny.config_dict(
            **options,
            train__initial_checkpoint=str(tmp_path / "source"),
            optimizer__weight_decay=0.1,
            optimizer__frozen=("embedding", "router", "block_0"),
            optimizer__multipliers=(("head", 10.0),),
            mesh__fsdp=2,
        )
    )
    whole = loop.train(config, tmp_path / "whole", stop_at_step=6).state
    for params in (whole.params, whole.ema_params):
        _assert_frozen(start["params"], jax.device_get(params), "embedding|router|block_0")
    chex.assert_trees_all_equal(start["routing"], jax.device_get(whole.routing))
    loop.train(config, tmp_path / "parts", stop_at_step=4)
    chex.assert_trees_all_equal(loop.train(config, tmp_path / "parts", stop_at_step=6).state, whole)
