"""What a block keeps for the gradient changes memory and nothing else."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vmoe_inform.nn import models
from vmoe_inform.nn.router import TRACE
from vmoe_inform.nn.step_variables import OBSERVED, STATE

REMAT = pytest.mark.parametrize("remat", ["dots", "full"])


def make_model(remat):
    """A router with a state, noise, and every kind of dropout, so that a block computed twice could differ."""
    config = tiny.config_dict("symphony_xmoe", model__remat=remat, model__num_layers=1, model__moe__layers=(0,)).model
    config.dropout_rate = config.attention_dropout_rate = config.moe.expert_dropout_rate = 0.1
    return models.from_config(config)


@functools.cache
def variables():
    start = tiny.variables(make_model("none"))
    # The head begins at zero, with which no gradient would reach the blocks.
    head = start["params"]["head"]
    head["kernel"] = 0.1 * jax.random.normal(jax.random.key(1), head["kernel"].shape)
    return start


def images():
    return jnp.asarray(np.random.default_rng(0).normal(size=(4, 32, 32, 3)), jnp.float32)


def objective(remat, params, state, images):
    keys = {"routing": jax.random.key(2), "dropout": jax.random.key(3)}
    (logits, aux), left = make_model(remat).apply(
        {"params": params, STATE: state}, images, train=True, mutable=[OBSERVED], rngs=keys
    )
    return jnp.sum(logits**2) + aux["auxiliary_loss"], (left[OBSERVED], aux)


@functools.cache
def trained(remat):
    function = jax.value_and_grad(functools.partial(objective, remat), has_aux=True)
    return jax.device_get(jax.jit(function)(variables()["params"], variables()[STATE], images()))


@REMAT
def test_loss_gradients_and_observations_are_the_same(remat):
    """Dropout and noise too; and nothing is observed twice where a block is computed again."""
    (_, (observed, _)), gradients = trained("none")
    chex.assert_trees_all_close(trained(remat), trained("none"), rtol=1e-4, atol=1e-5)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradients["block_0"])) > 0.01
    assert all(np.any(leaf) for leaf in jax.tree.leaves(observed))


@REMAT
def test_names_and_shapes_of_the_variables_are_the_same(remat):
    shapes = jax.eval_shape(functools.partial(models.initialize, make_model(remat)), jax.random.key(0))
    chex.assert_trees_all_equal_shapes_and_dtypes(shapes, variables())


def test_traces_come_out():
    def trace(remat):
        function = functools.partial(make_model(remat).apply, train=False, mutable=[TRACE])
        return jax.device_get(jax.jit(function)(variables(), images())[1][TRACE])

    found = trace("full")
    assert set(found["block_0"]["moe"]) == {"routing", "preferences", "weights", "indices", "load", "dropped"}
    chex.assert_trees_all_close(found, trace("none"), rtol=1e-5, atol=1e-6)


def kept_bytes(remat):
    """What the forward pass leaves for the backward pass, parameters and images included."""

    def pullback(params, state, images):
        return jax.vjp(lambda params: objective(remat, params, state, images)[0], params)[1]

    left = jax.eval_shape(pullback, variables()["params"], variables()[STATE], images())
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(left))


def test_less_is_kept():
    everything, dots, inputs = map(kept_bytes, ("none", "dots", "full"))
    params = sum(leaf.size * 4 for leaf in jax.tree.leaves(variables()["params"]))
    assert everything > 1.5 * dots
    assert dots > inputs
    # Of the one block: its input, [4, 5, 16]; of the rest what the head and the patches need.
    assert inputs - params < 100_000
