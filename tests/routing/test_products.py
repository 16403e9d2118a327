import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmoe_inform.routing.products import float32_einsum, unit_vectors


@pytest.mark.parametrize("types", [("bfloat16", "bfloat16"), ("bfloat16", "float32"), ("float32", "float32")])
def test_products_are_float32_of_whatever_type_the_factors_are(types):
    # 1 + 2^-7 is a bfloat16, its square 1 + 2^-6 + 2^-14 a float32 but no bfloat16 (which ends at 2^-7).
    left, right = (jnp.full((1, 1), 1 + 2**-7, dtype) for dtype in types)
    product = float32_einsum("ab,bc->ac", left, right)
    assert product.dtype == jnp.float32
    assert float(product[0, 0]) == 1 + 2**-6 + 2**-14


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])  # squares of the outer ones are 0 and infinite in float32
def test_unit_vectors_of_any_size(size):
    # 3-4-5 triangle
    np.testing.assert_allclose(unit_vectors(size * jnp.array([[3.0, -4.0]])), [[0.6, -0.8]], rtol=1e-6)


def test_a_zero_vector_stays_zero_with_a_zero_gradient():
    np.testing.assert_array_equal(unit_vectors(jnp.zeros((1, 2))), [[0.0, 0.0]])
    np.testing.assert_array_equal(jax.grad(lambda v: unit_vectors(v).sum())(jnp.zeros((1, 2))), [[0.0, 0.0]])


def test_unit_vectors_are_float32_whatever_they_are_made_of():
    units = unit_vectors(jnp.array([[1.0, 2.0]], jnp.bfloat16))
    assert units.dtype == jnp.float32
    np.testing.assert_allclose(jnp.sum(units**2), 1.0, rtol=1e-6)  # bfloat16 would be off by 1e-3
