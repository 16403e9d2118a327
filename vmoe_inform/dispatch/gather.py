"""Dispatch by integer maps: tokens are gathered into expert slots, and expert outputs gathered back.

With both maps at hand, slot of each assignment and token of each slot, the backward pass of either gather is a
gather through the other map. No scatter-add of wide rows is ever compiled; the only scatter is of integers.
"""

import jax
import jax.numpy as jnp

from vmoe_inform.axes import Array, ExpertFunction, Float, Int
from vmoe_inform.dispatch.capacity import Assignment


def _rows(table: Float[Array, "G R D"], index: Int[Array, "G M"]) -> Float[Array, "G M D"]:
    """table[g, index[g, m]], and zeros where the index is R."""
    taken = jnp.take_along_axis(table, jnp.minimum(index, table.shape[1] - 1)[..., None], axis=1)
    return jnp.where((index < table.shape[1])[..., None], taken, jnp.zeros((), table.dtype))


@jax.custom_vjp
def _to_slots(
    tokens: Float[Array, "G S D"], assignment_of_slot: Int[Array, "G EC"], slot_of_assignment: Int[Array, "G SK"]
) -> Float[Array, "G EC D"]:
    selected = slot_of_assignment.shape[1] // tokens.shape[1]
    return _rows(tokens, assignment_of_slot // selected)


def _to_slots_forward(tokens: Array, assignment_of_slot: Array, slot_of_assignment: Array) -> tuple[Array, tuple]:
    return _to_slots(tokens, assignment_of_slot, slot_of_assignment), (tokens.shape, slot_of_assignment)


def _to_slots_backward(residuals: tuple, gradient: Float[Array, "G EC D"]) -> tuple[Array, None, None]:
    (groups, size, width), slot_of_assignment = residuals
    # [G, S * K, D] -> [G, S, D]: a token's gradient is the sum over its slots
    rows = _rows(gradient, slot_of_assignment).reshape(groups, size, -1, width)
    return jnp.sum(rows, axis=2), None, None


_to_slots.defvjp(_to_slots_forward, _to_slots_backward)


@jax.custom_vjp
def _from_slots(
    outputs: Float[Array, "G EC D"],
    weights: Float[Array, "G S K"],
    assignment_of_slot: Int[Array, "G EC"],
    slot_of_assignment: Int[Array, "G SK"],
) -> Float[Array, "G S D"]:
    groups, size, selected = weights.shape
    rows = _rows(outputs, slot_of_assignment).reshape(groups, size, selected, -1)
    return jnp.einsum("gsk,gskd->gsd", weights, rows)


def _from_slots_forward(
    outputs: Array, weights: Array, assignment_of_slot: Array, slot_of_assignment: Array
) -> tuple[Array, tuple]:
    result = _from_slots(outputs, weights, assignment_of_slot, slot_of_assignment)
    return result, (outputs, weights, assignment_of_slot, slot_of_assignment)


def _from_slots_backward(residuals: tuple, gradient: Float[Array, "G S D"]) -> tuple[Array, Array, None, None]:
    outputs, weights, assignment_of_slot, slot_of_assignment = residuals
    groups, _, selected = weights.shape
    # The weight of each slot, 0 for an empty one: [G, S, K] -> [G, S * K] -> [G, E * C]
    slot_weights = _rows(weights.reshape(groups, -1, 1), assignment_of_slot)
    to_outputs = _rows(gradient, assignment_of_slot // selected) * slot_weights
    # d loss / d weight = gradient . output, worked out in slots and gathered back as numbers, not as rows
    products = jnp.sum(_rows(gradient, assignment_of_slot // selected) * outputs, axis=-1, keepdims=True)
    to_weights = _rows(products, slot_of_assignment).reshape(weights.shape)
    return to_outputs.astype(outputs.dtype), to_weights.astype(weights.dtype), None, None


_from_slots.defvjp(_from_slots_forward, _from_slots_backward)


def dispatch_gather(
    tokens: Float[Array, "G S D"], assignment: Assignment, experts: ExpertFunction
) -> Float[Array, "G S D"]:
    """Moves tokens by gathers; cost per token does not grow with the group. The default."""
    groups, _, width = tokens.shape
    num_experts, capacity = assignment.num_experts, assignment.capacity
    num_slots = num_experts * capacity
    # [G, S, K] -> [G, S * K]; E * C stands for "no slot"
    slots = jnp.where(assignment.kept, assignment.indices * capacity + assignment.positions, num_slots)
    slot_of_assignment = slots.reshape(groups, -1)
    num_assignments = slot_of_assignment.shape[1]
    # The inverse map, S * K for an empty slot
    numbers = jnp.broadcast_to(jnp.arange(num_assignments, dtype=slots.dtype), slot_of_assignment.shape)
    empty = jnp.full((groups, num_slots), num_assignments, slots.dtype)
    assignment_of_slot = jax.vmap(lambda row, at, values: row.at[at].set(values, mode="drop", unique_indices=False))(
        empty, slot_of_assignment, numbers
    )
    inputs = _to_slots(tokens, assignment_of_slot, slot_of_assignment)
    # [G, E * C, D] -> [E, G, C, D]
    inputs = jnp.swapaxes(inputs.reshape(groups, num_experts, capacity, width), 0, 1)
    outputs = jnp.swapaxes(experts(inputs), 0, 1).reshape(groups, num_slots, width)
    return _from_slots(outputs, assignment.weights.astype(outputs.dtype), assignment_of_slot, slot_of_assignment)
