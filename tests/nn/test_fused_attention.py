"""The kernels against attention as it is written, worked out by Pallas' interpreter on a CPU."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmoe_inform.nn import fused_attention as fused
from vmoe_inform.nn.fused_attention import fits, fused_attention

B, N, D = 2, 13, 256  # a prime number of tokens, and more than one block of lanes


def reference(queries, keys, values, num_heads):
    """Outputs and entropies [B, H] with an array for each head, float32."""

    def split(array):
        return array.astype(jnp.float32).reshape(*array.shape[:2], num_heads, -1)

    queries, keys, values = split(queries), split(keys), split(values)
    with jax.default_matmul_precision("float32"):
        logits = jnp.einsum("bihf,bjhf->bhij", queries, keys) / queries.shape[-1] ** 0.5
        weights = jax.nn.softmax(logits, axis=-1)
        attended = jnp.einsum("bhij,bjhf->bihf", weights, values)
    entropies = -jnp.sum(weights * jax.nn.log_softmax(logits, axis=-1), axis=-1)
    return attended.reshape(*attended.shape[:2], -1), jnp.mean(entropies, axis=-1)


def inputs(dtype, tokens=N, width=D):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=(B, tokens, width)), dtype) for _ in range(4)]


@functools.partial(jax.jit, static_argnums=0)
def with_gradients(attention, arrays):
    *arguments, direction = arrays
    (attended, entropies), pullback = jax.vjp(attention, *arguments)
    return attended, entropies, *pullback((direction.astype(attended.dtype), jnp.ones_like(entropies)))


def compare(dtype, num_heads, arrays, rtol):
    """Errors as shares of the largest value of each array."""
    got = with_gradients(
        lambda q, k, v: fused_attention(q, k, v, num_heads=num_heads, record=True, interpret=True), arrays
    )

    def expected(q, k, v):
        attended, entropies = reference(q, k, v, num_heads)
        return attended, jax.lax.stop_gradient(entropies)

    wanted = with_gradients(expected, [array.astype(jnp.float32) for array in arrays])
    for name, one, other in zip(("attended", "entropies", "queries", "keys", "values"), got, wanted, strict=True):
        assert one.dtype == (jnp.float32 if name == "entropies" else dtype), name
        largest = np.max(np.abs(other))
        np.testing.assert_allclose(one.astype(jnp.float32) / largest, other / largest, rtol=0, atol=rtol, err_msg=name)


# Four heads in a block of lanes, two, one, and one that takes two registers.
@pytest.mark.parametrize(
    ("head_size", "dtype", "rtol"),
    [(32, jnp.bfloat16, 1e-2), (64, jnp.float32, 2e-6), (128, jnp.float32, 2e-6), (256, jnp.bfloat16, 1e-2)],
)
def test_outputs_entropies_and_gradients(head_size, dtype, rtol):
    compare(dtype, D // head_size, inputs(dtype), rtol)


def test_blocks_of_queries():
    arrays = inputs(jnp.float32, tokens=389, width=128)
    # The weights of 389^2 x 4 bytes are more than half a MiB; blocks of 256 and 133 are not.
    assert len(fused._row_blocks(arrays[0][0])) == 2
    compare(jnp.float32, 1, arrays, 2e-6)


def test_large_logits_without_entropies():
    # A logit of 10^3 has no exponential in float32; what is left of the weights is about 1 for the largest.
    queries, keys, values, _ = inputs(jnp.float32, width=128)
    attended, entropies = fused_attention(1e3 * queries, keys, values, num_heads=2, record=False, interpret=True)
    assert entropies is None
    np.testing.assert_allclose(attended, reference(1e3 * queries, keys, values, 2)[0], atol=1e-3)


def test_compiled_for_a_tpu_it_is_two_kernels():
    shape = jax.ShapeDtypeStruct((B, N, D), jnp.bfloat16)

    def loss(queries, keys, values):
        return jnp.sum(fused_attention(queries, keys, values, num_heads=4, record=True)[0].astype(jnp.float32))

    text = jax.jit(jax.grad(loss)).trace(shape, shape, shape).lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("tpu_custom_call") == 2
    assert f"x{N}x{N}x" not in text


@pytest.mark.parametrize(
    ("tokens", "width", "num_heads", "dtype", "expected"),
    [
        (197, 512, 8, "bfloat16", True),
        (577, 768, 12, "float32", True),
        (577, 1024, 16, "bfloat16", True),
        (197, 1280, 16, "bfloat16", False),  # F = 80 neither divides 128 nor is a multiple of it
        (197, 192, 3, "bfloat16", False),  # D is no multiple of 128
        (197, 256, 3, "bfloat16", False),  # heads of no whole size
        (10_000, 512, 8, "bfloat16", False),  # keys and values of an image alone are more than the chip holds
    ],
)
def test_fits(tokens, width, num_heads, dtype, expected):
    assert fits(tokens, width, num_heads, dtype) is expected


def test_wrong_arrays():
    queries, keys, values, _ = inputs(jnp.float32, width=128)
    with pytest.raises(ValueError, match=r"queries, keys, values: .* received .*float32\[2, 12, 128\]"):
        fused_attention(queries, keys[:, 1:], values, num_heads=2, record=False)
    with pytest.raises(ValueError, match=r"queries: .*3 heads.* received 'float32\[2, 13, 128\]'"):
        fused_attention(queries, keys, values, num_heads=3, record=False)
