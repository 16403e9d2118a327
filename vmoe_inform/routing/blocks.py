"""Large matrices in blocks of rows, so that at most one block is in memory."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Tree

Result = TypeVar("Result")


def check_block_size(block_size: int | None) -> None:
    """Raises ValueError unless the size is None or an integer >= 1."""
    if block_size is not None and (isinstance(block_size, bool) or block_size < 1):
        raise checks.error("block_size", "None or an integer >= 1", block_size)


def map_row_blocks(function: Callable[[Tree], Result], rows: Tree, *, block_size: int | None, axis: int = -2) -> Result:
    """``function(rows)``, computed ``block_size`` rows at a time.

    A function that makes an N x N matrix needs memory for ``block_size`` x N numbers only. Gradients recompute each
    block. A block holds whole rows, so that a softmax over columns needs no running maximum. Its result is the same for
    every block size.

    Args:
      function: arrays of some rows -> arrays of the same rows; no row may depend on another one.
      rows: arrays with N rows each.
      block_size: rows of a block; the last block has the rows that are left. None, N or more: one block.
      axis: of the rows, in every array of ``rows`` and of the result.

    Raises:
      ValueError: block_size < 1.
    """
    check_block_size(block_size)
    num_rows = jax.tree.leaves(rows)[0].shape[axis]
    if block_size is None or block_size >= num_rows:
        return function(rows)
    num_blocks, rest = divmod(num_rows, block_size)

    # [..., blocks * b, ...] -> [blocks, ..., b, ...]
    def split(array: Array) -> Array:
        full = jax.lax.slice_in_dim(array, 0, num_blocks * block_size, axis=axis)
        before = axis % array.ndim
        blocks = full.reshape(*array.shape[:before], num_blocks, block_size, *array.shape[before + 1 :])
        return jnp.moveaxis(blocks, before, 0)

    def join(blocks: Array) -> Array:
        before = axis % (blocks.ndim - 1)
        array = jnp.moveaxis(blocks, 0, before)
        return array.reshape(*array.shape[:before], num_blocks * block_size, *array.shape[before + 2 :])

    block = jax.checkpoint(
        function, prevent_cse=False
    )  # a loop body: nothing of it could be shared with the gradient's
    _, results = jax.lax.scan(lambda _, some_rows: (None, block(some_rows)), None, jax.tree.map(split, rows))
    results = jax.tree.map(join, results)
    if rest:
        last = jax.checkpoint(function)(
            jax.tree.map(lambda array: jax.lax.slice_in_dim(array, num_rows - rest, num_rows, axis=axis), rows)
        )
        results = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=axis), results, last)
    return results
