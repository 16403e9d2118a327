"""Each way to move rows and numbers gives the bits of the others."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from vmoe_inform import dispatch
from vmoe_inform.dispatch import moves
from vmoe_inform.sharding.mesh import AXES, make_mesh

GROUPS, SIZE, SELECTED, EXPERTS, CAPACITY, WIDTH = 8, 12, 2, 4, 5, 6  # 24 choices of a group for 20 slots


@pytest.fixture
def as_on_tpus(monkeypatch):
    """A function that calls another one in the way of TPUs."""

    def call(function, *arguments):
        with monkeypatch.context() as patched:
            patched.setattr(moves, "current_platform", lambda: "tpu")
            return jax.jit(lambda *arrays: function(*arrays))(*arguments)  # traced anew

    return call


def inputs():
    rng = np.random.default_rng(0)
    indices = np.argsort(rng.normal(size=(GROUPS, SIZE, EXPERTS)), axis=-1)[..., :SELECTED]
    weights = jnp.asarray(rng.uniform(size=indices.shape), jnp.float32)
    assignment = dispatch.assign_slots(weights, jnp.asarray(indices), num_experts=EXPERTS, capacity=CAPACITY)
    slot_of_choice = jnp.stack(
        [jnp.moveaxis(array, -1, 0) for array in (assignment.indices, assignment.positions)], axis=-1
    )
    has_none = np.asarray(slot_of_choice[..., 1]) >= CAPACITY
    assert 0 < has_none.sum() < has_none.size / 2
    return assignment, slot_of_choice, jnp.asarray(rng.normal(size=(GROUPS, SIZE, WIDTH)), jnp.float32)


def test_rows_and_numbers_are_those_of_other_platforms(as_on_tpus):
    assignment, slot_of_choice, tokens = inputs()
    numbers = jnp.broadcast_to(jnp.arange(SIZE), slot_of_choice.shape[:-1])
    shape = (EXPERTS, GROUPS, CAPACITY)

    def everything(tokens, weights, slot_of_choice):
        token_of_slot = moves.numbers_to_slots(numbers, slot_of_choice, shape, empty=SIZE)
        rows = moves.rows_of_tokens(tokens, token_of_slot, empty="fill")
        any_rows = moves.rows_of_tokens(tokens, token_of_slot, empty="clip")
        weights_of_slots = moves.numbers_to_slots(weights, slot_of_choice, shape)
        back = moves.numbers_of_slots(weights_of_slots, slot_of_choice)
        return token_of_slot, rows, any_rows, weights_of_slots, back, moves.rows_of_slots(rows, slot_of_choice)

    weights = jnp.moveaxis(assignment.weights, -1, 0)
    expected = everything(tokens, weights, slot_of_choice)
    found = as_on_tpus(everything, tokens, weights, slot_of_choice)
    assert SIZE in np.asarray(expected[0])  # an empty slot
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_numbers_of_more_bits_than_a_product_of_bfloat16_has(as_on_tpus):
    """A group of 2^17 tokens, the last of which is in a slot; weights of 24 bits."""
    size = 2**17
    positions = jnp.full((1, 1, size), 1).at[0, 0, -1].set(0)
    slot_of_choice = jnp.stack([jnp.zeros_like(positions), positions], axis=-1)
    numbers = jnp.arange(size)[None, None]
    found = as_on_tpus(lambda n, s: moves.numbers_to_slots(n, s, (2, 1, 1), size), numbers, slot_of_choice)
    np.testing.assert_array_equal(found[:, 0, 0], [size - 1, size])
    weight = np.float32(1 / 3)
    weights = jnp.zeros((1, 1, size)).at[0, 0, -1].set(weight)
    found = as_on_tpus(lambda n, s: moves.numbers_to_slots(n, s, (2, 1, 1)), weights, slot_of_choice)
    np.testing.assert_array_equal(found[:, 0, 0], [weight, 0])


def test_products_are_for_few_slots_of_an_expert_only(as_on_tpus):
    """A slot of one expert for each choice would take a product of 2^28 numbers."""
    text = str(jax.make_jaxpr(as_on_tpus, static_argnums=0)(round_trip, jnp.zeros((1, 1, 2**14), jnp.int32)))
    assert "dot_general" not in text


def round_trip(positions):
    slot_of_choice = jnp.stack([jnp.zeros_like(positions), positions], axis=-1)
    weights = jnp.ones(positions.shape)
    of_slots = moves.numbers_to_slots(weights, slot_of_choice, (1, 1, positions.size))
    return moves.numbers_of_slots(of_slots, slot_of_choice)


def outputs_and_gradients(tokens, weights, indices, positions, dispatcher="gather"):
    def experts(rows, expert_of_block=None):
        expert = jnp.arange(EXPERTS) if expert_of_block is None else jnp.minimum(expert_of_block, EXPERTS - 1)
        return jnp.tanh((1.0 + expert).reshape(-1, *[1] * (rows.ndim - 1)) * rows)

    def outputs(tokens, weights):
        plan = dispatch.Assignment(weights, indices, positions, EXPERTS, CAPACITY)
        return dispatch.carry_out(tokens, plan, experts, dispatcher=dispatcher)

    found, pull_back = jax.vjp(outputs, tokens, weights)
    return found, *pull_back(jnp.cos(found))


@pytest.mark.parametrize("dispatcher", ["gather", "ragged"])
def test_dispatch_and_its_gradients_are_those_of_other_platforms(as_on_tpus, dispatcher):
    assignment, _, tokens = inputs()
    arrays = tokens, assignment.weights, assignment.indices, assignment.positions
    function = functools.partial(outputs_and_gradients, dispatcher=dispatcher)
    found = as_on_tpus(function, *arrays)
    for one, other in zip(found, jax.jit(outputs_and_gradients)(*arrays), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)  # sums fuse in other ways


def test_in_a_function_of_one_device_there_is_no_mesh(monkeypatch):
    """As `ragged` is carried out on a mesh."""
    assignment, _, tokens = inputs()
    arrays = tokens, assignment.weights, assignment.indices, assignment.positions
    expected = jax.jit(outputs_and_gradients)(*arrays)
    monkeypatch.setattr(moves, "current_platform", lambda: "tpu")
    with jax.set_mesh(make_mesh(4, 2)):
        of_device = jax.shard_map(
            lambda *parts: outputs_and_gradients(*parts), in_specs=PartitionSpec(AXES), out_specs=PartitionSpec(AXES)
        )
        found = jax.jit(of_device)(*arrays)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("groups", [8, 3])
def test_on_a_mesh_nothing_moves_and_groups_that_it_does_not_divide_are_as_elsewhere(monkeypatch, groups):
    assignment, _, tokens = inputs()
    every = tokens, assignment.weights, assignment.indices, assignment.positions
    arrays = [array[:groups] for array in every]
    expected = jax.jit(outputs_and_gradients)(*arrays)
    monkeypatch.setattr(moves, "current_platform", lambda: "tpu")
    mesh = make_mesh(4, 2)
    spread = jax.sharding.NamedSharding(mesh, PartitionSpec(AXES if groups == 8 else None))
    with jax.set_mesh(mesh):
        program = jax.jit(outputs_and_gradients, out_shardings=spread)
        placed = jax.device_put(arrays, spread)
        found = program(*placed)
        text = program.lower(*placed).compile().as_text()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)  # sums fuse in other ways
    assert not [name for name in ("all-gather", "all-reduce", "all-to-all", "collective-permute") if name in text]
