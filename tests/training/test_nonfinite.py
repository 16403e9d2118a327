"""Steps whose loss or gradient is not finite."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np

from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform import tasks
from vmoe_inform.nn import models
from vmoe_inform.routing.steps import Duration
from vmoe_inform.runs import state
from vmoe_inform.training import nonfinite
from vmoe_inform.training.nonfinite import WHERE
from vmoe_inform.training.optimizer import make_optimizer, make_schedule
from vmoe_inform.training.step import make_train_step

PARAMS = {
    "block_0": {"attention": {"key": jnp.ones(2)}, "mlp": {"hidden": jnp.ones(2)}},
    "block_10": {"moe": {"router": jnp.ones(2)}, "attention_norm": {"scale": jnp.ones(2)}},
    "block_2": {"mlp": {"hidden": jnp.ones(2)}},
    "head": {"kernel": jnp.ones(2)},
    "patch_embedding": {"kernel": jnp.ones(2)},
}
GROUPS = [
    "head",
    "block_10/moe",
    "block_10/attention_norm",
    "block_2/mlp",
    "block_0/mlp",
    "block_0/attention",
    "patch_embedding",
]


def test_groups_are_in_the_order_of_the_backward_pass():
    assert list(nonfinite.parameter_groups(PARAMS)) == GROUPS


def test_the_first_group_is_found():
    fine, loss = PARAMS, jnp.float32(1.0)
    assert nonfinite.where(loss, fine) == -1
    assert nonfinite.where(jnp.float32(jnp.inf), fine) == len(GROUPS)
    for bad in (jnp.nan, jnp.inf, 1e30):  # the square of the last is too large for float32
        broken = {**fine, "block_2": {"mlp": {"hidden": jnp.array([1.0, bad])}}}
        broken["patch_embedding"] = {"kernel": jnp.array([jnp.nan, 1.0])}
        assert nonfinite.where(loss, broken) == GROUPS.index("block_2/mlp")


def _squared_distance(one, other):
    return np.sum(np.square(np.subtract(one, other)))


def test_a_nan_batch_changes_nothing_but_the_step():
    """With float images, which real data never are, a NaN can be put into a batch."""
    plain = {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0, "gradient_clip_norm": None}
    config = config_lib.parse(
        tiny.config_dict(
            "symphony_vmoe",
            train__max_nonfinite_steps=1,
            train__ema_decay=0.9,
            **{f"optimizer__{name}": value for name, value in plain.items()},
        )
    )
    model, optimizer = models.from_config(config.model), make_optimizer(config.optimizer, 20)
    task, schedule = tasks.from_config(config), make_schedule(config.optimizer, 20)
    step = jax.jit(make_train_step(model, task, optimizer, schedule, config, Duration(20)))
    images = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype(np.float32)
    good = {"image": images, "label": np.arange(4, dtype=np.int32)}
    bad = {**good, "image": np.where(np.arange(32 * 32 * 3).reshape(32, 32, 3) == 0, np.nan, images)}
    begin = jax.jit(lambda seed: state.create(model, optimizer, seed=seed, ema=True))(jnp.uint32(0))
    one, metrics = step(begin, good)
    assert metrics[WHERE] == -1
    skipped, metrics = step(one, bad)
    assert metrics[WHERE] == 0
    assert np.isnan(metrics["loss"])
    chex.assert_trees_all_equal(skipped, dataclasses.replace(one, step=one.step + 1))
    after, metrics = step(skipped, good)
    assert metrics[WHERE] == -1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
    moved = np.sqrt(sum(map(_squared_distance, *map(jax.tree.leaves, (after.params, skipped.params)))))
    assert moved > 0
    # The learning rate that was applied is the logged one, of step 2: twice that of step 1 in the warm-up.
    np.testing.assert_allclose(moved / metrics["gradient_norm"], metrics["learning_rate"], rtol=1e-3)
    np.testing.assert_allclose(metrics["learning_rate"], make_schedule(config.optimizer, 20)(2))
