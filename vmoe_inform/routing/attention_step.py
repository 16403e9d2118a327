"""The attention posterior as an inform step: which head counts for a token, and what the layer's record says of it."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Float, Int, Tree
from vmoe_inform.routing.graphs import mix, normalize_rows
from vmoe_inform.routing.posteriors import SeenByHeads, head_entropies, head_of_each_token, map_posterior
from vmoe_inform.routing.products import float32_einsum
from vmoe_inform.routing.steps import AttentionRecord, LayerSizes, StepContext, register_inform

Heads = Literal["lowest_entropy", "prefix", "running", "posterior"]


def _seen_by_heads(record: AttentionRecord, *, head: Array | None, head_factor: bool) -> SeenByHeads:
    """What heads know of the tokens, in head space.

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
    return SeenByHeads(queries, keys, outputs, values, squares, record.relative_keys)


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
    by_token = heads in ("lowest_entropy", "prefix") and context.mask is not None
    head: Array | None = None
    if heads == "running":
        assert context.state is not None  # declared by stateful
        head = jnp.argmin(context.state)
    elif heads != "posterior" and not by_token:
        head = jax.lax.argmin(record.head_entropies, 1, jnp.uint32)  # an index that needs no check
    seen = _seen_by_heads(record, head=head, head_factor=head_factor)
    head_of_token = None
    if by_token:
        mask_rows = seen.mask_rows(context.mask)
        if record.token_entropies is None:
            entropies = head_entropies(seen.queries, seen.keys, mask_rows, block_size)
        else:  # [B, N, H] -> [B, H, N, 1]
            entropies = jnp.swapaxes(record.token_entropies, 1, 2)[..., None]
        head_of_token = head_of_each_token(entropies, mask_rows, block_size)
    return map_posterior(
        use,
        seen,
        columns,
        sigma=sigma,
        all_heads=heads == "posterior",
        head=head_of_token,
        mask=context.graph_mask,
        block_size=block_size,
    )


def _posterior_graph(context: StepContext, *, decay: float, **options: Any) -> Float[Array, "B N N"]:
    num_tokens = context.tokens.shape[1]

    def rows_of_graph(weights: Float[Array, "B R J"], columns: None) -> Float[Array, "B R N"]:
        return jnp.pad(normalize_rows(weights), ((0, 0), (0, 0), (0, num_tokens - weights.shape[-1])))

    return _map_posterior(rows_of_graph, context, None, **options)


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
