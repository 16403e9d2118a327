"""The attention posterior as an inform step: which head counts for a token, and what the layer's record says of it."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Float, Int, Tree
from vmoe_inform.routing.graphs import mix, normalize_rows
from vmoe_inform.routing.masks import rows_of_next
from vmoe_inform.routing.posteriors import (
    ColumnsOfHeads,
    RowsOfHeads,
    head_entropies,
    head_of_each_token,
    map_posterior,
)
from vmoe_inform.routing.products import float32_einsum
from vmoe_inform.routing.steps import AttentionRecord, LayerSizes, StepContext, register_inform

Heads = Literal["lowest_entropy", "prefix", "running", "posterior"]


def _in_head_space(
    record: AttentionRecord, *, head: Array | None, head_factor: bool
) -> tuple[RowsOfHeads, ColumnsOfHeads]:
    """What heads know of all tokens, in head space.

    Let a_ki be what head k attends to for token i. Then u_i = sum_k O_k' a_ki and m_hj = c O_h' v_hj. It follows that
    u_i . m_hj = (c sum_k O_h O_k' a_ki) . v_hj and |m_hj|^2 = c^2 v_hj' (O_h O_h') v_hj. So neither means nor outputs
    are needed. Where one head counts, nothing of the others is.

    Args:
      record: of all heads.
      head: index of the one that counts, [B] or the same for all sequences []; None for all heads.
      head_factor: whether c is H, or 1.
    """
    queries, keys, values, kernel = record.queries, record.keys, record.values, record.output_kernel
    factor = kernel.shape[0] if head_factor else 1
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
    return RowsOfHeads(queries, outputs, record.relative_keys), ColumnsOfHeads(keys, values, squares)


def _head(context: StepContext, heads: str) -> Array | None:
    """Index of the only head that counts, as :func:`_in_head_space` takes it."""
    if heads == "running":
        assert context.state is not None  # declared by stateful
        return jnp.argmin(context.state)
    if heads == "posterior" or _differs_by_token(context, heads):
        return None
    assert context.attention is not None  # declared by needs_attention
    return jax.lax.argmin(context.attention.head_entropies, 1, jnp.uint32)  # an index that needs no check


def _differs_by_token(context: StepContext, heads: str) -> bool:
    """Whether each token has a head of its own that counts."""
    return heads in ("lowest_entropy", "prefix") and context.mask is not None


def _map_posterior(
    use: Callable[..., Array],
    context: StepContext,
    columns: Tree,
    *,
    heads: str,
    head_factor: bool,
    sigma: float,
    block_size: int | None,
) -> Array:
    """``use`` of the rows of the graph over the heads that the options name."""
    record = context.attention
    assert record is not None  # declared by needs_attention
    of_rows, of_columns = _in_head_space(record, head=_head(context, heads), head_factor=head_factor)
    head = None
    if _differs_by_token(context, heads):
        mask_rows = of_rows.mask_rows(context.mask)
        if record.token_entropies is None:
            entropies = head_entropies(of_rows.queries, of_columns.keys, mask_rows, block_size)
        else:  # [B, N, H] -> [B, H, N, 1]
            entropies = jnp.swapaxes(record.token_entropies, 1, 2)[..., None]
        head = head_of_each_token(entropies, mask_rows, block_size)
    return map_posterior(
        use,
        of_rows,
        of_columns,
        columns,
        sigma=sigma,
        all_heads=heads == "posterior",
        head=head,
        mask_rows=of_rows.mask_rows(context.graph_mask),
        block_size=block_size,
    )


def _posterior_graph(context: StepContext, *, decay: float, **options: Any) -> Float[Array, "B N N"]:
    num_tokens = context.tokens.shape[1]

    def rows_of_graph(weights: Float[Array, "B R J"], columns: None) -> Float[Array, "B R N"]:
        return jnp.pad(normalize_rows(weights), ((0, 0), (0, 0), (0, num_tokens - weights.shape[-1])))

    return _map_posterior(rows_of_graph, context, None, **options)


class _Kept(NamedTuple):
    """What later tokens need of a token. ``of_heads`` is as :class:`ColumnsOfHeads`, with [B, N, H] for [B, H, N]."""

    of_heads: ColumnsOfHeads
    entropies: Float[Array, "B N H"] | None
    probabilities: Float[Array, "B N E"]


def _columns(
    probabilities: Float[Array, "B n E"], context: StepContext, *, heads: str, head_factor: bool, **options: object
) -> _Kept:
    record, head = context.attention, _head(context, heads)
    assert record is not None  # declared by needs_attention
    kernel = _of_head(record.output_kernel, head, axis=0)
    keys, values = (_of_head(array, head, axis=2) for array in (record.keys, record.values))
    means = float32_einsum("bnhf,hfd->bnhd", values, kernel)
    factor = record.output_kernel.shape[0] if head_factor else 1
    of_heads = ColumnsOfHeads(keys, values, factor**2 * jnp.sum(means**2, axis=-1))
    return _Kept(of_heads, record.token_entropies if _differs_by_token(context, heads) else None, probabilities)


def _of_head(array: Array, head: Array | None, *, axis: int) -> Array:
    """The part of the only head that counts for all sequences; all of it if there is none."""
    return array if head is None else jax.lax.dynamic_index_in_dim(array, head, axis=axis)


def _rows(
    context: StepContext,
    columns: _Kept,
    *,
    heads: str,
    head_factor: bool,
    sigma: float,
    block_size: int | None,
    **options: object,
) -> Float[Array, "B n E"]:
    record, head = context.attention, _head(context, heads)
    assert record is not None  # declared by needs_attention
    # Few rows: products of their outputs with kernels are fewer than those of the kernels with each other.
    outputs = float32_einsum("bnkf,kfd->bnd", record.attended, record.output_kernel)
    outputs = float32_einsum("bnd,hfd->bhnf", outputs, _of_head(record.output_kernel, head, axis=0))
    factor = record.output_kernel.shape[0] if head_factor else 1
    queries = jnp.swapaxes(_of_head(record.queries, head, axis=2), 1, 2)
    of_rows = RowsOfHeads(queries, factor * outputs, record.relative_keys)
    num_rows, head_of_token = queries.shape[-2], None
    if columns.entropies is not None:
        entropies = jnp.swapaxes(columns.entropies, 1, 2)[..., None]
        head_of_token = head_of_each_token(entropies, rows_of_next(num_rows, context.first), block_size)
    return map_posterior(
        mix,
        of_rows,
        jax.tree.map(lambda array: jnp.swapaxes(array, 1, 2), columns.of_heads),
        columns.probabilities,
        sigma=sigma,
        all_heads=heads == "posterior",
        head=head_of_token,
        mask_rows=rows_of_next(num_rows, context.first, of_rows.span),
        block_size=block_size,
    )


def _check_heads(sizes: LayerSizes, *, heads: str, **options: object) -> None:
    if sizes.causal and heads == "lowest_entropy":
        expected = "'prefix', 'running' or 'posterior' in a causal model: the mean is over later tokens too"
        raise checks.error("heads", expected, heads)


def _keeps_entropies(*, heads: str, **options: object) -> bool:
    return heads == "running"


def _initial_entropies(key: Array, sizes: LayerSizes, **options: object) -> Float[Array, " H"]:
    return jnp.zeros((sizes.num_heads,), jnp.float32)


def _sum_entropies(context: StepContext, indices: Int[Array, "B N K"], **options: object) -> Tree:
    assert context.attention is not None  # declared by needs_attention
    entropies = context.attention.head_entropies
    return {"entropies": jnp.sum(entropies, axis=0), "sequences": jnp.asarray(len(entropies), jnp.float32)}


def _average_entropies(
    state: Float[Array, " H"], observed: Tree, parameters: Mapping[str, Array], *, decay: float, **options: object
) -> Float[Array, " H"]:
    return decay * state + (1.0 - decay) * observed["entropies"] / observed["sequences"]


@register_inform(
    "attention",
    needs_attention=True,
    graph=_posterior_graph,
    columns=_columns,
    rows=_rows,
    looks_ahead=False,
    check=_check_heads,
    initial_state=_initial_entropies,
    stateful=_keeps_entropies,
    observe=_sum_entropies,
    update_state=_average_entropies,
)
def attention_step(
    probabilities: Float[Array, "B N E"],
    context: StepContext,
    *,
    sigma: checks.Scale = 1.0,
    heads: Heads = "lowest_entropy",
    head_factor: bool = True,
    decay: checks.ShareBelowOne = 0.9,
    block_size: checks.PositiveInt | None = None,
) -> Float[Array, "B N E"]:
    """Tokens inform each other by the attention posterior (Mutual-Inform SMoE, Definition 2).

    ``heads`` says which heads count. ``"lowest_entropy"`` is the one with the lowest mean entropy over the sequence
    (Eq. 15), and ``"posterior"`` sums over all (Lemma 1). ``"prefix"`` is the head with the lowest mean entropy over
    the tokens that a token may know, in a causal model those up to itself. ``"running"`` is the one whose mean entropy
    was the lowest in training: a moving average with ``decay``, kept as a state. ``head_factor=False`` drops the factor
    H of the means (Eq. 1).
    """
    return _map_posterior(
        mix, context, probabilities, heads=heads, head_factor=head_factor, sigma=sigma, block_size=block_size
    )
