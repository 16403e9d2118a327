"""Symphony's expert graph: experts that are chosen together inform each other (SymphonySMoE, arXiv 2510.16411)."""

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Float, Int
from vmoe_inform.routing.products import float32_einsum

NORMALIZATIONS = ("row", "column", "symmetric", "doubly_stochastic")
_SINKHORN_ITERATIONS = 64


def _holds(indices: Int[Array, "*batch N K"], num_experts: int) -> Float[Array, "tokens E"]:
    """[..., N, K] -> [tokens, E], one where the token holds the expert; an index E stands for none."""
    return jnp.sum(jax.nn.one_hot(indices.reshape(-1, indices.shape[-1]), num_experts, dtype=jnp.float32), axis=-2)


def coselection_counts(
    indices: Int[Array, "*batch N K"], num_experts: int, *, diagonal: bool = True
) -> Float[Array, "E E"]:
    r"""Counts the tokens whose K experts hold both j and k, over all leading axes.

    $$C_{jk} = \sum_i z_{ij} \, z_{ik}, \quad z_{ij} = 1 \text{ if token } i \text{ chose expert } j$$

    Args:
      indices: experts of each token [..., N, K], distinct within a token.
      num_experts: E.
      diagonal: whether counts[j,j], the tokens that hold j, is kept or set to 0.

    Returns:
      counts [E, E], float32 (exact up to 2^24 tokens), symmetric.
    """
    holds = _holds(indices, num_experts)
    counts = float32_einsum("te,tf->ef", holds, holds)
    return counts if diagonal else counts * (1.0 - jnp.eye(num_experts))


def _divide_by_sums(counts: Float[Array, "E E"], axis: int) -> Float[Array, "E E"]:
    sums = jnp.sum(counts, axis=axis, keepdims=True)
    return counts / jnp.where(sums > 0, sums, 1.0)


def normalize_adjacency(counts: Float[Array, "E E"], *, normalization: str = "row") -> Float[Array, "E E"]:
    r"""Counts as conditional probabilities; rows (columns) without a count stay zero.

    $$\hat A_{jk} = \frac{C_{jk}}{\sum_l C_{jl}} \quad \text{with normalization="row"}$$

    ``"symmetric"`` divides by the square roots of the sums of row and column. D holds the sums of the rows:

    $$\hat A = D^{-1/2} C \, D^{-1/2}$$

    For the symmetric counts of co-selection its eigenvalues are between -1 and 1, so that it never lengthens a vector.
    Its rows need not sum to 1.

    ``"doubly_stochastic"`` alternates columns and rows (Sinkhorn) for 64 rounds. Rows then sum to 1, and columns nearly
    do, if the counts are positive. No doubly stochastic matrix has the zeros of [[1, 1], [1, 0]], for instance. A
    column can be off by a hundredth there.

    Args:
      counts: C [E, E], not negative.
      normalization: ``"row"`` (SymphonySMoE's estimate of p(k | j)), ``"column"``, ``"symmetric"`` or
        ``"doubly_stochastic"``.

    Raises:
      ValueError: unknown normalization, or counts that are not [E, E].
    """
    if normalization not in NORMALIZATIONS:
        raise checks.error("normalization", f"one of {', '.join(map(repr, NORMALIZATIONS))}", normalization)
    checks.shape("counts", counts.shape, (counts.shape[-1], counts.shape[-1]))
    counts = counts.astype(jnp.float32)
    if normalization == "row":
        return _divide_by_sums(counts, axis=1)
    if normalization == "column":
        return _divide_by_sums(counts, axis=0)
    if normalization == "symmetric":
        roots = [jnp.sqrt(jnp.sum(counts, axis=axis, keepdims=True)) for axis in (0, 1)]
        return counts / (jnp.where(roots[0] > 0, roots[0], 1.0) * jnp.where(roots[1] > 0, roots[1], 1.0))
    return jax.lax.fori_loop(
        0, _SINKHORN_ITERATIONS, lambda _, matrix: _divide_by_sums(_divide_by_sums(matrix, axis=0), axis=1), counts
    )


