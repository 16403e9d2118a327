"""Segments of rows: where choices go, what spare rows may do, what a row sees of others, and what it costs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmoe_inform import dispatch
from vmoe_inform.dispatch import segment_products, segments
from vmoe_inform.dispatch.segment_products import Segments, chunk_rows
from vmoe_inform.performance import costs

WIDTH, FEATURES, CHUNK = 16, 12, 8
# Rows of each expert: none, less than a chunk, whole chunks, one that all sizes of chunks are needed for, and the rest.
COUNTS = np.array([0, 3, 16, 45, 1])
SPOILT = np.nan  # in the spare rows


def make(counts=COUNTS, num_rows=None, seed=0, width=WIDTH, features=FEATURES):
    rng = np.random.default_rng(seed)
    num_rows = (counts.sum() if num_rows is None else num_rows) + CHUNK
    arrays = (rng.normal(size=(num_rows, width)), rng.normal(size=(len(counts), width, features)))
    arrays += (rng.normal(size=(len(counts), features)), rng.normal(size=(num_rows, features)))
    where = Segments(jnp.asarray(np.cumsum(counts) - counts, jnp.int32), jnp.asarray(counts, jnp.int32), CHUNK)
    return *(jnp.asarray(array, jnp.float32) for array in arrays), where


def expected(rows, kernels, biases, gradient, where):
    """Outputs and gradients by a loop over rows in float64."""
    rows, kernels, biases, gradient = (np.asarray(array, np.float64) for array in (rows, kernels, biases, gradient))
    experts = np.repeat(np.arange(len(kernels)), where.counts)
    outputs, to_rows = np.zeros(gradient.shape), np.zeros(rows.shape)
    to_kernels, to_biases = np.zeros(kernels.shape), np.zeros(biases.shape)
    for row, expert in enumerate(experts):
        outputs[row] = rows[row] @ kernels[expert] + biases[expert]
        to_rows[row] = kernels[expert] @ gradient[row]
        to_kernels[expert] += np.outer(rows[row], gradient[row])
        to_biases[expert] += gradient[row]
    real = len(experts)
    return outputs[:real], to_rows[:real], to_kernels, to_biases


@functools.cache
def forms(name):
    """(rows, kernels, biases, gradient, segments) -> outputs and gradients, of the public function or of one form."""

    @jax.jit
    def function(rows, kernels, biases, gradient, where):
        real = where.starts[-1] + where.counts[-1]
        if name == "public":
            linear = lambda *arrays: segment_products.segment_linear(*arrays, where)
            outputs, pullback = jax.vjp(linear, rows, kernels, biases)
            return outputs, *pullback(gradient), real
        of_experts = (where.starts, where.counts)
        if name == "grouped":
            forward, backward = segment_products._grouped, segment_products._grouped_gradients
        else:
            forward, backward = (
                functools.partial(form, CHUNK)
                for form in (segment_products._looped, segment_products._looped_gradients)
            )
        outputs = forward(rows, kernels, biases, *of_experts)
        return outputs, *backward(gradient, rows, kernels, *of_experts), real

    def of_real_rows(*arguments):
        outputs, to_rows, to_kernels, to_biases, real = function(*arguments)
        return outputs[: int(real)], to_rows[: int(real)], to_kernels, to_biases

    return of_real_rows


@pytest.mark.parametrize("name", ["public", "looped", "grouped"])
def test_a_linear_layer_equals_a_loop_over_rows(name):
    arguments = make()
    for found, true in zip(forms(name)(*arguments), expected(*arguments), strict=True):
        np.testing.assert_allclose(found, true, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["looped", "grouped"])
def test_spare_rows_reach_nothing(name):
    """Not even if they are no numbers."""
    rows, kernels, biases, gradient, where = make()
    real = COUNTS.sum()
    spoilt = (rows.at[real:].set(SPOILT), kernels, biases, gradient.at[real:].set(SPOILT), where)
    for found, clean in zip(forms(name)(*spoilt), forms(name)(rows, kernels, biases, gradient, where), strict=True):
        np.testing.assert_array_equal(found, clean)


def test_no_row_sees_how_many_others_there_are():
    """To the bit: the tokens behind decide in which chunk of its expert, and at which place of it, a row is."""
    rows, kernels, biases, gradient, where = make()
    outputs = forms("looped")(rows, kernels, biases, gradient, where)[0]
    counts = np.array([0, 3, 30, 29, 3])  # of expert 2 the same 16 rows and 14 more; of expert 3 the first 29
    fewer = np.concatenate([rows[:19], rows[1:15], rows[19:48], rows[64:65], rows[:2], rows[:CHUNK]])
    again = Segments(jnp.asarray(np.cumsum(counts) - counts, jnp.int32), jnp.asarray(counts, jnp.int32), CHUNK)
    found = forms("looped")(jnp.asarray(fewer), kernels, biases, gradient, again)[0]
    np.testing.assert_array_equal(found[:19], outputs[:19])
    np.testing.assert_array_equal(found[33:62], outputs[19:48])
    np.testing.assert_array_equal(found[62], outputs[64])


@pytest.mark.parametrize(("num_experts", "seed"), [(1, 0), (3, 1), (40, 2)])
def test_rows_and_segments_equal_a_loop(num_experts, seed):
    experts = np.random.default_rng(seed).integers(0, num_experts + 1, 60).astype(np.int32)  # E: no expert
    rows, where = segments._rows_and_segments(jnp.asarray(experts), num_experts, 8)
    order = [choice for e in range(num_experts) for choice in np.flatnonzero(experts == e)]
    true = np.full(60, 60 + 8)
    true[order] = np.arange(len(order))
    np.testing.assert_array_equal(rows, true)
    np.testing.assert_array_equal(where.counts, np.bincount(experts, minlength=num_experts + 1)[:num_experts])


@pytest.mark.parametrize(
    ("num_rows", "num_experts", "size"), [(4096, 8, 64), (2**15, 8, 64), (2048, 16, 32), (20, 8, 8)]
)
def test_rows_of_a_chunk(num_rows, num_experts, size):
    assert chunk_rows(num_rows, num_experts) == size


def test_operations_are_those_of_the_assignments():
    """As compiled for a CPU, where loops over unknown numbers of chunks count as often as they run on average."""
    size, num_experts, selected, width = 512, 4, 2, 64

    def loss(tokens, weights, indices, kernels, biases):
        plan = dispatch.assign_slots(weights, indices, num_experts=num_experts, capacity=size)
        experts = lambda rows, where: segment_products.segment_linear(rows, kernels, biases, where)
        return jnp.sum(dispatch.DISPATCHERS["segments"](tokens, plan, experts) ** 2)

    float32 = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    arguments = (
        float32(1, size, width),
        float32(1, size, selected),
        jax.ShapeDtypeStruct((1, size, selected), jnp.int32),
    )
    arguments += (float32(num_experts, width, width), float32(num_experts, width))
    compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 3))).lower(*arguments).compile()
    found = costs.of(compiled)
    assert found.unknown_loops == 0
    # Half a chunk of 64 rows for each expert of 256, and elementwise work beside products of width 64
    assert 1.0 < found.flops / (3 * 2 * size * selected * width**2) < 1.3
