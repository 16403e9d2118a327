"""Values of chosen experts, in the way that the platform is fast at; both ways give the same bits.

A TPU gathers numbers one after the other, and their gradient is a scatter. A comparison with every expert, and its
gradient, are elementwise and fuse with what is around them (docs/performance.md). Other platforms gather.
"""

import jax
import jax.numpy as jnp

from vmoe_inform.axes import Array, Float, Int
from vmoe_inform.dispatch import current_platform


def values_of(values: Float[Array, "*batch E"], indices: Int[Array, "*batch K"]) -> Float[Array, "*batch K"]:
    """values[..., indices], with gradients; 0 for an index E, which is no expert."""
    if current_platform() == "tpu":
        is_chosen = jax.nn.one_hot(indices, values.shape[-1], dtype=bool)
        return jnp.sum(jnp.where(is_chosen, values[..., None, :], 0.0), axis=-1)
    return jnp.take_along_axis(values, indices, axis=-1, mode="fill", fill_value=0)


def largest(values: Float[Array, "*batch E"], k: int) -> tuple[Float[Array, "*batch K"], Int[Array, "*batch K"]]:
    """As ``jax.lax.top_k``: the K largest values, which have gradients, and their indices; of equal ones the lower."""
    indices = jax.lax.top_k(jax.lax.stop_gradient(values), k)[1]
    return values_of(values, indices), indices
