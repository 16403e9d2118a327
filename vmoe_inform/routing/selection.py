"""Selection: probabilities to a plan of which token meets which expert, with the weights of the outputs."""

from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Bool, Float, Int
from vmoe_inform.dispatch import Assignment, SlotChoice, SoftSlots, assign_slots
from vmoe_inform.routing.assignment import balanced_assignment, check_tolerance
from vmoe_inform.routing.chosen import largest, values_of
from vmoe_inform.routing.steps import LayerSizes, SelectContext, register_select

Renormalize = bool | Literal["one"]
Tolerance = Annotated[float, checks.Bound(above=0.0, below=1.0)]


def check_num_selected(k: int, num_experts: int) -> None:
    """Raises ValueError unless K is an integer and 1 <= K <= E."""
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= num_experts:
        raise checks.error("k", f"an integer from 1 to {num_experts} (experts)", k)


def top_experts(
    probabilities: Float[Array, "*batch N E"],
    k: int,
    *,
    renormalize: Renormalize = True,
    active: Int[Array, ""] | None = None,
) -> tuple[Float[Array, "*batch N K"], Int[Array, "*batch N K"]]:
    """The K most probable experts of each token, the most probable first (Mutual-Inform SMoE, Eq. 11 and Sec. E).

    Args:
      probabilities: [..., N, E], not negative; rows need not sum to 1.
      k: K, experts per token.
      renormalize: True divides the K weights by their sum. With K = 1 it keeps the chosen probability, so that the
        router learns. ``"one"`` divides there too (the literal form, weight 1). False keeps the probabilities (V-MoE).
      active: 1 to K, the number of choices that exist; None for K. It may change under ``jit``, where K may not. The
        other choices have the index E and the weight 0.

    Returns:
      weights [..., N, K], float32, and indices [..., N, K]. Of equal probabilities the lower index is first.

    Raises:
      ValueError: k outside 1..E, or renormalize neither a bool nor ``"one"``.
    """
    check_num_selected(k, probabilities.shape[-1])
    weights, indices = largest(probabilities.astype(jnp.float32), k)
    return chosen_weights(weights, indices, probabilities.shape[-1], renormalize=renormalize, active=active)


def chosen_weights(
    weights: Float[Array, "*batch N K"],
    indices: Int[Array, "*batch N K"],
    num_experts: int,
    *,
    renormalize: Renormalize,
    active: Int[Array, ""] | None,
) -> tuple[Float[Array, "*batch N K"], Int[Array, "*batch N K"]]:
    """The weights of chosen experts; args and result as of :func:`top_experts`, which chose them."""
    k = weights.shape[-1]
    if renormalize not in (True, False, "one"):
        raise checks.error("renormalize", "true, false or 'one'", renormalize)
    exists = True if active is None else jnp.broadcast_to(jnp.arange(k) < active, weights.shape)
    if renormalize == "one" or (renormalize and k > 1):
        # A zero row (a zero Symphony column) is shared evenly; a row of tiny numbers is scaled up before the sum.
        scale = jax.lax.stop_gradient(jnp.max(weights, axis=-1, keepdims=True))
        weights = jnp.where(scale > 0, weights / jnp.where(scale > 0, scale, 1.0), 1.0)
        weights = weights / jnp.sum(weights, axis=-1, keepdims=True, where=exists)
    if active is not None:
        weights, indices = jnp.where(exists, weights, 0.0), jnp.where(exists, indices, num_experts)
    return weights, indices


def expert_choice(
    probabilities: Float[Array, "*batch S E"], capacity: int, *, real: Bool[Array, "*batch S"] | None = None
) -> tuple[Float[Array, "*batch E C"], Int[Array, "*batch E C"]]:
    """Each expert takes the C tokens that want it most (expert choice, arXiv 2202.09368, Eq. 2).

    Args:
      probabilities: [..., S, E], not negative.
      capacity: tokens of one expert, 1 to S.
      real: False for tokens that every expert takes last, whatever their probability.

    Returns:
      probabilities [..., E, C], float32, and token indices [..., E, C], the most probable first. Of equal ones the
      earlier token is first.

    Raises:
      ValueError: capacity outside 1..S, or shapes that do not fit.
    """
    size = probabilities.shape[-2]
    if not 1 <= capacity <= size:
        raise checks.error("capacity", f"an integer from 1 to {size} (tokens)", capacity)
    wanted = jnp.swapaxes(probabilities.astype(jnp.float32), -1, -2)
    if real is not None:
        checks.shape("real", real.shape, probabilities.shape[:-1])
        wanted = jnp.where(real[..., None, :], wanted, -1.0)
    chosen, tokens = jax.lax.top_k(wanted, capacity)
    return chosen, tokens


def token_choice(
    context: SelectContext, weights: Float[Array, "G S K"], indices: Int[Array, "G S K"], num_experts: int
) -> Assignment:
    """The plan for tokens that chose experts. The score step's own weights are taken where it gives some."""
    if context.gates is not None:
        weights = values_of(context.gates, indices)  # 0 for a choice that does not exist
    return assign_slots(
        weights,
        indices,
        num_experts=num_experts,
        capacity=context.capacity,
        priority=context.priority,
        real=context.real,
        order="choices" if context.mask is None else "tokens",
        num_sequences=context.num_sequences,
    )


