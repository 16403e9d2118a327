"""Dropout (JMLR 15, 1929-1958): every kind that the models have, by one 32-bit random word for four entries.

Random bits are most of what dropout costs, so that a word is read like a number in an arithmetic code. The first entry
is dropped if the word lies in the lowest share p of its range. Where in that part, or in the rest, the word lies is
uniform again, and decides on the second entry, and so on. So the rate need not be a multiple of 1/256. Entries of one
word are independent: each of their 16 outcomes has its probability to 4 / 2^32.

Bits come from the key and an entry's place in the whole array: they are the same on every mesh.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vmoe_inform.axes import Array, Bool, Float, UInt
from vmoe_inform.sharding.mesh import FSDP, REPLICA, constrain

ENTRIES = 4  # of a word
_RANGE = 2**32


def dropout(key: Array, array: Array, rate: float, *, whole: bool = False) -> Array:
    """The array with a share of its entries set to 0 and the others scaled, so that the expected value stays.

    Args:
      key: of the random bits.
      array: [..., M]. Entries that are M / 4 apart on the last axis share a word, so it should not be sharded.
      rate: probability of 0, >= 0 and < 1.
      whole: whether all entries of one place on the first axis are dropped or kept together.
    """
    shape = (array.shape[0], *(1,) * (array.ndim - 1)) if whole else array.shape
    return jnp.where(keep(key, shape, rate), array / (1.0 - rate), 0.0)


def dropout_of_experts(key: Array, rows: Float[Array, "E G T M"], rate: float) -> Float[Array, "E G T M"]:
    """:func:`dropout` with one mask [G, T, M] for all experts, as in V-MoE's code.

    A token's slots differ between its experts, but for chance, and so do its masks. One mask needs 1/E of the bits.
    """
    kept = constrain(keep(key, rows.shape[1:], rate), (REPLICA, FSDP))
    return jnp.where(kept, rows / (1.0 - rate), 0.0)


def keep(key: Array, shape: tuple[int, ...], rate: float) -> Bool[Array, "..."]:
    """True where :func:`dropout` leaves an entry of an array of this shape."""
    *outer, last = shape
    words = jax.random.bits(key, (*outer, -(-last // ENTRIES)), jnp.uint32)
    return jnp.concatenate(kept_by(words, rate), axis=-1)[..., :last]


def kept_by(words: UInt[Array, "..."], rate: float) -> list[Bool[Array, "..."]]:
    """Whether each of the four entries of a word is kept.

    Args:
      words: random bits, uint32.
      rate: probability of an entry that is not.
    """
    kept = []
    place, dropped = words, jnp.zeros((), jnp.int32)  # in the part that the entries before chose, and how many of them
    for cuts in cuts_of(rate):
        cut = jnp.uint32(cuts[0])
        for number, value in enumerate(cuts[1:], start=1):
            cut = jnp.where(dropped >= number, jnp.uint32(value), cut)
        drops = place < cut
        place = jnp.where(drops, place, place - cut)
        dropped = dropped + drops
        kept.append(~drops)
    return kept


def cuts_of(rate: float) -> list[list[int]]:
    """For each entry of a word, by how many before it are dropped: the words of that part which drop it.

    A part in which k of j entries are dropped has 2^32 rate^k (1 - rate)^(j - k) words.
    """
    return [
        [min(round(rate ** (k + 1) * (1.0 - rate) ** (j - k) * _RANGE), _RANGE - 1) for k in range(j + 1)]
        for j in range(ENTRIES)
    ]


class Dropout(nn.Module):
    """:func:`dropout` in training, with bits from the stream ``dropout``.

    Attributes:
      rate: probability of 0 for an entry.
      whole: drop whole sequences, of a batch [B, ...].
    """

    rate: float
    whole: bool = False

    @nn.compact
    def __call__(self, inputs: Float[Array, "..."], *, train: bool) -> Float[Array, "..."]:
        if not train or self.rate == 0.0:
            return inputs
        return dropout(self.make_rng("dropout"), inputs, self.rate, whole=self.whole)
