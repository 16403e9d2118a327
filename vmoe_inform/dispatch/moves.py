"""Rows and numbers between tokens and slots, in the way that the platform is fast at.

What is moved has the same bits in every way, if it is finite. A number that is not would spread over its expert's slots
by a product. Weights and their gradients are moved so in the backward pass only, where one of them spoils all anyway.

Slots lie as [E, G, C], the order of the experts' rows. Choices lie as [K, G, S], so that a sum over the choices of a
token adds whole arrays. The slot of a choice is the pair (e, c), and c >= C for a choice without one. The token of an
empty slot is S.

Elsewhere than on TPUs these are gathers and scatters with an axis of groups. A TPU takes two to three times the cycles
for such an axis as for one long list of rows. It moves single numbers one after the other; a product with zeros and
ones takes an eighth (docs/performance.md).
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from vmoe_inform.axes import Array, Float, Int
from vmoe_inform.dispatch.choice import current_platform

_CYCLES_OF_A_NUMBER = 9.0  # that a TPU moves alone


def rows_of_tokens(
    tokens: Float[Array, "G S D"], token_of_slot: Int[Array, "E G C"], *, empty: str
) -> Float[Array, "E G C D"]:
    """tokens[g, token_of_slot[e, g, c]]; where that is S, zeros (``empty="fill"``) or any token (``"clip"``)."""
    if _is_for_tpu(tokens.shape[0]):  # no len(): a program for any batch has a symbol here
        return _by_group(lambda *arrays: flat_rows_of_tokens(*arrays, empty=empty), (tokens, token_of_slot), (0, 1), 1)
    dimensions = lax.GatherDimensionNumbers(
        offset_dims=(3,),
        collapsed_slice_dims=(1,),
        start_index_map=(1,),
        operand_batching_dims=(0,),  # a group's tokens are found in that group: with G sharded, nothing moves
        start_indices_batching_dims=(1,),
    )
    sizes = (1, 1, tokens.shape[-1])
    return lax.gather(tokens, token_of_slot[..., None], dimensions, sizes, mode=empty, fill_value=0)


def rows_of_slots(slots: Float[Array, "E G C D"], slot_of_choice: Int[Array, "K G S 2"]) -> Float[Array, "K G S D"]:
    """slots[e, g, c] for the pairs (e, c), and zeros for a choice without a slot."""
    if _is_for_tpu(slots.shape[1]):
        return _by_group(flat_rows_of_slots, (slots, slot_of_choice), (1, 1), 1)
    return _batched_rows_of_slots(slots, slot_of_choice)


def numbers_to_slots(
    numbers: Array, slot_of_choice: Int[Array, "K G S 2"], shape: tuple[int, int, int], empty: int = 0
) -> Array:
    """A number for each choice [K, G, S] -> the same in its slot [E, G, C]; ``empty`` in the others.

    They are finite; integers and ``empty`` are smaller than 2^24.
    """
    if _product_pays(shape[0], shape[-1]):
        return product_to_slots(numbers, slot_of_choice, shape, empty)
    dimensions = lax.ScatterDimensionNumbers(
        update_window_dims=(),
        inserted_window_dims=(0, 2),
        scatter_dims_to_operand_dims=(0, 2),
        operand_batching_dims=(1,),
        scatter_indices_batching_dims=(1,),
    )
    table = jnp.full(shape, empty, numbers.dtype)
    return lax.scatter(table, slot_of_choice, numbers, dimensions, mode="drop")


def numbers_of_slots(numbers: Float[Array, "E G C"], slot_of_choice: Int[Array, "K G S 2"]) -> Float[Array, "K G S"]:
    """The finite number in the slot of each choice, float32; 0 for a choice without a slot."""
    if _product_pays(numbers.shape[0], numbers.shape[-1]):
        return product_of_slots(numbers, slot_of_choice)
    return _batched_rows_of_slots(numbers[..., None], slot_of_choice)[..., 0]


def _product_pays(experts: int, capacity: int) -> bool:
    """Whether a product takes fewer cycles of a TPU for each choice; fitted to its final schedules."""
    return current_platform() == "tpu" and capacity * (experts + 50) / 20_000 < _CYCLES_OF_A_NUMBER


def _is_for_tpu(groups: int) -> bool:
    """Whether each device of a TPU mesh makes one list of its groups; parameters are made with a single group."""
    sizes = jax.sharding.get_abstract_mesh().shape
    return current_platform() == "tpu" and groups % math.prod(sizes[axis] for axis in _axes_of_groups()) == 0


def _axes_of_groups() -> tuple[str, ...]:
    """Of the mesh in use, those that spread the groups over devices: all, or none in a function of one device."""
    mesh = jax.sharding.get_abstract_mesh()
    return tuple(axis for axis, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind != AxisType.Manual)


def _by_group(
    function: Callable[..., Array], arrays: Sequence[Array], group_axes: Sequence[int], output_axis: int
) -> Array:
    """On each device for its own groups: XLA's partitioner does not see that one list keeps to the groups."""
    spread_over = _axes_of_groups()
    if not spread_over:
        return function(*arrays)
    specs = [PartitionSpec(*[None] * axis, spread_over) for axis in (*group_axes, output_axis)]
    return jax.shard_map(function, in_specs=tuple(specs[:-1]), out_specs=specs[-1], check_vma=False)(*arrays)


