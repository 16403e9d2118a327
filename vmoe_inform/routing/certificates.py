r"""Certificates: how far a token's base probabilities may move before its set of experts can change.

Lengths are Euclidean. A token's experts are the K largest of $p = A r$. A perturbation of that token replaces r by
another distribution $r + d$, so that d sums to 0. A is the matrix as it is applied, of a plain router the identity.
"""

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Float, Int
from vmoe_inform.routing.adjacency import expert_informed, with_identity_rows
from vmoe_inform.routing.selection import check_num_selected

_SINGULAR_VALUES = 1e-5  # relative error of the largest one in float32


def difference_norm(adjacency: Float[Array, "E E"]) -> Float[Array, ""]:
    r"""rho: how much A can lengthen a change of the base probabilities, without what it adds to all experts alike.

    $$\rho = \lVert \Pi A \, \Pi \rVert_2, \quad \Pi = I - \tfrac{1}{E} 1 1^\top$$

    Differences of distributions sum to 0, and adding the same to all experts changes no choice. Pi takes out both. Of
    the identity rho is 1. Of a symmetric doubly stochastic matrix it is the second largest absolute eigenvalue, the rho
    of SymphonySMoE's Proposition 1. Of a matrix whose rows sum to 1 it may be above 1, whatever its eigenvalues are.

    Args:
      adjacency: A [E, E]; a zero row acts as an identity row.

    Raises:
      ValueError: the adjacency is not square.
    """
    num_experts = adjacency.shape[-1]
    checks.shape("adjacency", adjacency.shape, (num_experts, num_experts))
    matrix = with_identity_rows(adjacency)
    matrix -= jnp.mean(matrix, axis=0, keepdims=True)
    matrix -= jnp.mean(matrix, axis=1, keepdims=True)
    return jnp.linalg.norm(matrix, ord=2)


def margin_radius(
    probabilities: Float[Array, "*batch N E"], adjacency: Float[Array, "E E"], k: int
) -> Float[Array, "*batch N"]:
    r"""The certificate of SymphonySMoE's Proposition 1, for any matrix: a shorter perturbation keeps the K experts.

    $$\frac{p_{(K)} - p_{(K+1)}}{2 \rho}$$

    Proof. Let expert j be chosen and l not, and e_j, e_l their unit vectors. Perturbed by d, $p_j - p_l$ changes by
    $(e_j - e_l)^\top A d = (e_j - e_l)^\top \Pi A \, \Pi d$, since d and $e_j - e_l$ sum to 0. By Cauchy and Schwarz
    that is at most $\sqrt{2} \rho \lVert d \rVert \le 2 \rho \lVert d \rVert$. It is less than the margin, which is at
    most $p_j - p_l$. So j stays ahead of l, for all such pairs. The paper's own proof needs A symmetric and doubly
    stochastic; rho of :func:`difference_norm` is what it takes in general.

    Args:
      probabilities: base probabilities r [..., N, E].
      adjacency: A [E, E].
      k: K, experts of a token; for K = E nothing can change, and the radius is infinite.

    Returns:
      [..., N], float32. What arithmetic in float32 may round is taken off the margin.

    Raises:
      ValueError: k outside 1..E, or shapes that do not fit.
    """
    gaps, _ = _gaps(probabilities, adjacency, k)
    rho = difference_norm(adjacency) * (1.0 + _SINGULAR_VALUES) + _rounding(adjacency)
    return jnp.min(gaps, axis=(-2, -1)) / (2.0 * rho)


def pairwise_radius(
    probabilities: Float[Array, "*batch N E"], adjacency: Float[Array, "E E"], k: int
) -> Float[Array, "*batch N"]:
    r"""The largest radius that can be certified: as :func:`margin_radius`, with the rows of each pair of experts.

    $$\min_{j \text{ chosen}, \; l \text{ not}} \frac{p_j - p_l}{\lVert \Pi (a_j - a_l) \rVert_2}$$

    a_j is row j of A. It is at least sqrt(2) times the margin's. A perturbation of this length, along
    $-\Pi (a_j - a_l)$ of the closest pair, ties that pair. No larger radius holds, unless r + d has negative entries.

    Args, returns, raises: as :func:`margin_radius`.
    """
    gaps, chosen = _gaps(probabilities, adjacency, k)
    rows = with_identity_rows(adjacency)
    rows -= jnp.mean(rows, axis=-1, keepdims=True)
    lengths = jnp.linalg.norm(rows[:, None] - rows[None], axis=-1) + _rounding(adjacency)  # [E, E]
    return jnp.min(gaps / lengths[chosen], axis=(-2, -1))


def _gaps(
    probabilities: Float[Array, "*batch N E"], adjacency: Float[Array, "E E"], k: int
) -> tuple[Float[Array, "*batch N K E"], Int[Array, "*batch N K"]]:
    """The chosen experts, and how far each is ahead of each other expert, less rounding; infinite for chosen ones."""
    num_experts = probabilities.shape[-1]
    check_num_selected(k, num_experts)
    informed = expert_informed(probabilities, adjacency)
    values, chosen = jax.lax.top_k(informed, k)
    gaps = jnp.maximum(values[..., :, None] - informed[..., None, :] - _rounding(adjacency), 0.0)
    is_chosen = jnp.any(jax.nn.one_hot(chosen, num_experts, dtype=bool), axis=-2, keepdims=True)
    return jnp.where(is_chosen, jnp.inf, gaps), chosen


def _rounding(adjacency: Float[Array, "E E"]) -> Float[Array, ""]:
    """What float32 may round: products of E terms up to the largest entry, of two experts, before and after."""
    largest = jnp.max(jnp.abs(with_identity_rows(adjacency)))
    return 4 * adjacency.shape[-1] * jnp.finfo(jnp.float32).eps * largest
