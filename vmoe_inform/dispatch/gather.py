"""Dispatch by integer maps: tokens are gathered into expert slots, and expert outputs gathered back.

One map has the slot of each choice, the other the token of each slot. The backward pass of either gather is a gather
through the other map. No scatter-add of wide rows is compiled; the only scatters are of single numbers, and on TPUs
there are none (:mod:`vmoe_inform.dispatch.moves`).
"""

import jax
import jax.numpy as jnp

from vmoe_inform.axes import Array, ExpertFunction, Float, Int
from vmoe_inform.dispatch.capacity import Assignment
from vmoe_inform.dispatch.moves import numbers_of_slots, numbers_to_slots, rows_of_slots, rows_of_tokens


def sum_over_choices(
    slots: Float[Array, "E G C D"], slot_of_choice: Int[Array, "K G S 2"], weights: Float[Array, "K G S"] | None = None
) -> Float[Array, "G S D"]:
    """The sum of the rows of a token's choices, times their weights if there are any; in float32 until it is done."""
    total = jnp.zeros((), jnp.float32)
    # One choice after the other: compilers fuse K gathers and sums better than one gather and a sum over its axis K.
    for k, chosen in enumerate(slot_of_choice):
        rows = rows_of_slots(slots, chosen[None])[0].astype(jnp.float32)
        total = total + (rows if weights is None else weights[k][..., None] * rows)
    return total.astype(slots.dtype)


@jax.custom_vjp
def to_slots(
    tokens: Float[Array, "G S D"], token_of_slot: Int[Array, "E G C"], slot_of_choice: Int[Array, "K G S 2"]
) -> Float[Array, "E G C D"]:
    """The token in each slot.

    Args:
      tokens: of G groups.
      token_of_slot: S for an empty slot, which gets any token.
      slot_of_choice: the pair (e, c) for choice k of a token; c >= C for a choice without a slot.
    """
    # What an empty slot holds does not matter: nobody reads what the expert makes of it. A mask would cost a pass.
    return rows_of_tokens(tokens, token_of_slot, empty="clip")


def _to_slots_forward(tokens: Array, token_of_slot: Array, slot_of_choice: Array) -> tuple[Array, Array]:
    return to_slots(tokens, token_of_slot, slot_of_choice), slot_of_choice


def _to_slots_backward(slot_of_choice: Array, gradient: Float[Array, "E G C D"]) -> tuple[Array, None, None]:
    # A token's gradient is the sum over its slots.
    return sum_over_choices(gradient, slot_of_choice), None, None


to_slots.defvjp(_to_slots_forward, _to_slots_backward)


@jax.custom_vjp
def from_slots(
    outputs: Float[Array, "E G C D"],
    weights: Float[Array, "K G S"],
    token_of_slot: Int[Array, "E G C"],
    slot_of_choice: Int[Array, "K G S 2"],
) -> Float[Array, "G S D"]:
    """The sum of each token's expert outputs times their weights; arguments as :func:`to_slots`."""
    return sum_over_choices(outputs, slot_of_choice, weights)


def _from_slots_forward(
    outputs: Array, weights: Array, token_of_slot: Array, slot_of_choice: Array
) -> tuple[Array, tuple]:
    result = from_slots(outputs, weights, token_of_slot, slot_of_choice)
    return result, (outputs, weights, token_of_slot, slot_of_choice)


def _from_slots_backward(residuals: tuple, gradient: Float[Array, "G S D"]) -> tuple[Array, Array, None, None]:
    outputs, weights, token_of_slot, slot_of_choice = residuals
    rows = rows_of_tokens(gradient, token_of_slot, empty="fill")
    to_outputs = numbers_to_slots(weights, slot_of_choice, token_of_slot.shape)[..., None] * rows
    # d loss / d weight = gradient . output, worked out in the slots and gathered back as numbers, not as rows
    products = jnp.sum(rows.astype(jnp.float32) * outputs.astype(jnp.float32), axis=-1)
    to_weights = numbers_of_slots(products, slot_of_choice)
    return to_outputs.astype(outputs.dtype), to_weights.astype(weights.dtype), None, None


from_slots.defvjp(_from_slots_forward, _from_slots_backward)


def dispatch_gather(
    tokens: Float[Array, "G S D"], assignment: Assignment, experts: ExpertFunction
) -> Float[Array, "G S D"]:
    """Moves tokens by gathers; cost per token does not grow with the group. The default."""
    groups, size, _ = tokens.shape
    # [G, S, K] -> [K, G, S]; a position >= C stands for no slot
    weights, indices, positions = (
        jnp.moveaxis(array, -1, 0) for array in (assignment.weights, assignment.indices, assignment.positions)
    )
    slot_of_choice = jnp.stack([indices, positions], axis=-1)
    numbers = jnp.broadcast_to(jnp.arange(size, dtype=indices.dtype), indices.shape)
    shape = (assignment.num_experts, groups, assignment.capacity)
    token_of_slot = numbers_to_slots(numbers, slot_of_choice, shape, empty=size)  # S for an empty slot
    outputs = experts(to_slots(tokens, token_of_slot, slot_of_choice))
    return from_slots(outputs, weights, token_of_slot, slot_of_choice)
