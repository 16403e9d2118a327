"""State of the attention posterior: entropies of heads and the variance sigma^2, as moving averages over training.

Only steps with ``heads="running"`` or ``sigma="estimated"`` keep it. A step routes by the state of before it, which
earlier batches made. So nothing of a token depends on later tokens of its own text, in training too.
"""

from typing import TypeAlias, cast

import jax.numpy as jnp

from vmoe_inform.axes import Array, Float, Tree
from vmoe_inform.routing.evidence import LEAST_VARIANCE

ENTROPIES, VARIANCE = "entropies", "variance"

# The entropies alone where sigma is a number: runs of before sigma could be estimated have saved them so.
State: TypeAlias = Float[Array, " H"] | dict[str, Array]


def keeps(heads: str, sigma: float | str) -> bool:
    """Whether there is a state."""
    return heads == "running" or sigma == "estimated"


def initial(num_heads: int, heads: str, sigma: float | str) -> State:
    """Entropies of 0, and a variance of 0, which stands for none yet."""
    entropies = jnp.zeros((num_heads,), jnp.float32)
    if sigma != "estimated":
        return entropies
    variance = {VARIANCE: jnp.zeros((), jnp.float32)}
    return {ENTROPIES: entropies, **variance} if heads == "running" else variance


def entropies_of(state: State) -> Float[Array, " H"]:
    """Moving average of the mean entropy of each head."""
    return state[ENTROPIES] if isinstance(state, dict) else state


def variance_of(state: State, width: int) -> Float[Array, ""]:
    """The estimate of sigma^2; D before the first, as of ``sigma="sqrt_dim"``."""
    variance = cast(dict[str, Array], state)[VARIANCE]
    return jnp.where(variance > 0, variance, jnp.float32(width))


def updated(state: State, observed: Tree, decay: float) -> State:
    """The state after a training step.

    The first estimate of the variance replaces the start value. The likelihood has no bound where all outputs are at
    means. So an estimate is at least 1e-12, the square of the smallest sigma of a config.

    Args:
      state: before.
      observed: sums over the whole batch: ``entropies`` and ``sequences``, ``distances`` and ``tokens``.
      decay: of both averages.
    """
    if not isinstance(state, dict):
        return _average(state, observed["entropies"] / observed["sequences"], decay)
    estimate = jnp.maximum(observed["distances"] / jnp.maximum(observed["tokens"], 1.0), LEAST_VARIANCE)
    variance = state[VARIANCE]
    new = {VARIANCE: jnp.where(variance > 0, _average(variance, estimate, decay), estimate)}
    if ENTROPIES in state:
        new[ENTROPIES] = _average(state[ENTROPIES], observed["entropies"] / observed["sequences"], decay)
    return new


def _average(average: Array, new: Array, decay: float) -> Array:
    return decay * average + (1.0 - decay) * new
