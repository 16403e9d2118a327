"""Matrix products of routers: float32 at the highest precision, whatever the model's type and the accelerator.

What is later divided by a small temperature or variance, or decides which expert is chosen, must not be rounded to
bfloat16 (a TPU's default for float32 products) on the way.
"""

import jax
import jax.numpy as jnp

from vmoe_inform.axes import Array


def float32_einsum(equation: str, *arrays: Array) -> Array:
    """``jnp.einsum`` of the arrays as float32, at the highest precision."""
    return jnp.einsum(equation, *(array.astype(jnp.float32) for array in arrays), precision=jax.lax.Precision.HIGHEST)
