"""Which token follows: the likeliest one, or one at random."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from vmoe_inform.axes import Float


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    Attributes:
      temperature: that logits are divided by, >= 0; 0 takes the likeliest token.
      top_k: number of likeliest tokens that one is drawn from; None for all.
    """

    temperature: float = 1.0
    top_k: int | None = None


def choose(
    logits: Float[np.ndarray, " V"], how: Sampling, random: np.random.Generator, *, never: Iterable[int] = ()
) -> int:
    """The id of the token that follows.

    Args:
      logits: of all tokens; at least one is finite.
      how: see :class:`Sampling`.
      random: not used with temperature 0.
      never: ids that are not chosen.
    """
    logits = np.array(logits, np.float64)
    logits[list(never)] = -np.inf
    if how.temperature == 0:
        return int(np.argmax(logits))
    if how.top_k is not None and how.top_k < len(logits):
        # The first of equals, so that there are never more than K.
        logits[np.argsort(-logits, kind="stable")[how.top_k :]] = -np.inf
    # Subtracted before the division, which a small temperature would make infinite.
    with np.errstate(over="ignore"):
        exponents = (logits - logits.max()) / how.temperature
    probabilities = np.exp(exponents)
    return int(random.choice(len(logits), p=probabilities / probabilities.sum()))
