"""Reorders the head of a trained model for a model with its classes in another order."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from vmoe_inform.axes import Tree
from vmoe_inform.data import classes

_HEAD = "head"  # of the parameters: kernel [F, classes], bias [classes]


def are_same(saved: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether both name the same classes, in any order."""
    return len(saved) == len(wanted) and set(saved) == set(wanted)


def in_order(params: Mapping[str, Any], saved: Sequence[str], wanted: Sequence[str]) -> Tree:
    """Parameters whose logits are of the classes ``wanted``, in this order.

    Args:
      params: of a model whose logits are of the classes ``saved``; with their shardings.
      saved, wanted: the same names.
    """
    if tuple(saved) == tuple(wanted):
        return dict(params)
    columns = classes.positions(wanted, saved)
    return {**params, _HEAD: jax.tree.map(lambda leaf: _take(leaf, columns), params[_HEAD])}


def _take(leaf: jax.Array, columns: Int[np.ndarray, " classes"]) -> jax.Array:
    # Under jit, where arrays may be spread over processes.
    return jax.jit(lambda values: jnp.take(values, columns, axis=-1), out_shardings=leaf.sharding)(leaf)
