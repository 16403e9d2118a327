"""Symphony's expert graph: experts that are chosen together inform each other (000, SymphonySMoE)."""

from typing import Literal

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Float, Int
from vmoe_inform.routing.products import float32_einsum
from vmoe_inform.routing.steps import InformContext, LayerSizes, register_inform

Normalization = Literal["row", "column", "doubly_stochastic"]
_NORMALIZATIONS = ("row", "column", "doubly_stochastic")
_SINKHORN_ITERATIONS = 64


def coselection_counts(
    indices: Int[Array, "*batch N K"], num_experts: int, *, diagonal: bool = True
) -> Float[Array, "E E"]:
    """Counts the tokens whose K experts hold both j and k, over all leading axes.

    Args:
      indices: experts of each token [..., N, K], distinct within a token.
      num_experts: E.
      diagonal: whether counts[j,j], the tokens that hold j, is kept or set to 0.

    Returns:
      counts [E, E], float32 (exact up to 2^24 tokens), symmetric.
    """
    # [..., N, K] -> [tokens, E], one where the token holds the expert
    holds = jnp.sum(jax.nn.one_hot(indices.reshape(-1, indices.shape[-1]), num_experts, dtype=jnp.float32), axis=-2)
    counts = float32_einsum("te,tf->ef", holds, holds)
    return counts if diagonal else counts * (1.0 - jnp.eye(num_experts))


def _divide_by_sums(counts: Float[Array, "E E"], axis: int) -> Float[Array, "E E"]:
    sums = jnp.sum(counts, axis=axis, keepdims=True)
    return counts / jnp.where(sums > 0, sums, 1.0)


def normalize_adjacency(counts: Float[Array, "E E"], *, normalization: str = "row") -> Float[Array, "E E"]:
    """Counts as conditional probabilities; rows (columns) without a count stay zero.

    Args:
      counts: [E, E], not negative.
      normalization: ``"row"`` (rows sum to 1: 000's estimate of p(expert | expert)), ``"column"``, or
        ``"doubly_stochastic"`` (64 rounds of Sinkhorn's alternation, columns then rows: rows sum to 1, columns as
        nearly as so many rounds bring them. For positive counts that is close; where zeros leave no doubly stochastic
        matrix of the same pattern, as in [[1, 1], [1, 0]], a column can still be off by a hundredth).

    Raises:
      ValueError: unknown normalization, or counts that are not [E, E].
    """
    if normalization not in _NORMALIZATIONS:
        raise checks.error("normalization", f"one of {', '.join(map(repr, _NORMALIZATIONS))}", normalization)
    checks.shape("counts", counts.shape, (counts.shape[-1], counts.shape[-1]))
    counts = counts.astype(jnp.float32)
    if normalization == "row":
        return _divide_by_sums(counts, axis=1)
    if normalization == "column":
        return _divide_by_sums(counts, axis=0)
    return jax.lax.fori_loop(
        0, _SINKHORN_ITERATIONS, lambda _, matrix: _divide_by_sums(_divide_by_sums(matrix, axis=0), axis=1), counts
    )


def update_adjacency(
    adjacency: Float[Array, "E E"], counts: Float[Array, "E E"], *, decay: float = 0.9, normalization: str = "row"
) -> Float[Array, "E E"]:
    """A <- decay A + (1 - decay) normalized counts (000, Sec. 2.2); no gradient flows through it.

    Raises:
      ValueError: decay outside [0, 1], unknown normalization, or shapes that do not fit.
    """
    if not checks.Bound(at_least=0.0, at_most=1.0).holds(decay):
        raise checks.error("decay", "a number >= 0 and <= 1", decay)
    checks.shape("counts", counts.shape, adjacency.shape)
    updated = decay * adjacency.astype(jnp.float32) + (1.0 - decay) * normalize_adjacency(
        counts, normalization=normalization
    )
    return jax.lax.stop_gradient(updated)


def expert_informed(
    probabilities: Float[Array, "*batch N E"], adjacency: Float[Array, "E E"]
) -> Float[Array, "*batch N E"]:
    """p_i = A r_i (000): p_i[j] = sum_k A[j,k] r_i[k]; a row of A that is all zero acts as an identity row.

    The result need not sum to 1. No gradient flows into the adjacency.

    Raises:
      ValueError: the adjacency is not [E, E].
    """
    num_experts = probabilities.shape[-1]
    checks.shape("adjacency", adjacency.shape, (num_experts, num_experts))
    empty = jnp.all(adjacency == 0, axis=-1, keepdims=True)
    matrix = jax.lax.stop_gradient(jnp.where(empty, jnp.eye(num_experts), adjacency.astype(jnp.float32)))
    return float32_einsum("jk,...nk->...nj", matrix, probabilities)


def _initial_adjacency(sizes: LayerSizes, *, initial_value: float, **options: object) -> Float[Array, "E E"]:
    return jnp.full((sizes.num_experts, sizes.num_experts), initial_value, jnp.float32)


def _update(
    state: Float[Array, "E E"],
    indices: Int[Array, "B N K"],
    *,
    decay: float,
    normalization: str,
    diagonal: bool,
    **options: object,
) -> Float[Array, "E E"]:
    counts = coselection_counts(indices, state.shape[-1], diagonal=diagonal)
    return update_adjacency(state, counts, decay=decay, normalization=normalization)


@register_inform("symphony", initial_state=_initial_adjacency, update_state=_update)
def symphony_step(
    probabilities: Float[Array, "B N E"],
    context: InformContext,
    *,
    decay: checks.Share = 0.9,
    normalization: Normalization = "row",
    diagonal: bool = True,
    threshold: checks.NonNegativeFloat = 0.0,
    initial_value: checks.NonNegativeFloat = 0.0,
) -> Float[Array, "B N E"]:
    """Symphony (000): expert adjacency as state; entries below ``threshold`` are left out (0.05 in the paper)."""
    assert context.state is not None  # declared by initial_state
    adjacency = jnp.where(context.state < threshold, 0.0, context.state)
    return expert_informed(probabilities, adjacency)
