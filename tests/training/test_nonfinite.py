"""Steps whose loss or gradient is not finite."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform.nn import models
from vmoe_inform.runs import state
from vmoe_inform.training import nonfinite
from vmoe_inform.training.nonfinite import WHERE, StepWatch
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


def _metrics(where: int, loss: float = 1.0, norm: float = 1.0) -> dict[str, jax.Array]:
    return {WHERE: jnp.int32(where), "loss": jnp.float32(loss), "gradient_norm": jnp.float32(norm)}


def test_the_step_and_the_group_are_named():
    watch = StepWatch(PARAMS, max_in_a_row=0)
    watch.look(1, _metrics(-1))
    message = r"gradient_norm: expected a finite number; received inf at step 2; .* not finite: block_2/mlp$"
    with pytest.raises(FloatingPointError, match=message):
        watch.look(2, _metrics(3, norm=float("inf")))
    watch = StepWatch(PARAMS, max_in_a_row=0)
    with pytest.raises(FloatingPointError, match=r"loss: .* received nan at step 5; .* not finite: none$"):
        watch.look(5, _metrics(len(GROUPS), loss=float("nan")))


def test_only_steps_in_a_row_stop_the_run():
    watch = StepWatch(PARAMS, max_in_a_row=2)
    for step, where in enumerate([0, 0, -1, 0, 0], start=1):
        watch.look(step, _metrics(where, loss=float("nan")))
    assert watch.skipped == 4
    with pytest.raises(FloatingPointError, match=r"at step 6; .* not finite: head \(3 steps in a row\)"):
        watch.look(6, _metrics(0, loss=float("nan")))


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
    step = jax.jit(make_train_step(model, optimizer, make_schedule(config.optimizer, 20), config, 20))
    images = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype(np.float32)
    good = {"image": images, "label": np.arange(4, dtype=np.int32)}
    bad = {**good, "image": np.where(np.arange(32 * 32 * 3).reshape(32, 32, 3) == 0, np.nan, images)}
    begin = state.create(model, optimizer, seed=jnp.uint32(0), ema=True)
    one, metrics = step(begin, good)
    assert metrics[WHERE] == -1
    skipped, metrics = step(one, bad)
    assert metrics[WHERE] == 0
    assert np.isnan(metrics["loss"])
    chex.assert_trees_all_equal(skipped, dataclasses.replace(one, step=one.step + 1))
    after, metrics = step(skipped, good)
    assert metrics[WHERE] == -1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
    moved = optax.tree.norm(jax.tree.map(jnp.subtract, after.params, skipped.params))
    assert moved > 0
    # The learning rate that was applied is the logged one, of step 2: twice that of step 1 in the warm-up.
    np.testing.assert_allclose(moved / metrics["gradient_norm"], metrics["learning_rate"], rtol=1e-3)
    np.testing.assert_allclose(metrics["learning_rate"], make_schedule(config.optimizer, 20)(2))
