"""What informing costs in a causal model: operations of a block at N = 512, D = 352, over those of the plain one."""

import functools

import jax
import jax.numpy as jnp
import pytest

from vmoe_inform import config as config_lib
from vmoe_inform.axes import Array, Tree
from vmoe_inform.config import presets
from vmoe_inform.nn import cache, models

MOST = {
    "similarity_smoe_top2": 1.15,
    "symphony_smoe_top2": 1.01,
    "attention_smoe_top2@attention.heads=running": 1.15,
    "attention_smoe_top2": 1.50,  # prefix: all heads
}


def built_with(router: str) -> models.Model:
    """A block with 16 experts as wide as itself, in training with as many slots as choices: no work for empty ones."""
    config = config_lib.default("tokens")
    model = config.model
    model.num_layers, model.hidden_size, model.mlp_size, model.num_heads, model.num_tokens = 1, 352, 352, 8, 512
    model.num_classes, model.vocabulary_size = 2, 8  # next to no head
    model.moe.num_experts, model.moe.capacity_factor, model.moe.dispatch = 16, 1.0, "gather"
    presets.set_router(config, router)
    return models.from_config(model)


@functools.cache
def operations(router: str, *, compiled: bool) -> float:
    """Of a forward pass."""
    built = built_with(router)
    variables = jax.eval_shape(functools.partial(models.initialize, built), jax.random.key(0))
    apply = jax.jit(lambda variables, tokens: built.apply(variables, tokens, train=True)[0])
    program = apply.lower(variables, jax.ShapeDtypeStruct((8, 512), jnp.int32))
    return (program.compile() if compiled else program).cost_analysis()["flops"]


@pytest.mark.parametrize("router", MOST)
@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_cost_of_informing(router, compiled):
    plain = operations("smoe_top2", compiled=compiled)
    assert plain < operations(router, compiled=compiled) <= MOST[router] * plain


@functools.cache
def operations_of_next_token(router: str) -> float:
    """Of a pass over one token, of which the model has read up to 511 before."""
    built = built_with(router)

    def apply(variables: Tree, kept: Tree, token: Array) -> Tree:
        return built.apply({**variables, **kept}, token, mutable=[cache.CACHE])

    variables = jax.eval_shape(functools.partial(models.initialize, built), jax.random.key(0))
    token = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    _, kept = jax.eval_shape(apply, variables, {}, token)
    return jax.jit(apply).lower(variables, kept, token).cost_analysis()["flops"]


@pytest.mark.parametrize("router", MOST)
def test_one_token_more_costs_one_row_of_the_graph(router):
    plain = operations_of_next_token("smoe_top2")
    assert plain < operations_of_next_token(router) <= MOST[router] * plain