def update_adjacency(
    adjacency: Float[Array, "E E"], counts: Float[Array, "E E"], *, decay: float = 0.9, normalization: str = "row"
) -> Float[Array, "E E"]:
    r"""Moving average of the adjacency (SymphonySMoE, Sec. 2.2); no gradient flows through it.

    $$A \leftarrow \beta A + (1 - \beta) \hat A$$

    Args:
      adjacency: A [E, E].
      counts: C [E, E]; :func:`normalize_adjacency` turns them into the estimate of this step.
      decay: beta, 0 to 1.
      normalization: see :func:`normalize_adjacency`.

    Returns:
      A [E, E], float32.

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


def update_adjacency_oja(
    adjacency: Float[Array, "E E"], counts: Float[Array, "E E"], *, decay: float = 0.9
) -> Float[Array, "E E"]:
    r"""Hebbian update: the row of an expert learns when that expert fires, and is kept when it does not.

    $$A_j \leftarrow \beta^{u_j} A_j + (1 - \beta^{u_j}) \hat A_j, \quad
    u_j = \frac{C_{jj}}{\frac{1}{E} \sum_k C_{kk}}$$

    Symphony's update moves all rows alike, so that the row of an unused expert fades. Oja's rule (1982) is
    dA_j = rate mean[z_j (x - z_j A_j)]. Its input is the token's assignment x = z / K, its output the firing z_j. It
    pulls row j to p(k | j), at a speed proportional to how often j fires. The update above follows it exactly over
    one step of constant counts. It equals :func:`update_adjacency` with row normalisation if all experts fire alike.

    Args:
      adjacency: A [E, E].
      counts: co-selection counts C [E, E] with their diagonal.
      decay: beta, 0 to 1, for an expert that fires as often as the mean.

    Raises:
      ValueError: decay outside [0, 1], or shapes that do not fit.
    """
    if not checks.Bound(at_least=0.0, at_most=1.0).holds(decay):
        raise checks.error("decay", "a number >= 0 and <= 1", decay)
    checks.shape("counts", counts.shape, adjacency.shape)
    fires = jnp.diagonal(counts).astype(jnp.float32)
    mean = jnp.mean(fires)
    usage = fires / jnp.where(mean > 0, mean, 1.0)
    # 0^0 = 1: an expert that does not fire keeps its row even with decay 0.
    kept = jnp.power(jnp.asarray(decay, jnp.float32), usage)[:, None]
    return jax.lax.stop_gradient(kept * adjacency.astype(jnp.float32) + (1.0 - kept) * normalize_adjacency(counts))


def transition_counts(
    before: Int[Array, "*batch N K"], after: Int[Array, "*batch N K"], num_experts: int
) -> Float[Array, "E E"]:
    """Counts the tokens whose K experts hold j in the layer before and k in this one, over all leading axes.

    Returns:
      counts [E, E], float32 (exact up to 2^24 tokens).

    Raises:
      ValueError: experts of different tokens.
    """
    checks.shape("after", after.shape[:-1], before.shape[:-1])
    return float32_einsum("te,tf->ef", _holds(before, num_experts), _holds(after, num_experts))


def transition_informed(
    probabilities: Float[Array, "*batch N E"],
    previous: Float[Array, "*batch N E"],
    adjacency: Float[Array, "E E"],
    *,
    share: float = 0.5,
) -> Float[Array, "*batch N E"]:
    r"""What the layer before suggests, mixed with the layer's own choice.

    $$p_i = (1 - s \, m_i) \, r_i + s \, A^\top q_i, \quad m_i = \sum_k (A^\top q_i)_k$$

    q_i are the probabilities of the layer before. A[j,k] estimates p(expert k here | expert j there). While nothing is
    known of a token's experts (zero rows of A), r_i stays as it is.

    Args:
      probabilities: r [..., N, E].
      previous: q [..., N, E], rows sum to at most 1.
      adjacency: A [E, E], rows sum to at most 1; no gradient flows into it.
      share: s, 0 to 1.

    Raises:
      ValueError: share outside [0, 1], or shapes that do not fit.
    """
    if not checks.Bound(at_least=0.0, at_most=1.0).holds(share):
        raise checks.error("share", "a number >= 0 and <= 1", share)
    num_experts = probabilities.shape[-1]
    checks.shape("previous", previous.shape, probabilities.shape)
    checks.shape("adjacency", adjacency.shape, (num_experts, num_experts))
    suggested = share * float32_einsum("jk,...nj->...nk", jax.lax.stop_gradient(adjacency), previous)
    # Where the suggestion has all the mass, rounding must not leave a negative share for r.
    own = jnp.maximum(1.0 - jnp.sum(suggested, axis=-1, keepdims=True), 0.0)
    return own * probabilities.astype(jnp.float32) + suggested


def expert_informed(
    probabilities: Float[Array, "*batch N E"], adjacency: Float[Array, "E E"]
) -> Float[Array, "*batch N E"]:
    r"""Mixes the probabilities of experts that are chosen together (SymphonySMoE).

    $$p_{ij} = \sum_k A_{jk} \, r_{ik}$$

    A zero row of A acts as an identity row. The result need not sum to 1. No gradient flows into the adjacency.

    Args:
      probabilities: r [..., N, E].
      adjacency: A [E, E].

    Returns:
      p [..., N, E], float32.

    Raises:
      ValueError: the adjacency is not [E, E].
    """
    num_experts = probabilities.shape[-1]
    checks.shape("adjacency", adjacency.shape, (num_experts, num_experts))
    return float32_einsum("jk,...nk->...nj", jax.lax.stop_gradient(with_identity_rows(adjacency)), probabilities)


def with_identity_rows(adjacency: Float[Array, "E E"]) -> Float[Array, "E E"]:
    """The matrix with identity rows in place of zero rows: :func:`expert_informed` applies it so."""
    empty = jnp.all(adjacency == 0, axis=-1, keepdims=True)
    return jnp.where(empty, jnp.eye(adjacency.shape[-1]), adjacency.astype(jnp.float32))