def _batched_rows_of_slots(
    slots: Float[Array, "E G C D"], slot_of_choice: Int[Array, "K G S 2"]
) -> Float[Array, "K G S D"]:
    dimensions = lax.GatherDimensionNumbers(
        offset_dims=(3,),
        collapsed_slice_dims=(0, 2),
        start_index_map=(0, 2),
        operand_batching_dims=(1,),
        start_indices_batching_dims=(1,),
    )
    sizes = (1, 1, 1, slots.shape[-1])
    return lax.gather(slots, slot_of_choice, dimensions, sizes, mode="fill", fill_value=0)


# For TPUs


def flat_rows_of_tokens(
    tokens: Float[Array, "G S D"], token_of_slot: Int[Array, "E G C"], *, empty: str
) -> Float[Array, "E G C D"]:
    """As :func:`rows_of_tokens`, from one list of all groups' tokens."""
    groups, size, width = tokens.shape
    first = size * jnp.arange(groups, dtype=token_of_slot.dtype)[None, :, None]
    index = first + jnp.minimum(token_of_slot, size - 1)
    if empty == "fill":
        index = jnp.where(token_of_slot < size, index, groups * size)
    return _rows(tokens.reshape(-1, width), index, empty)


def flat_rows_of_slots(
    slots: Float[Array, "E G C D"], slot_of_choice: Int[Array, "K G S 2"]
) -> Float[Array, "K G S D"]:
    """As :func:`rows_of_slots`, from one list of all slots."""
    experts, groups, capacity, width = slots.shape
    expert, position = slot_of_choice[..., 0], slot_of_choice[..., 1]
    group = jnp.arange(groups, dtype=expert.dtype)[None, :, None]
    index = (expert * groups + group) * capacity + position
    has_one = (expert < experts) & (position < capacity)
    return _rows(slots.reshape(-1, width), jnp.where(has_one, index, experts * groups * capacity), "fill")


def _rows(rows: Float[Array, "R D"], index: Int[Array, "*shape"], outside: str) -> Float[Array, "*shape D"]:
    dimensions = lax.GatherDimensionNumbers(offset_dims=(index.ndim,), collapsed_slice_dims=(0,), start_index_map=(0,))
    return lax.gather(rows, index[..., None], dimensions, (1, rows.shape[1]), mode=outside, fill_value=0)


def product_to_slots(
    numbers: Array, slot_of_choice: Int[Array, "K G S 2"], shape: tuple[int, int, int], empty: int = 0
) -> Array:
    """As :func:`numbers_to_slots`: a slot's number is a sum over choices, all but one of which add zero."""
    experts, _, capacity = shape
    expert, position = slot_of_choice[..., 0], slot_of_choice[..., 1]
    own = jnp.where(jax.nn.one_hot(expert, experts, dtype=bool), (numbers - empty).astype(jnp.float32)[..., None], 0.0)
    at = jax.nn.one_hot(position, capacity, dtype=jnp.float32)
    # Float32 factors are whole in the products: three parts of bfloat16, of which zeros and ones need one.
    found = jnp.einsum("kgse,kgsc->egc", own, at, precision=lax.Precision.HIGHEST)
    return found.astype(numbers.dtype) + jnp.asarray(empty, numbers.dtype)


def product_of_slots(numbers: Float[Array, "E G C"], slot_of_choice: Int[Array, "K G S 2"]) -> Float[Array, "K G S"]:
    """As :func:`numbers_of_slots`: the number at the choice's position for every expert, of which one is its own."""
    experts, _, capacity = numbers.shape
    expert, position = slot_of_choice[..., 0], slot_of_choice[..., 1]
    at = jax.nn.one_hot(position, capacity, dtype=jnp.float32)
    of_experts = jnp.einsum("kgsc,egc->kgse", at, numbers.astype(jnp.float32), precision=lax.Precision.HIGHEST)
    return jnp.sum(jnp.where(jax.nn.one_hot(expert, experts, dtype=bool), of_experts, 0.0), axis=-1)
