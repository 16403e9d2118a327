"""Adaptive clustering router (ACMoE, arXiv 2502.15315): each token in the features along which its cluster is tight.

The cluster of a token is the first expert of its base choice in the MoE layer before. A feature weighs the more, the
less the tokens of that cluster vary in it. Experts get the tokens as they are.

The authors' code (Fsoft-AIC/Tight-Clusters-Make-Specialized-Experts) measures each batch anew, in evaluation too. There
a token's choice depends on all others. Here means and deviations are moving averages over training, which evaluation
does not change. Their deviations are from the mean before the step, so that sums of the parts of a batch add up.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Float, Int, Tree
from vmoe_inform.routing.products import float32_einsum
from vmoe_inform.routing.scores import linear_parameters, linear_scores
from vmoe_inform.routing.steps import LayerSizes, Parameter, StepContext, register_score

Limit = Annotated[float, checks.Bound(at_least=1.0, at_most=1e6)]

_LEAST = 1e-4  # added to deviations, as in the authors' code


def cluster_weights(deviations: Float[Array, "E D"], *, limit: float) -> Float[Array, "E D"]:
    r"""Weight of each feature for the tokens of each cluster (ACMoE, arXiv 2502.15315, the AC router of Sec. 3).

    $$w_{kq} = \min \left( \frac{1}{s_{kq} + \epsilon}, \, \ell \bar w \right) / \bar w$$

    The bar is the mean of 1 / (s + epsilon) over clusters and features. Limit, epsilon = 1e-4 and scale are those of
    the authors' code for images.

    Args:
      deviations: s [E, D], mean absolute deviations from the cluster's mean, at least 0.
      limit: l, at least 1.

    Raises:
      ValueError: a limit below 1.
    """
    if not limit >= 1:
        raise checks.error("limit", "a number >= 1", limit)
    inverse = 1.0 / (deviations.astype(jnp.float32) + _LEAST)
    mean = jnp.mean(inverse)
    return jnp.minimum(inverse, limit * mean) / mean


def _parameters(sizes: LayerSizes, **options: Any) -> dict[str, Parameter]:
    return linear_parameters(sizes, bias=False)


def _start(key: Array, sizes: LayerSizes, **options: Any) -> Tree:
    """Clusters that are alike: the first step routes as a linear router does."""
    shape = (sizes.num_experts, sizes.hidden_size)
    return {"mean": jnp.zeros(shape), "deviation": jnp.ones(shape), "updates": jnp.zeros(sizes.num_experts)}


def _observe(context: StepContext, indices: Int[Array, "B N K"], **options: Any) -> Tree:
    """Tokens of each cluster, sums of their features, and of the features' distances from the cluster's mean."""
    state = context.state
    assert state is not None  # declared by initial_state
    num_experts, _ = shape = state["mean"].shape
    if context.previous is None:
        return {"count": jnp.zeros(num_experts), "sum": jnp.zeros(shape), "distance": jnp.zeros(shape)}
    tokens = context.tokens.astype(jnp.float32)
    clusters = _clusters(context)
    members = jax.nn.one_hot(clusters, num_experts, dtype=jnp.float32)
    if context.real is not None:
        members = jnp.where(context.real[..., None], members, 0.0)
    distances = jnp.abs(tokens - state["mean"][clusters])
    return {
        "count": jnp.sum(members, axis=(0, 1)),
        "sum": float32_einsum("bne,bnd->ed", members, tokens),
        "distance": float32_einsum("bne,bnd->ed", members, distances),
    }


def _update(state: Tree, observed: Tree, parameters: Mapping[str, Array], *, decay: float, **options: Any) -> Tree:
    """Averages of all updates of a cluster at first, then moving ones; a cluster without tokens keeps its own."""
    count = observed["count"][:, None]
    updates = state["updates"][:, None]
    share = jnp.where(count > 0, jnp.maximum(1.0 - decay, 1.0 / (updates + 1.0)), 0.0)

    def moved(name: str, total: Array) -> Array:
        return state[name] + share * (total / jnp.maximum(count, 1.0) - state[name])

    return {
        "mean": moved("mean", observed["sum"]),
        "deviation": moved("deviation", observed["distance"]),
        "updates": state["updates"] + (observed["count"] > 0),
    }


def _clusters(context: StepContext) -> Int[Array, "B N"]:
    assert context.previous is not None
    return context.previous.indices[..., 0]


@register_score(
    "adaptive_clusters",
    parameters=_parameters,
    initial_state=_start,
    observe=_observe,
    update_state=_update,
    needs_previous=True,
    training_options=("decay",),
)
def adaptive_clusters_step(
    context: StepContext, *, decay: checks.Share = 0.99, limit: Limit = 1.5
) -> Float[Array, "B N E"]:
    """A linear router of features that weigh more where the token's cluster is tight (ACMoE, arXiv 2502.15315).

    The first MoE layer has none before it, so there the router is linear. ``decay`` is that of the moving averages,
    ``limit`` the largest weight of a feature, where the mean is about 1.
    """
    tokens, state = context.tokens, context.state
    assert state is not None  # declared by initial_state
    if context.previous is not None:
        weights = jax.lax.stop_gradient(cluster_weights(state["deviation"], limit=limit))
        tokens = tokens.astype(jnp.float32) * weights[_clusters(context)]
    return linear_scores(tokens, context.parameters["kernel"])