def _resolve_renormalize(informed: bool, *, renormalize: Renormalize | Literal["informed"]) -> dict[str, Renormalize]:
    return {"renormalize": informed if renormalize == "informed" else renormalize}


def _check_renormalize(sizes: LayerSizes, *, renormalize: Renormalize | Literal["informed"]) -> None:
    if renormalize == "informed":
        raise checks.error("renormalize", "true, false or 'one', as a parsed config has it", renormalize)


@register_select("top_experts", grows=True, resolve=_resolve_renormalize, check=_check_renormalize)
def top_experts_step(
    probabilities: Float[Array, "G S E"],
    context: SelectContext,
    *,
    renormalize: Renormalize | Literal["informed"] = True,
) -> Assignment:
    """Every token takes its K most probable experts, while these have slots.

    The weights of the chosen experts are scaled to sum 1 if ``renormalize``. ``"informed"`` scales them if the router
    has inform steps, whose probabilities need not sum to 1. V-MoE itself does not scale them.
    """
    assert renormalize != "informed"  # resolved when a config is parsed
    weights, indices = top_experts(probabilities, context.k, renormalize=renormalize, active=context.active)
    return token_choice(context, weights, indices, probabilities.shape[-1])


def _one_expert(sizes: LayerSizes, *, tolerance: float, **options: object) -> None:
    if sizes.num_selected_experts != 1:
        raise checks.error(
            "model.moe.num_selected_experts",
            "1 with model.router.select = 'balanced_assignment'",
            sizes.num_selected_experts,
        )
    check_tolerance(tolerance, sizes.num_experts)


@register_select("balanced_assignment", check=_one_expert, looks_ahead=True, smallest_capacity_factor=1.0)
def balanced_assignment_step(
    probabilities: Float[Array, "G S E"],
    context: SelectContext,
    *,
    gate: Literal["sigmoid", "probability"] = "sigmoid",
    tolerance: Tolerance = 1e-5,
) -> Assignment:
    """BASE (arXiv 2103.16716): in training every expert gets the same number of tokens, in evaluation the best ones.

    It maximises the total log-probability, which without inform steps is BASE's total score. The weight is the sigmoid
    of the chosen expert's logit (the paper's), or its probability.
    """
    num_experts = probabilities.shape[-1]
    if context.train:
        # Smaller than any probability that matters, so that a zero is the worst choice and still a number.
        scores = jnp.log(jnp.maximum(probabilities, jnp.finfo(jnp.float32).tiny))
        indices = balanced_assignment(scores, tolerance=tolerance, real=context.real)[..., None]
    else:
        indices = jnp.argmax(probabilities, axis=-1, keepdims=True)
    weights = values_of(jax.nn.sigmoid(context.logits) if gate == "sigmoid" else probabilities, indices)
    return token_choice(context, weights, indices, num_experts)


@register_select("expert_choice", looks_ahead=True, fills_slots=True)
def expert_choice_step(probabilities: Float[Array, "G S E"], context: SelectContext) -> SlotChoice:
    """Expert choice (arXiv 2202.09368): every expert takes the tokens of the group that want it most.

    These are S K / E tokens, rounded up; K is the paper's capacity factor. The images of a group compete. So the
    routing of an image depends on the others of its group, in evaluation too.
    """
    size = probabilities.shape[-2]
    weights, tokens = expert_choice(probabilities, min(context.capacity, size), real=context.real)
    filled = jnp.ones_like(tokens, bool)
    if context.real is not None:
        filled = jnp.take_along_axis(context.real[:, None, :], tokens, axis=-1)
    return SlotChoice(tokens, weights, filled, size=size, k=context.k)


@register_select("soft", looks_ahead=True, uses_probabilities=False, fills_slots=True)
def soft_step(probabilities: Float[Array, "G S E"], context: SelectContext) -> SoftSlots:
    """Soft MoE (arXiv 2308.00951): every slot mixes all tokens of an image, every token all slots.

    Images do not mix, whatever the group. The score step ``soft_slots`` sets the number of slots, not a capacity. Any
    other score step has one slot for each expert.
    """
    slots = context.logits[..., None] if context.slot_logits is None else context.slot_logits
    groups, size, num_experts, per_expert = slots.shape
    # [G, S, E, P] -> [B, N, E, P]
    slots = slots.reshape(groups * context.num_sequences, size // context.num_sequences, num_experts, per_expert)
    mixed = slots
    if context.real is not None:  # no slot holds padding; the slots of a filler sequence hold nothing but filler
        real = context.real.reshape(slots.shape[:2])
        real = real | ~jnp.any(real, axis=1, keepdims=True)
        mixed = jnp.where(real[..., None, None], slots, -jnp.inf)
    return SoftSlots(
        into=jax.nn.softmax(mixed, axis=1), out_of=jax.nn.softmax(slots, axis=(2, 3)), groups=groups, k=context.k
    )
