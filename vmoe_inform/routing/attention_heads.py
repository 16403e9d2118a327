"""The posterior over heads and keys of a layer, from the record of its attention, in the space of the heads."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp

from vmoe_inform.axes import Array, Float, Tree
from vmoe_inform.routing import attention_state, evidence
from vmoe_inform.routing.evidence import Compared
from vmoe_inform.routing.masks import rows_of_mask
from vmoe_inform.routing.posterior_rows import (
    ColumnsOfHeads,
    RowsOfHeads,
    head_entropies,
    head_of_each_token,
    map_posterior,
)
from vmoe_inform.routing.products import float32_einsum
from vmoe_inform.routing.steps import AttentionRecord, StepContext


@dataclasses.dataclass(frozen=True)
class Options:
    """Those of :func:`vmoe_inform.routing.attention_step.attention_step`."""

    sigma: float | str
    heads: str
    head_factor: bool
    normalize: str
    center: bool
    decay: float
    block_size: int | None

    def factor(self, num_heads: int) -> int:
        """Of the means: H, or 1."""
        return num_heads if self.head_factor else 1

    def variance(self, context: StepContext) -> float | Float[Array, ""]:
        """sigma^2."""
        width = context.tokens.shape[-1]
        if self.sigma == "estimated":
            return attention_state.variance_of(state_of(context), width)
        return evidence.variance_of(cast(evidence.Sigma, self.sigma), width)

    def length(self, context: StepContext) -> float | None:
        """Of outputs and means; None for their own."""
        return evidence.common_length(self.normalize, context.tokens.shape[-1])


def record_of(context: StepContext) -> AttentionRecord:
    """The record of the block's attention."""
    assert context.attention is not None  # declared by needs_attention
    return context.attention


def state_of(context: StepContext) -> attention_state.State:
    """The state of a step that keeps one."""
    assert context.state is not None  # declared by stateful
    return context.state


class _OfHeads(NamedTuple):
    """What the heads that count know of all tokens, in head space.

    Attributes:
      queries, keys: unscaled.
      compared: outputs and means at their own lengths.
    """

    queries: Float[Array, "B H N F"]
    keys: Float[Array, "B H N F"]
    compared: Compared


def _in_head_space(record: AttentionRecord, *, head: Array | None, factor: int) -> _OfHeads:
    """What heads know of all tokens.

    Let a_ki be what head k attends to for token i. Then u_i = sum_k O_k' a_ki and m_hj = c O_h' v_hj. It follows that
    u_i . m_hj = (c sum_k O_h O_k' a_ki) . v_hj and |m_hj|^2 = c^2 v_hj' (O_h O_h') v_hj. So neither means nor outputs
    are needed. Where one head counts, nothing of the others is.

    Args:
      record: of all heads.
      head: index of the one that counts, [B] or the same for all sequences []; None for all heads.
      factor: c, H or 1.
    """
    queries, keys, values, kernel = record.queries, record.keys, record.values, record.output_kernel
    counting = kernel
    if head is not None and head.ndim == 0:
        counting = jax.lax.dynamic_index_in_dim(kernel, head)
        queries, keys, values = (
            jax.lax.dynamic_index_in_dim(array, head, axis=-2) for array in (queries, keys, values)
        )
    products = factor * float32_einsum("hfd,kgd->hfkg", counting, kernel)
    own = factor**2 * float32_einsum("hfd,hgd->hfg", counting, counting)
    if head is not None and head.ndim == 1:
        index = head[..., None, None, None]
        queries, keys, values = (
            jnp.take_along_axis(array, index, axis=-2, mode="promise_in_bounds") for array in (queries, keys, values)
        )
        products, own = (array.at[head].get(mode="promise_in_bounds")[:, None] for array in (products, own))
    # [B, N, H, F] -> [B, H, N, F]
    queries, keys, values = (jnp.swapaxes(array, -3, -2) for array in (queries, keys, values))
    outputs = float32_einsum("...nkg,...hfkg->...hnf", record.attended, products)
    squares = jnp.sum(float32_einsum("...hnf,...hfg->...hng", values, own) * values.astype(jnp.float32), axis=-1)
    return _OfHeads(queries, keys, Compared(outputs, values, squares))


def raw_outputs(record: AttentionRecord) -> Float[Array, "B N D"]:
    """u, without the output bias."""
    return float32_einsum("bnkf,kfd->bnd", record.attended, record.output_kernel)


def head_of(context: StepContext, options: Options) -> Array | None:
    """Index of the only head that counts, as :func:`_in_head_space` takes it."""
    if options.heads == "running":
        return jnp.argmin(attention_state.entropies_of(state_of(context)))
    if options.heads == "posterior" or differs_by_token(context, options):
        return None
    return jax.lax.argmin(record_of(context).head_entropies, 1, jnp.uint32)  # an index that needs no check


def differs_by_token(context: StepContext, options: Options) -> bool:
    """Whether each token has a head of its own that counts."""
    return options.heads in ("lowest_entropy", "prefix") and context.mask is not None


def _mean_output(context: StepContext, outputs: Float[Array, "B H N C"]) -> Float[Array, "B H #N C"]:
    """Of the tokens that each token may know."""
    if context.mask is None and context.real is not None:
        real = context.real[:, None, :, None].astype(jnp.float32)
        return jnp.sum(outputs * real, axis=-2, keepdims=True) / jnp.maximum(jnp.sum(real, -2, keepdims=True), 1.0)
    return evidence.mean_over_known(outputs, rows_of_mask(context.mask, outputs.shape[-2]), None)


class Posterior(NamedTuple):
    """The posterior of a layer.

    Attributes:
      apply: ``use`` and columns -> what :func:`map_posterior` makes of them.
      at_length: outputs and means before they are centered.
      squares: |m_hj|^2 of the means as they are.
    """

    apply: Callable[[Callable[..., Array], Tree], Array]
    at_length: Compared
    squares: Float[Array, "B H N"]


def posterior_of(context: StepContext, options: Options) -> Posterior:
    """The posterior over the heads that the options name."""
    record = record_of(context)
    factor = options.factor(record.output_kernel.shape[0])
    of_heads = _in_head_space(record, head=head_of(context, options), factor=factor)
    at_length, length = of_heads.compared, options.length(context)
    if length is not None:
        squares = evidence.squared_lengths(raw_outputs(record))[:, None]
        at_length = evidence.at_length(at_length, squares, length)
    compared = at_length
    if options.center:
        compared = evidence.centered(at_length, _mean_output(context, at_length.outputs))
    of_rows = RowsOfHeads(of_heads.queries, compared.outputs, record.relative_keys)
    head = None
    if differs_by_token(context, options):
        mask_rows = of_rows.mask_rows(context.mask)
        if record.token_entropies is None:
            entropies = head_entropies(of_heads.queries, of_heads.keys, mask_rows, options.block_size)
        else:  # [B, N, H] -> [B, H, N, 1]
            entropies = jnp.swapaxes(record.token_entropies, 1, 2)[..., None]
        head = head_of_each_token(entropies, mask_rows, options.block_size)

    def apply(use: Callable[..., Array], columns: Tree) -> Array:
        return map_posterior(
            use,
            of_rows,
            ColumnsOfHeads(of_heads.keys, compared.means, compared.squares),
            columns,
            variance=options.variance(context),
            all_heads=options.heads == "posterior",
            head=head,
            mask_rows=of_rows.mask_rows(context.graph_mask),
            block_size=options.block_size,
        )

    return Posterior(apply, at_length, of_heads.compared.squares)
