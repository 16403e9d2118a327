"""Products and lengths of vectors in routers: float32 at the highest precision, whatever the model's type.

Products are divided by small temperatures, or decide which expert is chosen. They must not be rounded to bfloat16, a
TPU's default for float32 products.
"""

import jax
import jax.numpy as jnp

from vmoe_inform.axes import Array, Float


def float32_einsum(equation: str, left: Array, right: Array) -> Array:
    """``jnp.einsum`` of two arrays as float32, at the highest precision; the result is float32.

    Two bfloat16 arrays are not cast first. A product of two such numbers is exact in float32, and takes a TPU one pass
    instead of six. The precision is for their gradients, which are products with a float32 array.
    """
    if not left.dtype == right.dtype == jnp.bfloat16:
        left, right = left.astype(jnp.float32), right.astype(jnp.float32)
    return jnp.einsum(equation, left, right, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32)


def unit_vectors(vectors: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
    """Vectors [..., D] scaled to length 1, float32; a zero vector stays zero, with a zero gradient."""
    vectors = vectors.astype(jnp.float32)
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(vectors), axis=-1, keepdims=True))
    scaled = vectors / jnp.where(largest > 0, largest, 1.0)  # squares can neither overflow nor vanish
    squared = jnp.sum(scaled**2, axis=-1, keepdims=True)
    return jnp.where(squared > 0, scaled, 0.0) / jnp.sqrt(jnp.where(squared > 0, squared, 1.0))
