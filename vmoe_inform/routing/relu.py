"""ReMoE (arXiv 2412.14711): experts of a positive ReLU, kept to K on average by an L1 loss of adaptive weight.

The choice has no jumps: the weight of an expert is 0 where it enters or leaves. The coefficient of the loss is state.
It grows after a training step in which tokens had more than K experts on average, and shrinks after one with fewer.

The paper has one coefficient for all layers, so that layers share K unevenly. Here each MoE layer has its own.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Bool, Float, Int, Tree
from vmoe_inform.dispatch import Assignment, Plan
from vmoe_inform.routing.chosen import largest
from vmoe_inform.routing.losses import Over, of_whole_batch
from vmoe_inform.routing.scores import linear_parameters, linear_step
from vmoe_inform.routing.selection import check_num_selected, token_choice
from vmoe_inform.routing.stats import mean_over_tokens
from vmoe_inform.routing.steps import LayerSizes, SelectContext, StepContext, register_score, register_select

_LEAST, _LARGEST = 1e-18, 1e18  # of the coefficient, as of a config's; at 0 it would stay for good
Multiplier = Annotated[float, checks.Bound(above=1.0, at_most=1e3)]


@register_score("relu", parameters=linear_parameters, affinities=jax.nn.relu)
def relu_step(context: StepContext, *, bias: bool = False) -> Float[Array, "B N E"]:
    r"""The linear router with a ReLU in place of the softmax (ReMoE, arXiv 2412.14711, Sec. 3.2).

    $$R_{ik} = \max(u_i \cdot w_k + b_k, 0)$$
    """
    return linear_step(context, bias=bias)


def positive_experts(
    probabilities: Float[Array, "*batch N E"], most: int
) -> tuple[Float[Array, "*batch N M"], Int[Array, "*batch N M"]]:
    """The experts of positive probability, at most the M largest of a token (ReMoE, Sec. 3.2).

    Args:
      probabilities: R [..., N, E], not negative; they are the weights.
      most: M, 1 to E.

    Returns:
      weights [..., N, M], float32, the largest first, and indices [..., N, M]; 0 and E for what is no choice.

    Raises:
      ValueError: most outside 1..E.
    """
    num_experts = probabilities.shape[-1]
    check_num_selected(most, num_experts)
    weights, indices = largest(probabilities.astype(jnp.float32), most)
    return weights, jnp.where(weights > 0, indices, num_experts)


def sparsity_loss(
    probabilities: Float[Array, "*batch S E"], real: Bool[Array, "*batch S"] | None = None, *, k: int
) -> Float[Array, "*batch"]:
    r"""L1 norm of the probabilities, of each expert times its load (ReMoE, Sec. 3.3 and 3.4).

    $$\frac{1}{S} \sum_i \sum_k f_k R_{ik}, \quad f_k = \frac{E}{K S} \sum_i [R_{ik} > 0]$$

    An expert with more tokens than K S / E has a larger share in the loss, which so balances too. Gradients flow
    through R only.

    Args:
      probabilities: R [..., S, E], not negative.
      real: False for padding, which counts nowhere.
      k: K, experts of a token on average.
    """
    probabilities = probabilities.astype(jnp.float32)
    loads = mean_over_tokens((probabilities > 0).astype(jnp.float32), real, axis=-2) * (probabilities.shape[-1] / k)
    return jnp.sum(loads * mean_over_tokens(probabilities, real, axis=-2), axis=-1)


def adapted_coefficient(
    coefficient: Float[Array, ""], choices: Float[Array, ""], wanted: Float[Array, ""], *, multiplier: float
) -> Float[Array, ""]:
    r"""The coefficient of the loss after a training step (ReMoE, Sec. 3.3).

    $$\lambda \leftarrow \lambda \alpha^{\operatorname{sign}(\text{choices} - \text{wanted})}$$

    That is the paper's sign of target sparsity less sparsity, whose counts are whole and so exact. The coefficient
    stays between 1e-18 and 1e18: from the 0 or infinity that float32 rounds to, it would not come back.

    Args:
      coefficient: lambda.
      choices: positive probabilities of the tokens in the whole batch.
      wanted: K for each of the tokens.
      multiplier: alpha > 1.

    Raises:
      ValueError: a multiplier that is not > 1.
    """
    if not multiplier > 1:
        raise checks.error("multiplier", "a number > 1", multiplier)
    adapted = coefficient.astype(jnp.float32) * multiplier ** jnp.sign((choices - wanted).astype(jnp.float32))
    return jnp.clip(adapted, _LEAST, _LARGEST)


def _start(key: Array, sizes: LayerSizes, *, coefficient: float, **options: Any) -> Float[Array, ""]:
    return jnp.asarray(coefficient, jnp.float32)


def _count(plan: Plan, context: SelectContext, **options: Any) -> Tree:
    """Choices of the real tokens, those without a slot included, and how many there should be."""
    assert isinstance(plan, Assignment)
    exists = plan.indices < plan.num_experts
    real = jnp.ones(exists.shape[:-1], bool) if context.real is None else context.real
    choices = jnp.sum((exists & real[..., None]).astype(jnp.float32))
    return {"choices": choices, "wanted": context.k * jnp.sum(real.astype(jnp.float32))}


def _update(
    state: Float[Array, ""], observed: Tree, parameters: Mapping[str, Array], *, multiplier: float, **options: Any
) -> Float[Array, ""]:
    return adapted_coefficient(state, observed["choices"], observed["wanted"], multiplier=multiplier)


def _losses(
    probabilities: Float[Array, "G S E"], context: SelectContext, *, over: Over, **options: Any
) -> dict[str, Float[Array, " G"]]:
    assert context.state is not None  # declared by initial_state
    groups, real = probabilities.shape[0], context.real
    if over == "batch":  # [G, S, ...] -> [1, G S, ...]
        probabilities = probabilities.reshape(1, -1, probabilities.shape[-1])
        real = None if real is None else real.reshape(1, -1)
    loss = context.state * sparsity_loss(probabilities, real, k=context.k)
    return {"sparsity": jnp.broadcast_to(loss, (groups,))}


def _check(sizes: LayerSizes, *, most: int | None, **options: Any) -> None:
    if most is not None and not sizes.num_selected_experts <= most <= sizes.num_experts:
        raise checks.error("most", f"K to E, {sizes.num_selected_experts} to {sizes.num_experts}, or None (E)", most)


@register_select(
    "positive_experts",
    scores=("relu",),
    check=_check,
    initial_state=_start,
    observe=_count,
    update_state=_update,
    losses=_losses,
    loss_names=("sparsity",),
    preferences=None,
    needs_whole_batch=of_whole_batch,
    training_options=("coefficient", "multiplier", "over", "sparsity_weight"),
)
def positive_experts_step(
    probabilities: Float[Array, "G S E"],
    context: SelectContext,
    *,
    most: checks.Width | None = None,
    coefficient: checks.PositiveFloat = 1e-8,
    multiplier: Multiplier = 1.2,
    over: Over = "group",
    sparsity_weight: checks.PositiveFloat = 1.0,
) -> Assignment:
    """Every token takes the experts of positive probability, K on average, while these have slots (ReMoE).

    A token may have any number of experts, also none: then the layer adds nothing to it. ``most`` limits them to the
    largest, and so the rows that are sorted; None is E. Only these are counted: trained with ``most`` = K, no token has
    more than K and the coefficient never grows. ``coefficient`` is where the loss's adaptive coefficient starts, and
    ``multiplier`` by what it changes after each training step (paper: 1e-8 and 1.2). The logged loss ``sparsity``
    contains it. Its loads are those of a group, or with ``over="batch"`` of the whole batch.
    """
    num_experts = probabilities.shape[-1]
    weights, indices = positive_experts(probabilities, num_experts if most is None else most)
    return token_choice(context, weights, indices, num_experts)
