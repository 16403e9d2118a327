"""Dispatch in segments: the rows of an expert lie side by side, and the next expert's rows follow at once.

There are as many rows as assignments: no slots, no blocks, nothing to fill up. This is for CPUs, whose products take
chunks of any segment (:mod:`vmoe_inform.dispatch.segment_products`). All groups lie in one buffer: one device's tokens
at a time (:class:`vmoe_inform.nn.moe.MoeLayer` sees to that).

One map has the row of each choice, the other the token of each row. The backward pass of either gather is a gather
through the other map.
"""

import jax
import jax.numpy as jnp

from vmoe_inform.axes import Array, ExpertFunction, Float, Int
from vmoe_inform.dispatch.capacity import Assignment, earlier_choices
from vmoe_inform.dispatch.segment_products import Segments, chunk_rows


def _rows(table: Float[Array, "R D"], numbers: Int[Array, " A"]) -> Float[Array, "A D"]:
    """table[numbers], and zeros for a number beyond the last row."""
    return table.at[numbers].get(mode="fill", fill_value=0)


def _sum_over_choices(
    rows: Float[Array, "R D"], row_of_choice: Int[Array, "K T"], weights: Float[Array, "K T"] | None = None
) -> Float[Array, "T D"]:
    """The sum of the rows of a token's choices, times their weights if there are any; in float32 until it is done."""
    total = jnp.zeros((), jnp.float32)
    for k, numbers in enumerate(row_of_choice):
        chosen = _rows(rows, numbers).astype(jnp.float32)
        total = total + (chosen if weights is None else weights[k][:, None] * chosen)
    return total.astype(rows.dtype)


@jax.custom_vjp
def to_rows(
    tokens: Float[Array, "T D"], token_of_row: Int[Array, " R"], row_of_choice: Int[Array, "K T"]
) -> Float[Array, "R D"]:
    """The token of each row.

    Args:
      tokens: of all groups.
      token_of_row: below T; a row of no choice gets the token that it names.
      row_of_choice: R or more for a choice without a row.
    """
    return tokens.at[token_of_row].get(mode="clip")


def _to_rows_forward(tokens: Array, token_of_row: Array, row_of_choice: Array) -> tuple[Array, Array]:
    return to_rows(tokens, token_of_row, row_of_choice), row_of_choice


def _to_rows_backward(row_of_choice: Array, gradient: Float[Array, "R D"]) -> tuple[Array, None, None]:
    return _sum_over_choices(gradient, row_of_choice), None, None


to_rows.defvjp(_to_rows_forward, _to_rows_backward)


@jax.custom_vjp
def from_rows(
    outputs: Float[Array, "R D"],
    weights: Float[Array, "K T"],
    token_of_row: Int[Array, " R"],
    row_of_choice: Int[Array, "K T"],
) -> Float[Array, "T D"]:
    """The sum of each token's expert outputs times their weights; arguments as :func:`to_rows`."""
    return _sum_over_choices(outputs, row_of_choice, weights)


def _from_rows_forward(
    outputs: Array, weights: Array, token_of_row: Array, row_of_choice: Array
) -> tuple[Array, tuple]:
    result = from_rows(outputs, weights, token_of_row, row_of_choice)
    return result, (outputs, weights, token_of_row, row_of_choice)


def _from_rows_backward(residuals: tuple, gradient: Float[Array, "T D"]) -> tuple[Array, Array, None, None]:
    outputs, weights, token_of_row, row_of_choice = residuals
    weight_of_row = jnp.zeros(len(outputs), weights.dtype)
    weight_of_row = weight_of_row.at[row_of_choice.reshape(-1)].set(weights.reshape(-1), mode="drop")
    rows = gradient.at[token_of_row].get(mode="clip")
    to_outputs = weight_of_row[:, None] * rows
    # d loss / d weight = gradient . output, worked out in the rows and gathered back as numbers, not as rows
    products = jnp.sum(rows.astype(jnp.float32) * outputs.astype(jnp.float32), axis=-1)
    to_weights = products.at[row_of_choice].get(mode="fill", fill_value=0)
    return to_outputs.astype(outputs.dtype), to_weights.astype(weights.dtype), None, None


from_rows.defvjp(_from_rows_forward, _from_rows_backward)


def dispatch_segments(
    tokens: Float[Array, "G S D"], assignment: Assignment, experts: ExpertFunction
) -> Float[Array, "G S D"]:
    """Moves tokens into one segment of rows for each expert; cost grows with the assignments, not with the capacity."""
    groups, size, width = tokens.shape
    num_experts = assignment.num_experts
    weights, expert_of_choice = assignment.by_choice()
    chunk = chunk_rows(expert_of_choice.size, num_experts)
    num_rows = expert_of_choice.size + chunk
    row_of_choice, segments = _rows_and_segments(expert_of_choice.reshape(-1), num_experts, chunk)
    numbers = jnp.broadcast_to(jnp.arange(groups * size, dtype=row_of_choice.dtype), expert_of_choice.shape)
    token_of_row = jnp.zeros(num_rows, row_of_choice.dtype)
    token_of_row = token_of_row.at[row_of_choice].set(numbers.reshape(-1), mode="drop")
    row_of_choice = row_of_choice.reshape(expert_of_choice.shape)
    outputs = experts(to_rows(tokens.reshape(-1, width), token_of_row, row_of_choice), segments)
    return from_rows(outputs, weights, token_of_row, row_of_choice).reshape(tokens.shape)


def _rows_and_segments(
    expert_of_choice: Int[Array, " A"], num_experts: int, chunk: int
) -> tuple[Int[Array, " A"], Segments]:
    """The row of every choice, and the rows of every expert. A choice of expert E, which is none, gets row A + T."""
    rank = earlier_choices(expert_of_choice[None], num_experts)[0]
    counts = jnp.sum(expert_of_choice[:, None] == jnp.arange(num_experts)[None], axis=0, dtype=rank.dtype)
    starts = jnp.cumsum(counts) - counts
    rows = jnp.append(starts, 0)[expert_of_choice] + rank
    no_row = len(rows) + chunk
    return jnp.where(expert_of_choice < num_experts, rows, no_row), Segments(starts, counts, chunk)
