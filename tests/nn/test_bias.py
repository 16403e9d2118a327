"""Bias gradients worked out as products are the sums that they stand for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmoe_inform.nn.bias import add_bias


@pytest.mark.parametrize("features", [(3,), (2, 4)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_values_and_gradients_are_those_of_a_sum(features, dtype):
    rng = np.random.default_rng(0)
    make = lambda *shape: jnp.asarray(rng.integers(-8, 8, shape), dtype)  # small integers: exact in both types
    arguments, cotangent = (make(2, 5, *features), make(*features)), make(2, 5, *features)
    outputs, pullback = jax.vjp(add_bias, *arguments)
    expected, expected_pullback = jax.vjp(lambda tokens, bias: tokens + bias[None, None], *arguments)
    np.testing.assert_array_equal(outputs, expected)
    for gradient, wanted in zip(pullback(cotangent), expected_pullback(cotangent), strict=True):
        assert gradient.dtype == dtype
        np.testing.assert_array_equal(gradient, wanted)


def test_many_rows_of_bfloat16_are_added_in_float32():
    # In bfloat16 the sum would stay at 256: 256 + 1 rounds to 256.
    tokens = jnp.zeros((4, 100, 2), jnp.bfloat16)
    gradient = jax.grad(lambda bias: jnp.sum(add_bias(tokens, bias).astype(jnp.float32)))(jnp.zeros(2, jnp.bfloat16))
    np.testing.assert_array_equal(gradient, jnp.full(2, 400, jnp.bfloat16))
