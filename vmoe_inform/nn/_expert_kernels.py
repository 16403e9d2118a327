"""What a program of :mod:`vmoe_inform.nn.fused_experts` does for a part of an expert's hidden layer and of its rows."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from vmoe_inform.axes import Array, Float
from vmoe_inform.nn import counted_dropout
from vmoe_inform.nn._kernel_products import product

Reference = Any  # a block of an array in the chip's memory

_MOST_ROWS = 1024  # of a program
_HIDDEN = (512, 384, 256, 128)  # sizes that a part of the hidden layer may have


class Options(NamedTuple):
    """What a kernel does besides its products.

    Attributes:
      activation: between the two layers.
      dropout_rate: of the hidden layer, see :mod:`vmoe_inform.nn.counted_dropout`.
      interpret: works the kernels out step by step on any platform instead of compiling them for a TPU.
    """

    activation: Callable[[Array], Array]
    dropout_rate: float = 0.0
    interpret: bool = False


class Blocks(NamedTuple):
    """Sizes of the parts of an expert's work: R of T rows, and m of M hidden numbers."""

    rows: int
    hidden: int
    num_row_blocks: int
    num_hidden_blocks: int
    num_rows: int
    width: int

    @classmethod
    def of(cls, num_rows: int, width: int, hidden_size: int) -> "Blocks":
        hidden = next(size for size in _HIDDEN if hidden_size % size == 0)
        count = -(-num_rows // _MOST_ROWS)
        rows = num_rows if count == 1 else -(-num_rows // (16 * count)) * 16
        return cls(rows, hidden, -(-num_rows // rows), hidden_size // hidden, num_rows, width)

    def vmem_bytes(self, item_bytes: int) -> int:
        """At most so much memory the backward pass takes, which takes more than the forward pass."""
        rows = -(-self.rows // 16) * 16
        # Parameters and their gradients, the next program's while this one's are worked on, and parameters once more.
        parameters = self.width * self.hidden * (2 * (2 * 4 + 2 * 4) + 2 * item_bytes)
        # Two arrays of rows go in and one comes out; what is summed up for all rows is float32.
        of_rows = self.width * (rows * 3 * 2 * item_bytes + self.num_row_blocks * rows * 4)
        return parameters + of_rows + rows * self.hidden * (5 * 4 + 2 * item_bytes)


def forward(
    seed_ref: Reference,
    rows_ref: Reference,
    kernel_ref: Reference,
    bias_ref: Reference,
    output_kernel_ref: Reference,
    output_bias_ref: Reference,
    outputs_ref: Reference,
    sums_ref: Reference,
    *,
    blocks: Blocks,
    options: Options,
) -> None:
    rows = rows_ref[...]
    kernel, output_kernel = (reference[...].astype(rows.dtype) for reference in (kernel_ref, output_kernel_ref))
    hidden = options.activation(product(rows, kernel, 1, 0) + bias_ref[...])
    if options.dropout_rate > 0:
        hidden = hidden * _mask(seed_ref, blocks, options)
    sums = _sum_over_hidden(sums_ref, product(hidden.astype(rows.dtype), output_kernel, 1, 0))

    @pl.when(pl.program_id(1) == blocks.num_hidden_blocks - 1)
    def _() -> None:
        outputs_ref[...] = (sums[...] + output_bias_ref[...]).astype(outputs_ref.dtype)


def backward(
    seed_ref: Reference,
    rows_ref: Reference,
    kernel_ref: Reference,
    bias_ref: Reference,
    output_kernel_ref: Reference,
    gradient_ref: Reference,
    to_rows_ref: Reference,
    to_kernel_ref: Reference,
    to_bias_ref: Reference,
    to_output_kernel_ref: Reference,
    to_output_bias_ref: Reference,
    sums_ref: Reference,
    *,
    blocks: Blocks,
    options: Options,
) -> None:
    rows, gradient = (_without_rest(reference[...], blocks) for reference in (rows_ref, gradient_ref))
    kernel, output_kernel = (reference[...].astype(rows.dtype) for reference in (kernel_ref, output_kernel_ref))
    hidden, pull_back = jax.vjp(options.activation, product(rows, kernel, 1, 0) + bias_ref[...])
    to_hidden = product(gradient, output_kernel, 1, 1)
    if options.dropout_rate > 0:
        mask = _mask(seed_ref, blocks, options)
        hidden, to_hidden = hidden * mask, to_hidden * mask
    (to_products,) = pull_back(to_hidden)
    is_first = pl.program_id(2) == 0
    _add(to_output_kernel_ref, product(hidden.astype(rows.dtype), gradient, 0, 0), is_first)
    _add(to_bias_ref, jnp.sum(to_products, axis=0, keepdims=True), is_first)
    to_products = to_products.astype(rows.dtype)
    _add(to_kernel_ref, product(rows, to_products, 0, 0), is_first)
    sums = _sum_over_hidden(sums_ref, product(to_products, kernel, 1, 1))

    @pl.when(pl.program_id(1) == blocks.num_hidden_blocks - 1)
    def _() -> None:
        to_rows_ref[...] = sums[...].astype(to_rows_ref.dtype)
        _add(to_output_bias_ref, jnp.sum(gradient.astype(jnp.float32), axis=0, keepdims=True), is_first)


def _mask(seed_ref: Reference, blocks: Blocks, options: Options) -> Float[Array, "R m"]:
    """Of this program's part of the hidden layer: 0 for what is dropped, and what scales the rest."""
    expert, part, first = (pl.program_id(axis) for axis in range(3))
    return counted_dropout.mask(
        (seed_ref[0], seed_ref[1]),
        options.dropout_rate,
        (blocks.rows, blocks.hidden),
        first_row=expert * blocks.num_rows + first * blocks.rows,
        first_column=part * blocks.hidden,
        num_columns=blocks.num_hidden_blocks * blocks.hidden,
    )


def _without_rest(rows: Float[Array, "R D"], blocks: Blocks) -> Float[Array, "R D"]:
    """The rows, with zeros for what lies in memory behind the last row of an expert."""
    if blocks.num_rows % blocks.rows == 0:
        return rows
    number = pl.program_id(2) * blocks.rows + jax.lax.broadcasted_iota(jnp.int32, rows.shape, 0)
    return jnp.where(number < blocks.num_rows, rows, jnp.zeros_like(rows))


def _sum_over_hidden(sums_ref: Reference, part: Float[Array, "R D"]) -> Reference:
    """Adds a part to the sums of these rows, and returns where they are."""
    sums = sums_ref.at[pl.program_id(2)]
    _add(sums, part, pl.program_id(1) == 0)
    return sums


def _add(sums: Reference, part: Array, is_first: Array) -> None:
    @pl.when(is_first)
    def _() -> None:
        sums[...] = part

    @pl.when(jnp.logical_not(is_first))
    def _() -> None:
        sums[...] += part
