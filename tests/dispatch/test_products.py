"""Products with experts' matrices: every form of them equals einsum over the rows that are there."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmoe_inform.dispatch import products

# Width and features of the smallest matrix that is worth a loop, and of one that is not.
SIZES = {"loop": (256, 256), "batched": (8, 12)}


def normal(seed, *shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def outputs_and_gradients(function, *arguments):
    outputs, pullback = jax.vjp(function, *arguments)
    return outputs, *pullback(normal(9, *outputs.shape, dtype=outputs.dtype))


def assert_close(one, other, tolerance=1e-5):
    """Within the tolerance, relative to the largest entry."""
    for a, b in zip(one, other, strict=True):
        a, b = (np.asarray(array, np.float32) for array in (a, b))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, np.abs(b).max()))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
def test_expert_products_equal_einsum(size, dtype, tolerance):
    width, features = SIZES[size]
    rows, kernels = normal(0, 3, 5, width), normal(1, 3, width, features)
    found = jax.jit(functools.partial(outputs_and_gradients, products.expert_products))(
        rows.astype(dtype), kernels.astype(dtype)
    )
    assert {array.dtype for array in found} == {jnp.dtype(dtype)}
    expected = outputs_and_gradients(lambda rows, kernels: jnp.einsum("etd,edm->etm", rows, kernels), rows, kernels)
    # bfloat16: 8 bits of mantissa in what goes in and what comes out, and in between sums in float32
    assert_close(found, expected, tolerance)


def test_which_form_a_matrix_gets():
    rows, kernels = jnp.ones((2, 1, 256)), jnp.ones((2, 256, 256))
    assert kernels[0].size == products.LEAST_FOR_LOOP
    assert "scan" in str(jax.make_jaxpr(products.expert_products)(rows, kernels))
    assert "scan" not in str(jax.make_jaxpr(products.expert_products)(rows, kernels[..., :-1]))


# The experts of seven blocks; the last blocks may have no expert (6), and experts no block.
EXPERTS_OF_BLOCKS = {
    "every-expert": [0, 1, 2, 3, 3, 4, 5],
    "gaps": [1, 1, 1, 2, 4, 6, 6],
    "one-expert": [3, 3, 3, 3, 3, 3, 3],
    "no-expert": [6, 6, 6, 6, 6, 6, 6],
}
NUM_BLOCKS, NUM_EXPERTS, ROWS, WIDTH, FEATURES = 7, 6, 8, 16, 12
BLOCKS = pytest.mark.parametrize(
    "experts", [jnp.asarray(experts) for experts in EXPERTS_OF_BLOCKS.values()], ids=EXPERTS_OF_BLOCKS
)


def reference(blocks, kernels, expert_of_block):
    """By one-hot vectors, in which a block of no expert is all zeros."""
    one_hot = jax.nn.one_hot(expert_of_block, NUM_EXPERTS)
    return jnp.einsum("xtd,xe,edm->xtm", blocks, one_hot, kernels)


@functools.cache
def block_function(product):
    """jitted (blocks, kernels, experts) -> outputs and both gradients."""
    return jax.jit(
        lambda blocks, kernels, experts: outputs_and_gradients(
            lambda blocks, kernels: product(blocks, kernels, experts), blocks, kernels
        )
    )


@BLOCKS
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
def test_block_products_equal_einsum(experts, dtype, tolerance):
    blocks, kernels = normal(0, NUM_BLOCKS, ROWS, WIDTH), normal(1, NUM_EXPERTS, WIDTH, FEATURES)
    found = block_function(products.block_products)(blocks.astype(dtype), kernels.astype(dtype), experts)
    assert {array.dtype for array in found} == {jnp.dtype(dtype)}
    assert_close(found, block_function(reference)(blocks, kernels, experts), tolerance)


@jax.jit
def loop_forms(blocks, kernels, gradient, experts):
    return (
        products._block_loop(blocks, kernels, experts),
        products._block_loop(gradient, jnp.swapaxes(kernels, 1, 2), experts),
        products._kernel_gradient_loop(blocks, gradient, experts, num_experts=NUM_EXPERTS),
    )


@jax.jit
def grouped_forms(blocks, kernels, gradient, experts):
    return (
        products._ragged_product(blocks, kernels, experts, transpose=False),
        products._ragged_product(gradient, kernels, experts, transpose=True),
        products._kernel_gradient_batched(blocks, gradient, experts, num_experts=NUM_EXPERTS),
    )


@BLOCKS
def test_grouped_forms_equal_the_loops(experts):
    """Those of accelerators, run on a CPU; products of blocks of no expert are not defined, nor compared."""
    arguments = normal(0, NUM_BLOCKS, ROWS, WIDTH), normal(1, NUM_EXPERTS, WIDTH, FEATURES)
    gradient = normal(2, NUM_BLOCKS, ROWS, FEATURES)
    real = (experts < NUM_EXPERTS)[:, None, None]
    defined = lambda forms: (jnp.where(real, forms[0], 0), jnp.where(real, forms[1], 0), forms[2])
    found, expected = (defined(forms(*arguments, gradient, experts)) for forms in (grouped_forms, loop_forms))
    assert_close(found, expected)
    assert np.abs(expected[2]).max() > 0 or not real.any()


@pytest.mark.parametrize("forms", [loop_forms, grouped_forms], ids=["loop", "grouped"])
def test_blocks_of_no_expert_reach_nothing(forms):
    """Not even if they are no numbers: not the products of other blocks, and not what experts learn."""
    experts = jnp.asarray(EXPERTS_OF_BLOCKS["gaps"])
    blocks, kernels = normal(0, NUM_BLOCKS, ROWS, WIDTH), normal(1, NUM_EXPERTS, WIDTH, FEATURES)
    gradient = normal(2, NUM_BLOCKS, ROWS, FEATURES)
    expected = forms(blocks, kernels, gradient, experts)
    spoilt = forms(blocks.at[5:].set(jnp.nan), kernels, gradient.at[5:].set(jnp.inf), experts)
    for a, b in zip(spoilt[:2], expected[:2], strict=True):
        np.testing.assert_array_equal(a[:5], b[:5])
    np.testing.assert_array_equal(spoilt[2], expected[2])
    np.testing.assert_array_equal(expected[2][jnp.array([0, 3, 5])], 0.0)


def test_a_tpu_gets_grouped_kernels_only():
    """Nothing that is lowered for a TPU multiplies rows with the matrices of all experts."""
    experts = jnp.asarray(np.repeat(np.arange(8), 2), jnp.int32)
    arguments = jnp.ones((16, 128, 256)), jnp.ones((8, 256, 128))
    program = block_function(products.block_products).trace(*arguments, experts)
    text = program.lower(lowering_platforms=("tpu",)).as_text()
    assert text.count('"chlo.ragged_dot"') == 2  # the product, and the gradient of its rows
    assert text.count("tpu_custom_call") == 1  # the gradient of its kernels
    assert "dot_general" not in text
    on_cpu = program.lower(lowering_platforms=("cpu",)).as_text()
    assert "dot_general" in on_cpu
    assert "while" in on_cpu
    assert "ragged_dot" not in on_cpu
