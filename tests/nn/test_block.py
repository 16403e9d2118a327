"""Stochastic depth (arXiv 1603.09382); what a block computes is shown in tests/nn/test_models.py."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform.nn import models
from vmoe_inform.nn.block import Block
from vmoe_inform.nn.router import Surroundings
from vmoe_inform.sharding.mesh import batch_sharding, make_mesh

_TOKENS = jax.random.normal(jax.random.key(0), (64, 5, 16))


def _dense(drop_rate: float) -> Block:
    return Block(config_lib.parse_model(tiny.config_dict().model), None, drop_rate)


@pytest.fixture(scope="module")
def variables():
    """Of a dense block; biases of 1, so that no branch is near zero."""
    fresh = _dense(0.0).init(jax.random.key(1), _TOKENS, Surroundings(), train=False)
    return jax.tree.map(lambda leaf: leaf + 1.0 if leaf.ndim == 1 else leaf, fresh)


def _trained(variables, tokens, drop_rate=0.5):
    rngs = {"dropout": jax.random.key(2)}
    return _dense(drop_rate).apply(variables, tokens, Surroundings(), train=True, rngs=rngs)[0]


def test_each_branch_of_an_image_is_doubled_or_left_out(variables):
    """At rate 1/2 a branch counts 0 or 1 / (1 - 1/2) = 2 times, in four ways: as if its last layer were 0 or twice."""

    @jax.jit
    def scaled(attention, mlp):
        params = dict(variables["params"])
        for name, factor in (("attention", attention), ("mlp", mlp)):
            last = jax.tree.map(lambda leaf, factor=factor: factor * leaf, params[name]["output"])
            params[name] = {**params[name], "output": last}
        return _dense(0.5).apply({"params": params}, _TOKENS, Surroundings(), train=False)[0]

    ways = np.stack([scaled(*factors) for factors in itertools.product((0.0, 2.0), repeat=2)])  # [4, B, N, D]
    found = np.abs(ways - np.asarray(jax.jit(_trained)(variables, _TOKENS))).max(axis=(2, 3)) < 1e-4  # [4, B]
    np.testing.assert_array_equal(found.sum(axis=0), 1)
    # 16 of 64 expected in each; fewer than 6 or more than 28 has a probability below 0.002.
    assert np.all((found.sum(axis=1) >= 6) & (found.sum(axis=1) <= 28))


def test_eight_devices_draw_what_one_draws(variables):
    tokens = jax.device_put(_TOKENS, batch_sharding(make_mesh(8, 1)))
    np.testing.assert_allclose(
        jax.jit(_trained)(variables, tokens), jax.jit(_trained)(variables, _TOKENS), rtol=1e-5, atol=1e-5
    )


def test_without_it_and_in_evaluation_nothing_changes():
    plain, deep = (models.from_config(tiny.config_dict(model__stochastic_depth_rate=rate).model) for rate in (0.0, 0.9))
    variables = jax.eval_shape(lambda: models.initialize(plain, jax.random.key(0)))
    chex.assert_trees_all_equal(variables, jax.eval_shape(lambda: models.initialize(deep, jax.random.key(0))))
    images, rngs = jnp.zeros((4, 32, 32, 3)), {"routing": jax.random.key(5)}
    programs = [str(jax.make_jaxpr(model.apply)(variables, images)) for model in (plain, deep)]
    assert programs[0] == programs[1]
    # Without it training needs no random stream for it.
    jax.eval_shape(lambda v: plain.apply(v, images, train=True, rngs=rngs), variables)
    with pytest.raises(Exception, match="dropout"):
        jax.eval_shape(lambda v: deep.apply(v, images, train=True, rngs=rngs), variables)


def test_the_rate_grows_from_the_first_block_to_the_last(monkeypatch):
    rates = []
    original = Block.__call__

    def spy(self, *arguments, **options):
        rates.append(self.drop_rate)
        return original(self, *arguments, **options)

    monkeypatch.setattr(Block, "__call__", spy)
    config = tiny.config_dict(model__num_layers=3, model__stochastic_depth_rate=0.2, model__remat="none").model
    model = models.from_config(config)
    jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((2, 32, 32, 3)))
    assert rates == [0.0, 0.1, 0.2]
