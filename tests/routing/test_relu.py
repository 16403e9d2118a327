"""ReMoE: as many experts as are positive, K of them on average by a loss whose coefficient adapts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmoe_inform import routing
from vmoe_inform.dispatch import DISPATCHERS, carry_out
from vmoe_inform.routing import steps

STEP = steps.SELECT_STEPS["positive_experts"]


def test_the_coefficient_leads_to_k_experts_on_average():
    """From half of eight experts to two, against an objective that wants weights of the sum 2, of any experts."""
    tokens = jax.random.normal(jax.random.key(0), (256, 8))

    @jax.jit
    def train(kernel):
        def descend(carry, _):
            kernel, coefficient = carry

            def loss(kernel):
                weights = jax.nn.relu(tokens @ kernel - 0.1)
                objective = jnp.mean((jnp.sum(weights, axis=1) - 2) ** 2)
                return objective + coefficient * routing.sparsity_loss(weights, k=2)

            choices = jnp.sum(tokens @ kernel > 0.1).astype(jnp.float32)
            coefficient_after = routing.adapted_coefficient(coefficient, choices, jnp.float32(512.0), multiplier=1.2)
            return (kernel - 0.05 * jax.grad(loss)(kernel), coefficient_after), choices / 256

        return jax.lax.scan(descend, (kernel, jnp.float32(1e-3)), None, length=200)[1]

    mean_choices = train(jax.random.normal(jax.random.key(1), (8, 8)))
    assert mean_choices[0] > 3.5
    np.testing.assert_allclose(mean_choices[100:].mean(), 2.0, atol=0.1)


def test_a_coefficient_that_was_small_or_large_for_long_comes_back():
    """As in runs in which tokens want fewer experts than K, or more, for thousands of steps."""
    few, many = jnp.float32(1.0), jnp.float32(3.0)
    adapted = lambda coefficient, choices: routing.adapted_coefficient(coefficient, choices, 2 * few, multiplier=1e3)
    smallest, largest = adapted(jnp.float32(1e-18), few), adapted(jnp.float32(1e18), many)
    np.testing.assert_allclose([smallest, largest], [1e-18, 1e18], rtol=1e-6)
    np.testing.assert_allclose([adapted(smallest, many), adapted(largest, few)], [1e-15, 1e15], rtol=1e-6)


def test_a_token_without_experts_gets_nothing_and_takes_no_slot():
    probabilities = jnp.array([[[0.0, 0.0, 0.0], [0.5, 0.0, 0.25], [0.0, 2.0, 0.0]]])
    context = steps.SelectContext(k=1, capacity=1, logits=probabilities, state=jnp.float32(0.1))

    @jax.jit
    def work():
        plan = STEP.function(probabilities, context)
        experts = lambda rows, *where: 3.0 * rows
        ways = {name: carry_out(jnp.ones((1, 3, 2)), plan, experts, dispatcher=name) for name in DISPATCHERS}
        return plan.load, plan.dropped, STEP.observe(plan, context, **STEP.option_defaults), ways

    load, dropped, observed, ways = work()
    np.testing.assert_array_equal(load, [[[0, 0, 0], [0.5, 0, 0.5], [0, 1, 0]]])
    assert not dropped.any()
    assert (observed["choices"], observed["wanted"]) == (3.0, 3.0)
    for outputs in ways.values():
        np.testing.assert_allclose(outputs[0, :, 0], [0.0, 2.25, 6.0])


def test_a_limit_keeps_the_largest():
    weights, indices = routing.positive_experts(jnp.array([[0.5, 0.0, 0.25, 1.0], [0.0, 0.0, 0.1, 0.0]]), 2)
    assert indices.tolist() == [[3, 0], [2, 4]]
    np.testing.assert_allclose(weights, [[1.0, 0.5], [0.1, 0.0]])


def test_bad_input():
    sizes = steps.LayerSizes(hidden_size=4, num_experts=4, num_selected_experts=2, num_tokens=5, raw_input_size=3)
    for most in (1, 5):
        with pytest.raises(ValueError, match=rf"most: expected K to E, 2 to 4, or None \(E\); received {most}"):
            STEP.check(sizes, **{**STEP.option_defaults, "most": most})
    with pytest.raises(ValueError, match=r"multiplier: expected a number > 1; received 1\.0"):
        routing.adapted_coefficient(jnp.float32(1.0), jnp.float32(1.0), jnp.float32(1.0), multiplier=1.0)
    with pytest.raises(ValueError, match=r"k: expected an integer from 1 to 3"):
        routing.positive_experts(jnp.ones((1, 3)), 4)
