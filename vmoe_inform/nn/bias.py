"""Adding a bias so that its gradient is a matrix product."""

import jax
import jax.numpy as jnp

from vmoe_inform.axes import Array, Float


@jax.custom_vjp
def add_bias(tokens: Float[Array, "B N *features"], bias: Float[Array, "*features"]) -> Float[Array, "B N *features"]:
    """tokens + bias, of the same type.

    The gradient of the bias is a sum over all tokens of the batch. A product with ones adds in float32 for any type, in
    the matrix unit of an accelerator.
    """
    return tokens + bias[None, None]


def _add_bias_forward(tokens: Array, bias: Array) -> tuple[Array, Array]:
    return add_bias(tokens, bias), bias


def _add_bias_backward(bias: Array, gradient: Float[Array, "B N *features"]) -> tuple[Array, Array]:
    ones = jnp.ones(gradient.shape[:2], gradient.dtype)
    total = jnp.einsum(
        "bn,bn...->...", ones, gradient, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32
    )
    return gradient, total.astype(bias.dtype)


add_bias.defvjp(_add_bias_forward, _add_bias_backward)
