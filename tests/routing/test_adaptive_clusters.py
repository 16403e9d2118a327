"""ACMoE: features of tight clusters weigh more, by moving averages that accumulate over the parts of a batch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmoe_inform import config as config_lib
from vmoe_inform import routing
from vmoe_inform.config import presets
from vmoe_inform.routing import contract, steps

STEP = steps.SCORE_STEPS["adaptive_clusters"]
SIZES = dataclasses.replace(contract.SIZES, hidden_size=2, num_experts=3)


def test_a_cluster_learns_its_mean_and_in_which_feature_it_is_tight():
    """The first feature of cluster 0 is 5 give or take 0.1, the second -1 give or take 1; cluster 2 has no tokens."""
    noise = jnp.where(jax.random.bernoulli(jax.random.key(0), 0.5, (4, 50, 2)), 1.0, -1.0) * jnp.array([[[0.1, 1.0]]])
    clusters = jnp.tile(jnp.array([0, 1]), 25)[None].repeat(4, axis=0)
    tokens = jnp.where(clusters[..., None] == 0, jnp.array([[[5.0, -1.0]]]) + noise, 3 * noise[..., ::-1])
    previous = steps.PreviousLayer(jax.nn.one_hot(clusters, 3), clusters[..., None])

    @jax.jit
    def train(state):
        def update(state, _):
            context = steps.StepContext(tokens, {}, state=state, previous=previous)
            observed = STEP.observe(context, previous.indices)
            return STEP.update_state(state, observed, {}, decay=0.9, limit=1.5), None

        return jax.lax.scan(update, state, None, length=60)[0]

    state = train(STEP.initial_state(jax.random.key(0), SIZES, **STEP.option_defaults))
    np.testing.assert_allclose(state["mean"][0], [5.0, -1.0], atol=0.3)
    np.testing.assert_allclose(state["deviation"], [[0.1, 1.0], [3.0, 0.3], [1.0, 1.0]], atol=0.15)
    np.testing.assert_array_equal(state["updates"], [60, 60, 0])
    weights = routing.cluster_weights(state["deviation"], limit=1.5)
    assert weights[0, 0] == pytest.approx(1.5)
    assert weights[1, 1] > weights[1, 0]


def test_the_first_layer_and_the_first_step_route_as_a_linear_router_does():
    inputs = contract.make_inputs(0, STEP, SIZES, STEP.option_defaults)
    start = STEP.initial_state(jax.random.key(0), SIZES, **STEP.option_defaults)
    context = dataclasses.replace(contract.context(inputs), state=start)
    linear = routing.linear_scores(context.tokens, context.parameters["kernel"])
    for here in (context, dataclasses.replace(context, previous=None)):
        np.testing.assert_allclose(STEP.function(here, **STEP.option_defaults), linear, rtol=1e-6)


def test_it_needs_a_second_layer():
    config = config_lib.default()
    presets.set_router(config, "adaptive_clusters_smoe_top2")
    assert presets.find_router("adaptive_clusters_smoe_top2").needs_previous
    config.model.moe.layers = "last1"
    with pytest.raises(ValueError, match=r"model.moe.layers: expected a second MoE layer for .*'adaptive_clusters'.*"):
        config_lib.parse_model(config.model)
    with pytest.raises(ValueError, match=r"limit: expected a number >= 1; received 0\.5"):
        routing.cluster_weights(jnp.ones((2, 2)), limit=0.5)


def test_a_basis_wider_than_the_tokens_is_refused():
    config = config_lib.default()
    presets.set_router(config, "eigenbasis_vmoe@eigenbasis.rank=513")
    with pytest.raises(ValueError, match=r"eigenbasis.rank: expected at most model.hidden_size = 512; received 513"):
        config_lib.parse_model(config.model)
