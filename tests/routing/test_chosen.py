"""Values of chosen experts by comparisons and by indexing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmoe_inform.routing import chosen

VALUES = jnp.array([[[0.5, -2.0, 3.0, 0.5], [1.0, 4.0, -1.0, 0.0]]])


@pytest.fixture(params=["cpu", "tpu"], autouse=True)
def platform(request, monkeypatch):
    monkeypatch.setattr(chosen, "current_platform", lambda: request.param)


def with_gradients(function, *arguments):
    found, pull_back = jax.vjp(lambda values: function(values, *arguments), VALUES)
    return found, pull_back(jnp.arange(1.0, 1.0 + found.size).reshape(found.shape))[0]


def test_values_and_gradients_of_chosen_experts():
    indices = jnp.array([[[2, 0], [1, 4]]])  # 4 is no expert
    found, gradient = with_gradients(chosen.values_of, indices)
    np.testing.assert_array_equal(found, [[[3.0, 0.5], [4.0, 0.0]]])
    np.testing.assert_array_equal(gradient, [[[2.0, 0.0, 1.0, 0.0], [0.0, 3.0, 0.0, 0.0]]])


def test_a_value_that_is_no_number_stays_with_its_expert():
    values = VALUES.at[0, 0, 1].set(jnp.nan).at[0, 1, 0].set(jnp.inf)
    found = chosen.values_of(values, jnp.array([[[2, 1], [1, 0]]]))
    np.testing.assert_array_equal(found, [[[3.0, jnp.nan], [4.0, jnp.inf]]])


def test_largest_is_top_k_with_its_gradients():
    (found, gradient), (expected, expected_gradient) = (
        with_gradients(lambda values, function=function: function(values, 2)[0])
        for function in (chosen.largest, jax.lax.top_k)
    )
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(gradient, expected_gradient)
    np.testing.assert_array_equal(chosen.largest(VALUES, 3)[1], [[[2, 0, 3], [1, 0, 3]]])
