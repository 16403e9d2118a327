"""What a causal model keeps of the tokens before, so that the next ones cost no more than themselves.

The modules keep it in the collection ``cache`` while that is mutable::

    (logits, _), new = model.apply({**variables, **cache}, tokens, mutable=[CACHE])

The first call starts without a cache, and each call adds its tokens. Logits are those of a pass over all tokens. The
caller sees to it that a sequence gets no longer than N; :func:`next_sequence` begins another one.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vmoe_inform.axes import Array, Int, Tree

CACHE = "cache"
_LENGTH = "length"  # the name of every count of tokens


def keeps(module: nn.Module) -> bool:
    """Whether this call adds to a cache."""
    return module.is_mutable_collection(CACHE) and not module.is_initializing()


def count(module: nn.Module, num_new: int) -> Int[Array, ""]:
    """The number of tokens of this sequence before the new ones, which are counted."""
    length = module.variable(CACHE, _LENGTH, lambda: jnp.zeros((), jnp.int32))
    before = length.value
    length.value = before + num_new
    return before


def append(module: nn.Module, name: str, new: Tree, first: Int[Array, ""], size: int) -> Tree:
    """Adds what is known of n new tokens of a sequence.

    Args:
      module: whose cache it is.
      name: of the arrays in it.
      new: arrays [B, n, ...].
      first: number of tokens before them, from :func:`count`.
      size: N, the most tokens of a sequence.

    Returns:
      arrays [B, N, ...] of all tokens, of which those behind the new ones mean nothing, though they are finite.
    """

    def empty() -> Tree:
        return jax.tree.map(lambda array: jnp.zeros((array.shape[0], size, *array.shape[2:]), array.dtype), new)

    stored = module.variable(CACHE, name, empty)
    stored.value = jax.tree.map(
        lambda old, array: jax.lax.dynamic_update_slice_in_dim(old, array, first, axis=1), stored.value, new
    )
    return stored.value


def append_to_last(module: nn.Module, name: str, new: Tree, size: int) -> Tree:
    """Adds what is known of n new tokens to that of the last P tokens, over all sequences, zeros before the first.

    Args:
      module, name: as of :func:`append`.
      new: arrays [B, n, ...].
      size: P.

    Returns:
      arrays [B, P + n, ...].
    """

    def empty() -> Tree:
        return jax.tree.map(lambda array: jnp.zeros((array.shape[0], size, *array.shape[2:]), array.dtype), new)

    stored = module.variable(CACHE, name, empty)
    found = jax.tree.map(lambda old, array: jnp.concatenate([old, array], axis=1), stored.value, new)
    stored.value = jax.tree.map(lambda array: array[:, -size:], found)
    return found


def next_sequence(cache: Tree) -> Tree:
    """The cache for the first token of the next sequence: only attention that spans sequences looks back further."""

    def begin(path: tuple[Any, ...], leaf: Array) -> Array:
        return jnp.zeros_like(leaf) if getattr(path[-1], "key", "") == _LENGTH else leaf

    return jax.tree_util.tree_map_with_path(begin, cache)
