"""Selection: probabilities -> the K experts of each token and the weights of their outputs."""

from typing import Literal

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Float, Int
from vmoe_inform.routing.steps import register_select

Renormalize = bool | Literal["one"]


def check_num_selected(k: int, num_experts: int) -> None:
    """Raises ValueError unless K is an integer and 1 <= K <= E."""
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= num_experts:
        raise checks.error("k", f"an integer from 1 to {num_experts} (experts)", k)


@register_select("top_experts")
def top_experts(
    probabilities: Float[Array, "*batch N E"], k: int, *, renormalize: Renormalize = True
) -> tuple[Float[Array, "*batch N K"], Int[Array, "*batch N K"]]:
    """The K most probable experts of each token, the most probable first (003, Eq. 11 and Sec. E).

    Args:
      probabilities: [..., N, E], not negative; rows need not sum to 1.
      k: K, experts per token.
      renormalize: True divides the K weights by their sum, but for K = 1 keeps the chosen probability, so that the
        router learns; ``"one"`` divides also there (the literal form, weight 1); False keeps the probabilities
        (V-MoE).

    Returns:
      weights [..., N, K], float32, and indices [..., N, K]; equal probabilities: the lower index first.

    Raises:
      ValueError: k outside 1..E, or renormalize neither a bool nor ``"one"``.
    """
    check_num_selected(k, probabilities.shape[-1])
    if renormalize not in (True, False, "one"):
        raise checks.error("renormalize", "true, false or 'one'", renormalize)
    weights, indices = jax.lax.top_k(probabilities.astype(jnp.float32), k)
    if renormalize == "one" or (renormalize and k > 1):
        # A zero row (a zero Symphony column) is shared evenly; a row of tiny numbers is scaled up before the sum.
        scale = jax.lax.stop_gradient(weights[..., :1])
        weights = jnp.where(scale > 0, weights / jnp.where(scale > 0, scale, 1.0), 1.0)
        weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
    return weights, indices
