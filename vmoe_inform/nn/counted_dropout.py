"""Masks of dropout from counters, which a kernel can make wherever it needs a part of them.

A word depends on the seed and on the place of its four entries in the whole array. A kernel's parts do not matter.
Words are two rounds of the hash ``lowbias32``, each with a word of the seed. Its avalanche is good (C. Wellons,
"Prospecting for Hash Functions", 2018). What a word decides is that of :mod:`vmoe_inform.nn.dropout`.
"""

import jax
import jax.numpy as jnp

from vmoe_inform.axes import Array, Float
from vmoe_inform.nn.dropout import ENTRIES, kept_by

_LANES = 128
COLUMNS = ENTRIES * _LANES  # the columns of a mask are a multiple of these


def mask(
    seed: tuple[Array, Array],
    rate: float,
    shape: tuple[int, int],
    *,
    first_row: Array | int,
    first_column: Array | int,
    num_columns: int,
) -> Float[Array, "R C"]:
    """0 for a share of the entries, and for the others what scales them so that the expected value stays.

    Args:
      seed: two words, uint32.
      rate: the share.
      shape: of the part that is asked for; a multiple of 512 columns.
      first_row, first_column: where the part begins in the whole array; a multiple of 512 columns.
      num_columns: of the whole array.
    """
    rows, columns = shape
    row = jnp.uint32(first_row) + jax.lax.broadcasted_iota(jnp.uint32, (rows, columns // ENTRIES), 0)
    column = jnp.uint32(first_column) // ENTRIES + jax.lax.broadcasted_iota(jnp.uint32, row.shape, 1)
    words = _hash(_hash(row * (num_columns // ENTRIES) + column + seed[0]) ^ seed[1])
    # Entry b of word w of a block of 128 words is number 128 b + w of 512: lanes stay where they are.
    blocks = [words[:, start : start + _LANES] for start in range(0, columns // ENTRIES, _LANES)]
    kept = [each for block in blocks for each in kept_by(block, rate)]
    return jnp.concatenate([jnp.where(each, 1.0 / (1.0 - rate), 0.0) for each in kept], axis=1)


def _hash(words: Array) -> Array:
    """A bijection of words of 32 bits."""
    words = (words ^ (words >> 16)) * jnp.uint32(0x7FEB352D)
    words = (words ^ (words >> 15)) * jnp.uint32(0x846CA68B)
    return words ^ (words >> 16)
