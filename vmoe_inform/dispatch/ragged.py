"""Dispatch without slots: assignments in the order of their experts, and products with as many rows as an expert has.

What was not given a slot is left out, as everywhere; but slots that nobody took cost nothing here. With a capacity of
all S tokens nothing is ever dropped, at the price of the K S rows that are really there. All groups lie in one buffer:
one device's tokens at a time (:class:`vmoe_inform.nn.moe.MoeLayer` sees to that).
"""

import jax.numpy as jnp

from vmoe_inform.axes import Array, ExpertFunction, Float, Int
from vmoe_inform.dispatch.capacity import Assignment, earlier_choices
from vmoe_inform.dispatch.gather import from_slots, to_slots
from vmoe_inform.dispatch.moves import numbers_to_slots

_LARGEST_BLOCK = 128


def block_rows(num_rows: int, num_experts: int) -> int:
    """Rows of a block: a power of two, so small that an expert's last block, half full, is an eighth of its rows."""
    rows = _LARGEST_BLOCK
    while rows > 8 and rows * num_experts > num_rows // 4:
        rows //= 2
    return rows


def dispatch_ragged(
    tokens: Float[Array, "G S D"], assignment: Assignment, experts: ExpertFunction
) -> Float[Array, "G S D"]:
    """Moves tokens into blocks of rows of one expert each; cost grows with the assignments, not with the capacity."""
    groups, size, width = tokens.shape
    num_experts = assignment.num_experts
    weights, expert_of_choice = assignment.by_choice()
    rows = block_rows(expert_of_choice.size, num_experts)
    num_blocks = -(-expert_of_choice.size // rows) + num_experts
    slots, expert_of_block = _slots_and_blocks(expert_of_choice.reshape(-1), num_experts, rows, num_blocks)

    # Blocks are the experts of one group: slot (block, row) of each choice, and the token in each slot
    slot_of_choice = jnp.stack([slots // rows, slots % rows], axis=-1).reshape(-1, 1, groups * size, 2)
    numbers = jnp.broadcast_to(jnp.arange(groups * size, dtype=slots.dtype), slot_of_choice.shape[:-1])
    token_of_slot = numbers_to_slots(numbers, slot_of_choice, (num_blocks, 1, rows), empty=groups * size)

    moved = to_slots(tokens.reshape(1, -1, width), token_of_slot, slot_of_choice)
    outputs = experts(moved.reshape(num_blocks, rows, width), expert_of_block)
    outputs = from_slots(outputs[:, None], weights.reshape(-1, 1, groups * size), token_of_slot, slot_of_choice)
    return outputs.reshape(tokens.shape)


def _slots_and_blocks(
    expert_of_choice: Int[Array, " A"], num_experts: int, rows: int, num_blocks: int
) -> tuple[Int[Array, " A"], Int[Array, " X"]]:
    """The row of every choice, where each expert's rows begin with a block, and the expert of every block.

    A choice of expert E, which is none, gets a row behind the last block.
    """
    rank = earlier_choices(expert_of_choice[None], num_experts)[0]
    counts = jnp.sum(expert_of_choice[:, None] == jnp.arange(num_experts)[None], axis=0, dtype=rank.dtype)
    blocks = -(-counts // rows)
    ends = jnp.cumsum(blocks)
    first_block = jnp.append(ends - blocks, num_blocks)
    slots = first_block[expert_of_choice] * rows + rank
    expert_of_block = jnp.sum(jnp.arange(num_blocks)[:, None] >= ends[None], axis=1, dtype=rank.dtype)
    return slots, expert_of_block
