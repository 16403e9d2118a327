"""What a step of the router is handed by its layer."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmoe_inform import config as config_lib
from vmoe_inform.nn.router import Router, Surroundings
from vmoe_inform.nn.step_variables import OBSERVED, update_states
from vmoe_inform.routing import contract, steps

B, N, D, E = 2, contract.SIZES.num_tokens, contract.SIZES.hidden_size, contract.SIZES.num_experts
TOKENS = jax.random.normal(jax.random.key(0), (B, N, D))


def half_of_previous(given, context):
    """Half of what the layer before decided; nothing of it in the first layer, which has none."""
    return given if context.previous is None else 0.5 * (given + context.previous.probabilities)


def score(context):
    return half_of_previous(context.tokens @ jnp.ones((D, E)), context)


def route(ordinal, previous, **fields):
    """The routing of one layer, of a router without noise."""
    options = {name: dict(step.option_defaults) for name, step in steps.all_steps().items()}
    config = config_lib.RouterConfig(noise_std=0.0, options=options, **fields)
    router = Router(config, contract.SIZES, ordinal)
    around = Surroundings(previous=previous)
    variables = router.init(jax.random.key(0), TOKENS, around, train=False)
    return router.apply(variables, TOKENS, around, train=False), variables


def test_a_step_that_needs_the_layer_before_gets_none_in_the_first_and_acts(monkeypatch):
    declared = {"needs_previous": True}
    monkeypatch.setitem(steps.SCORE_STEPS._entries, "scored", steps.ScoreStep("scored", score, **declared))
    informed = steps.InformStep("informed", half_of_previous, **declared)
    monkeypatch.setitem(steps.INFORM_STEPS._entries, "informed", informed)
    contract.check("informed")
    first, _ = route(0, None, score="scored", inform="informed")
    np.testing.assert_array_equal(first.logits, TOKENS @ jnp.ones((D, E)))
    np.testing.assert_array_equal(first.informed, jax.nn.softmax(first.logits))
    second, _ = route(1, first.previous(), score="scored", inform="informed")
    logits = 0.5 * (first.logits + first.informed)
    np.testing.assert_allclose(second.logits, logits, rtol=1e-6)
    np.testing.assert_allclose(second.informed, 0.5 * (jax.nn.softmax(logits) + first.informed), rtol=1e-5)
    with pytest.raises(ValueError, match="previous: expected what the router step 'scored' needs; received None"):
        route(1, None, score="scored")


def test_a_step_that_skips_the_first_layer_has_no_state_there():
    first, variables = route(0, None, inform="symphony_across_layers")
    assert set(variables) == {"params"}
    np.testing.assert_array_equal(first.informed, jax.nn.softmax(first.logits))
    _, variables = route(1, first.previous(), inform="symphony_across_layers")
    assert set(variables) == {"params", "routing"}


def test_a_select_step_observes_in_training_what_was_chosen_in_the_end():
    """The choice after inform steps and bias, of the sum of all tokens; evaluation leaves nothing."""
    sizes = dataclasses.replace(contract.SIZES, num_experts=3)
    options = {name: dict(step.option_defaults) for name, step in steps.all_steps().items()}
    config = config_lib.RouterConfig(score="sigmoid", select="biased_top_experts", noise_std=0.0, options=options)

    class Layer(nn.Module):
        @nn.compact
        def __call__(self, tokens, *, train):
            router = Router(config, sizes, name="router")
            routing = router(tokens, Surroundings(), train=train)
            about = {"capacity": N, "groups": B, "batch_priority": False, "real": None}
            return routing, router.select(routing, train=train, **about)

    variables = Layer().init(jax.random.key(0), TOKENS, train=False)
    state = variables["routing"]["router"]["biased_top_experts"]
    np.testing.assert_array_equal(state["state"], jnp.zeros(3))
    biased = {**variables, "routing": {"router": {"biased_top_experts": {"state": jnp.array([5.0, 0.0, 4.0])}}}}
    (routing, selection), left = Layer().apply(biased, TOKENS, train=True, mutable=[OBSERVED])
    np.testing.assert_array_equal(routing.informed, jax.nn.sigmoid(routing.logits))
    assert set(np.unique(selection.plan.indices)) == {0, 2}
    biased_probabilities = routing.informed + jnp.array([[[5.0, 0.0, 4.0]]])
    sums = jnp.sum(routing.informed, axis=-1, keepdims=True)  # margins are those of probabilities that sum to 1
    np.testing.assert_allclose(selection.preferences, biased_probabilities / sums, rtol=1e-6)
    np.testing.assert_array_equal(left[OBSERVED]["router"]["biased_top_experts"]["observed"], [B * N, 0, B * N])
    _, left = Layer().apply(biased, TOKENS, train=False, mutable=[OBSERVED])
    assert not left.get(OBSERVED)
    after = update_states(config, {}, biased["routing"], {"router": {"biased_top_experts": {"observed": jnp.ones(3)}}})
    np.testing.assert_array_equal(after["router"]["biased_top_experts"]["state"], [5.0, 0.0, 4.0])
