"""The attention posterior of a text that is read token by token: what is kept of a token, and rows of the next."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vmoe_inform.axes import Array, Float
from vmoe_inform.routing import evidence
from vmoe_inform.routing.attention_heads import Options, differs_by_token, head_of, raw_outputs, record_of
from vmoe_inform.routing.masks import rows_of_next
from vmoe_inform.routing.posterior_rows import (
    ColumnsOfHeads,
    RowsOfHeads,
    head_of_each_token,
    map_posterior,
    mix_heads,
)
from vmoe_inform.routing.products import float32_einsum
from vmoe_inform.routing.steps import StepContext


class Kept(NamedTuple):
    """What later tokens need of a token. ``of_heads`` is as :class:`ColumnsOfHeads`, with [B, N, H] for [B, H, N]."""

    of_heads: ColumnsOfHeads
    entropies: Float[Array, "B N H"] | None
    outputs: Float[Array, "B N D"] | None  # at their length, where they are centered
    probabilities: Float[Array, "B N E"]


def _outputs_at_length(context: StepContext, options: Options) -> Float[Array, "B n D"]:
    outputs, length = raw_outputs(record_of(context)), options.length(context)
    if length is None:
        return outputs
    return outputs * evidence.factors_to_length(evidence.squared_lengths(outputs), length)[..., None]


def columns(probabilities: Float[Array, "B n E"], context: StepContext, **options: Any) -> Kept:
    """As :class:`vmoe_inform.routing.step_kinds.InformStep` says, like :func:`rows`."""
    given, record = Options(**options), record_of(context)
    head, length = head_of(context, given), given.length(context)
    kernel = _of_head(record.output_kernel, head, axis=0)
    keys, values = (_of_head(array, head, axis=2) for array in (record.keys, record.values))
    means = float32_einsum("bnhf,hfd->bnhd", values, kernel)
    squares = given.factor(record.output_kernel.shape[0]) ** 2 * jnp.sum(means**2, axis=-1)
    if length is not None:
        values = values * evidence.factors_to_length(squares, length)[..., None]
        squares = evidence.squares_at(length, squares)
    of_heads = ColumnsOfHeads(keys, values, jnp.zeros_like(squares) if given.center else squares)
    entropies = record.token_entropies if differs_by_token(context, given) else None
    return Kept(of_heads, entropies, _outputs_at_length(context, given) if given.center else None, probabilities)


def _of_head(array: Array, head: Array | None, *, axis: int) -> Array:
    """The part of the only head that counts for all sequences; all of it if there is none."""
    return array if head is None else jax.lax.dynamic_index_in_dim(array, head, axis=axis)


def rows(context: StepContext, known: Kept, **options: Any) -> Float[Array, "B n E"]:
    """Informed probabilities of the n tokens of the context."""
    given, record = Options(**options), record_of(context)
    head = head_of(context, given)
    num_rows, head_of_token = record.queries.shape[1], None
    # Few rows: products of their outputs with kernels are fewer than those of the kernels with each other.
    outputs = _outputs_at_length(context, given)
    if known.outputs is not None:
        outputs = outputs - evidence.mean_over_known(
            known.outputs, rows_of_next(num_rows, context.first), given.block_size
        )
    outputs = float32_einsum("bnd,hfd->bhnf", outputs, _of_head(record.output_kernel, head, axis=0))
    outputs = given.factor(record.output_kernel.shape[0]) * outputs
    queries = jnp.swapaxes(_of_head(record.queries, head, axis=2), 1, 2)
    of_rows = RowsOfHeads(queries, outputs, record.relative_keys)
    if known.entropies is not None:
        entropies = jnp.swapaxes(known.entropies, 1, 2)[..., None]
        head_of_token = head_of_each_token(entropies, rows_of_next(num_rows, context.first), given.block_size)
    return map_posterior(
        mix_heads,
        of_rows,
        jax.tree.map(lambda array: jnp.swapaxes(array, 1, 2), known.of_heads),
        known.probabilities,
        variance=given.variance(context),
        all_heads=given.heads == "posterior",
        head=head_of_token,
        mask_rows=rows_of_next(num_rows, context.first, of_rows.span),
        block_size=given.block_size,
    )
