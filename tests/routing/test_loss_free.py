"""Loss-free balancing: the bias moves the choice, never the weights, and evens out the loads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmoe_inform import routing
from vmoe_inform.routing import steps

STEP = steps.SELECT_STEPS["biased_top_experts"]


def test_the_bias_decides_who_is_chosen_and_not_how_much_it_weighs():
    # The biased ones are 0.4, 0.9 and 0.5; the weights of the last two are 0.2 and 0.3 of 0.5.
    weights, indices = routing.biased_top_experts(jnp.array([[0.4, 0.2, 0.3]]), jnp.array([0.0, 0.7, 0.2]), 2)
    assert indices.tolist() == [[1, 2]]
    np.testing.assert_allclose(weights, [[0.4, 0.6]], rtol=1e-6)
    weights, _ = routing.biased_top_experts(
        jnp.array([[0.4, 0.2, 0.3]]), jnp.array([0.0, 0.7, 0.2]), 2, renormalize=False, active=jnp.array(1)
    )
    np.testing.assert_allclose(weights, [[0.2, 0.0]], rtol=1e-6)


def test_updates_even_out_loads_that_all_go_to_one_expert():
    probabilities = jax.nn.sigmoid(jax.random.normal(jax.random.key(0), (256, 4)) + jnp.array([[3.0, 1.0, 0.0, -1.0]]))

    @jax.jit
    def train(bias):
        def update(bias, _):
            counts = jnp.sum(jax.nn.one_hot(routing.biased_top_experts(probabilities, bias, 1)[1], 4), axis=(0, 1))
            return routing.balanced_bias(bias, counts, rate=0.01), counts

        return jax.lax.scan(update, bias, None, length=150)[1]

    counts = train(jnp.zeros(4))
    assert counts[0, 0] > 200
    np.testing.assert_allclose(counts[-1], 64, atol=16)


def test_only_choices_of_real_tokens_count_with_a_slot_or_without():
    logits = jnp.array([[[2.0, 1.0, 0.0]] * 3])
    real = jnp.array([[True, True, False]])
    context = steps.SelectContext(k=2, capacity=1, logits=logits, real=real, state=jnp.zeros(3))
    plan = STEP.function(jax.nn.softmax(logits), context)
    assert plan.kept.sum() == 2
    np.testing.assert_array_equal(STEP.observe(plan, context, **STEP.option_defaults), [2.0, 2.0, 0.0])


@pytest.mark.usefixtures("shapes_unchecked")
def test_bad_input():
    with pytest.raises(ValueError, match=r"bias: expected shape \[3\]; received \[2\]"):
        routing.biased_top_experts(jnp.ones((1, 3)), jnp.ones(2), 1)
    with pytest.raises(ValueError, match=r"rate: expected a number > 0 .*; received 0.0"):
        routing.balanced_bias(jnp.ones(2), jnp.ones(2), rate=0.0)
    with pytest.raises(ValueError, match=r"counts: expected shape \[2\]; received \[3\]"):
        routing.balanced_bias(jnp.ones(2), jnp.ones(3), rate=0.1)
