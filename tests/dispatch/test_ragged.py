"""Blocks of rows: where choices go, what blocks of no expert may do, and what it costs."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from vmoe_inform import dispatch
from vmoe_inform.dispatch import ragged
from vmoe_inform.dispatch.products import block_products


@pytest.mark.parametrize(("num_experts", "seed"), [(1, 0), (3, 0), (3, 1), (40, 2)])
def test_rows_and_blocks_equal_a_loop(num_experts, seed):
    rows = 4
    experts = np.random.default_rng(seed).integers(0, num_experts + 1, 60).astype(np.int32)  # E: no expert
    num_blocks = -(-60 // rows) + num_experts
    expected_slots, expected_blocks = np.full(60, num_blocks * rows), []
    for e in range(num_experts):
        mine = np.flatnonzero(experts == e)
        expected_slots[mine] = len(expected_blocks) * rows + np.arange(len(mine))
        expected_blocks += [e] * -(-len(mine) // rows)
    slots, blocks = ragged._slots_and_blocks(jnp.asarray(experts), num_experts, rows, num_blocks)
    assert len(expected_blocks) <= num_blocks
    assert blocks.tolist() == expected_blocks + [num_experts] * (num_blocks - len(expected_blocks))
    # All that have no expert are behind the last row.
    np.testing.assert_array_equal(np.minimum(slots, num_blocks * rows), expected_slots)


@pytest.mark.parametrize(
    ("num_rows", "num_experts", "expected"),
    [
        (3152, 8, 64),  # a group of 8 images of 197 tokens, K = 2: 8 blocks of 64 are a sixth of 3152, of 128 a third
        (12608, 128, 16),  # of 32 images: 128 blocks of 16 are a sixth
        (12608, 8, 128),  # the largest
        (20, 8, 8),  # the smallest
    ],
)
def test_rows_of_a_block(num_rows, num_experts, expected):
    assert ragged.block_rows(num_rows, num_experts) == expected


def make(size, num_experts, selected=2, width=6, groups=1):
    rng = np.random.default_rng(0)
    indices = np.argsort(rng.random((groups, size, num_experts)), axis=-1)[..., :selected].astype(np.int32)
    return (
        jnp.asarray(rng.normal(size=(groups, size, width)), jnp.float32),
        jnp.asarray(rng.random(indices.shape), jnp.float32),
        jnp.asarray(indices),
        jnp.asarray(rng.normal(size=(num_experts, width, width)), jnp.float32),
    )


def test_what_experts_make_of_blocks_of_no_expert_reaches_nothing():
    tokens, weights, indices, kernels = make(size=12, num_experts=3)

    @jax.jit
    def outputs_and_gradients(spoilt):
        def experts(blocks, expert_of_block):
            real = (expert_of_block < 3)[:, None, None]
            outputs = jnp.tanh(block_products(blocks, kernels, expert_of_block))
            return jnp.where(real, outputs, spoilt)

        def function(tokens, weights):
            plan = dispatch.assign_slots(weights, indices, num_experts=3, capacity=6)  # of 24 choices 18 at most
            return dispatch.DISPATCHERS["ragged"](tokens, plan, experts)

        outputs, pullback = jax.vjp(function, tokens, weights)
        return outputs, *pullback(jnp.ones_like(outputs))

    for spoilt, clean in zip(outputs_and_gradients(jnp.nan), outputs_and_gradients(0.0), strict=True):
        assert jnp.abs(clean).max() > 0
        np.testing.assert_array_equal(spoilt, clean)


def test_blocks_of_no_expert_get_no_gradient():
    tokens, weights, indices, _ = make(size=12, num_experts=3)
    seen = []

    @jax.custom_vjp
    def probe(blocks, expert_of_block):
        return blocks

    def backward(expert_of_block, gradient):
        seen.append((expert_of_block, gradient))
        return gradient, None

    probe.defvjp(lambda blocks, expert_of_block: (blocks, expert_of_block), backward)

    def function(tokens):
        plan = dispatch.assign_slots(weights, indices, num_experts=3, capacity=6)
        return jnp.sum(dispatch.DISPATCHERS["ragged"](tokens, plan, probe))

    jax.grad(function)(tokens)
    ((experts, gradient),) = seen
    assert (experts == 3).any()
    np.testing.assert_array_equal(gradient[experts == 3], 0.0)
    assert jnp.abs(gradient[experts < 3]).max() > 0


# What a program computes, counted in its jaxpr: the same on every machine.


def work(jaxpr):
    """Floating-point operations of matrix products (of several branches the most), and the largest array."""
    flops, largest = 0, 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        shapes = [variable.aval.shape for variable in equation.invars if hasattr(variable.aval, "shape")]
        if name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            flops += 2 * equation.outvars[0].aval.size * math.prod(shapes[0][axis] for axis in contracted)
        inner = [work(each) for each in jaxprs_in_params(equation.params)]
        times = equation.params["length"] if name == "scan" else 1
        flops += times * (max if name == "cond" else sum)([each[0] for each in inner])
        sizes = [variable.aval.size for variable in equation.outvars if hasattr(variable.aval, "size")]
        largest = max([largest, *sizes, *(each[1] for each in inner)])
    return flops, largest


def work_of(name, size, num_experts, capacity, selected=2, width=128):
    """Forward and backward pass with experts of one matrix: operations over those of the assignments (three products
    for each), and the largest array."""
    arguments = make(size, num_experts, selected, width)

    def loss(tokens, weights, indices, kernels):
        def experts(rows, expert_of_block=None):
            if expert_of_block is not None:
                return block_products(rows, kernels, expert_of_block)
            return jnp.einsum("egtd,edf->egtf", rows, kernels)

        plan = dispatch.assign_slots(weights, indices, num_experts=num_experts, capacity=capacity)
        return jnp.sum(dispatch.DISPATCHERS[name](tokens, plan, experts) ** 2)

    program = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1, 3)))(*arguments)
    flops, largest = work(program.jaxpr)
    return flops / (3 * 2 * size * selected * width**2), largest


@pytest.mark.parametrize("num_experts", [4, 16, 64])
def test_ragged_costs_what_the_assignments_cost(num_experts):
    """Half a block for each expert on average, a whole one at most: a quarter of the assignments."""
    flops, _ = work_of("ragged", 1024, num_experts, capacity=1024)
    assert 1.0 <= flops <= 1.25
    assert work_of("ragged", 1024, num_experts, capacity=4)[0] == flops
    # The same count sees the slots of gather: E C of them for K S assignments.
    assert work_of("gather", 1024, num_experts, capacity=1024)[0] == num_experts / 2


def test_gather_costs_as_much_per_token_in_large_groups():
    """Not so einsum, whose one-hot arrays [S, E, C] and products with them grow with the square of the group."""
    of = functools.partial(work_of, num_experts=8, width=8)
    small, large = of("gather", 64, capacity=16), of("gather", 1024, capacity=256)
    assert small[0] == large[0] == 1.0
    assert large[1] == 16 * small[1]
    small, large = of("einsum", 64, capacity=16), of("einsum", 1024, capacity=256)
    assert large[0] > 4 * small[0]
    assert large[1] == 16**2 * small[1]
