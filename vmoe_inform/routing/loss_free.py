"""Loss-free balancing (arXiv 2408.15664, Algorithm 1), as in DeepSeek-V3 (2412.19437, Sec. 2.1.2).

A bias of each expert is added to the probabilities for the choice alone. It changes by a constant after each training
step: down for an expert with more tokens than the mean, up for one with fewer. No loss balances, so no gradient
interferes with the task's.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Float, Int, Tree
from vmoe_inform.dispatch import Assignment, Plan
from vmoe_inform.routing.chosen import values_of
from vmoe_inform.routing.scores import linear_parameters, linear_step
from vmoe_inform.routing.selection import Renormalize, check_num_selected, chosen_weights, token_choice
from vmoe_inform.routing.steps import LayerSizes, SelectContext, StepContext, register_score, register_select


@register_score("sigmoid", parameters=linear_parameters, affinities=jax.nn.sigmoid)
def sigmoid_step(context: StepContext, *, bias: bool = False) -> Float[Array, "B N E"]:
    r"""The linear router with a sigmoid in place of the softmax, so that experts do not compete (DeepSeek-V3, Eq. 15).

    $$s_{ik} = \operatorname{sigmoid}(u_i \cdot w_k + b_k)$$

    ``bias`` is a learned one, in the logits.
    """
    return linear_step(context, bias=bias)


def biased_top_experts(
    probabilities: Float[Array, "*batch N E"],
    bias: Float[Array, " E"],
    k: int,
    *,
    renormalize: Renormalize = True,
    active: Int[Array, ""] | None = None,
) -> tuple[Float[Array, "*batch N K"], Int[Array, "*batch N K"]]:
    r"""The K experts of the largest biased probability, with weights without the bias (arXiv 2408.15664, Eq. 3).

    $$g_{ik} = p_{ik} \text{ if } p_{ik} + b_k \in \operatorname{TopK}_j (p_{ij} + b_j), \text{ else } 0$$

    Args:
      probabilities: p [..., N, E], not negative; rows need not sum to 1.
      bias: b [E].
      k: K, experts per token.
      renormalize: as of :func:`vmoe_inform.routing.top_experts`.
      active: the same.

    Returns:
      weights [..., N, K], float32, and indices [..., N, K], those of the largest biased probability first.

    Raises:
      ValueError: k outside 1..E, a bias of other experts, or a bad ``renormalize``.
    """
    num_experts = probabilities.shape[-1]
    check_num_selected(k, num_experts)
    checks.shape("bias", bias.shape, (num_experts,))
    probabilities = probabilities.astype(jnp.float32)
    indices = jax.lax.top_k(_preferred(probabilities, bias), k)[1]
    weights = values_of(probabilities, indices)
    return chosen_weights(weights, indices, num_experts, renormalize=renormalize, active=active)


def balanced_bias(bias: Float[Array, " E"], counts: Float[Array, " E"], *, rate: float) -> Float[Array, " E"]:
    r"""The bias after a training step (arXiv 2408.15664, Algorithm 1).

    $$b_k \leftarrow b_k + \gamma \operatorname{sign}(\bar c - c_k)$$

    Args:
      bias: b [E].
      counts: c [E], tokens of each expert in the whole batch; the bar is the mean over experts.
      rate: gamma > 0.

    Raises:
      ValueError: counts of other experts, or a rate that is not > 0.
    """
    checks.positive("rate", rate)
    checks.shape("counts", counts.shape, bias.shape)
    bias, counts = bias.astype(jnp.float32), counts.astype(jnp.float32)
    return bias + rate * jnp.sign(jnp.mean(counts) - counts)


def _preferred(probabilities: Float[Array, "*batch N E"], bias: Float[Array, " E"]) -> Float[Array, "*batch N E"]:
    return probabilities + jnp.broadcast_to(jax.lax.stop_gradient(bias), probabilities.shape)


def _zeros(key: Array, sizes: LayerSizes, **options: Any) -> Float[Array, " E"]:
    return jnp.zeros(sizes.num_experts)


def _preferences(probabilities: Float[Array, "G S E"], context: SelectContext, **options: Any) -> Float[Array, "G S E"]:
    return _preferred(probabilities, _bias(context))


def _count(plan: Plan, context: SelectContext, **options: Any) -> Float[Array, " E"]:
    """Choices of each expert by real tokens, those without a slot included."""
    assert isinstance(plan, Assignment)
    hits = jax.nn.one_hot(plan.indices, plan.num_experts, dtype=jnp.float32)
    if context.real is not None:
        hits = jnp.where(context.real[..., None, None], hits, 0.0)
    return jnp.sum(hits, axis=(0, 1, 2))


def _update(
    state: Float[Array, " E"], counts: Tree, parameters: Mapping[str, Array], *, rate: float, **options: Any
) -> Float[Array, " E"]:
    return balanced_bias(state, counts, rate=rate)


def _bias(context: SelectContext) -> Float[Array, " E"]:
    assert context.state is not None  # declared by initial_state
    return context.state


@register_select(
    "biased_top_experts",
    grows=True,
    initial_state=_zeros,
    observe=_count,
    update_state=_update,
    preferences=_preferences,
    training_options=("rate",),
)
def biased_top_experts_step(
    probabilities: Float[Array, "G S E"],
    context: SelectContext,
    *,
    rate: checks.PositiveFloat = 1e-3,
    renormalize: Renormalize = True,
) -> Assignment:
    """Every token takes the K experts of its largest biased probability, while these have slots (loss-free balancing).

    The bias is state: it follows the counts of the whole batch, and is frozen in evaluation. ``rate`` is its step after
    each training step, in the unit of the probabilities. The papers' 0.001 is for sigmoids and long runs.
    """
    weights, indices = biased_top_experts(
        probabilities, _bias(context), context.k, renormalize=renormalize, active=context.active
    )
    return token_choice(context, weights, indices, probabilities.shape[-1])
