"""Products of matrices inside the kernels of TPUs."""

import jax
import jax.numpy as jnp

from vmoe_inform.axes import Array


def product(left: Array, right: Array, left_axis: int, right_axis: int) -> Array:
    """Product of matrices over an axis of each, float32; of float32 matrices exact."""
    precision = jax.lax.Precision.HIGHEST if left.dtype == jnp.float32 else jax.lax.Precision.DEFAULT
    axes = (((left_axis,), (right_axis,)), ((), ()))
    return jax.lax.dot_general(left, right, axes, precision=precision, preferred_element_type=jnp.float32)
