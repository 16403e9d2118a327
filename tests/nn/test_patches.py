"""Tokens of patches: a product and a convolution are the same, and parameters are those of Flax's convolution."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmoe_inform.nn.patches import PatchEmbedding, embed_by_convolution, embed_by_product, patches_of


@pytest.mark.parametrize("side", [1, 3, 4])
def test_product_and_convolution_agree(side: int) -> None:
    rng = np.random.default_rng(0)
    images, kernel = rng.standard_normal((2, 12, 12, 3)), rng.standard_normal((side, side, 3, 5))
    bias, gradient = rng.standard_normal(5), rng.standard_normal((2, (12 // side) ** 2, 5))
    results = []
    for embed in (embed_by_product, embed_by_convolution):
        tokens, pull_back = jax.vjp(embed, *map(jnp.float32, (images, kernel, bias)))
        results.append((tokens, pull_back(jnp.float32(gradient))))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), *results)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_embedding_is_flax_convolution(dtype: str) -> None:
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    ours = PatchEmbedding(5, 4, jnp.dtype(dtype), name="same")
    flax = nn.Conv(5, (4, 4), (4, 4), "VALID", dtype=jnp.dtype(dtype), name="same")
    variables = ours.init(jax.random.key(1), images)
    jax.tree.map(np.testing.assert_array_equal, variables, flax.init(jax.random.key(1), images))
    tokens, expected = ours.apply(variables, images), flax.apply(variables, images)
    assert tokens.dtype == expected.dtype == jnp.dtype(dtype)
    tolerance = 1e-5 if dtype == "float32" else 2e-2
    expected = np.asarray(expected.reshape(2, 4, 5), np.float32)
    np.testing.assert_allclose(np.asarray(tokens, np.float32), expected, rtol=tolerance, atol=tolerance)


def test_pixels_of_patches() -> None:
    images = jnp.arange(2 * 6 * 6 * 3, dtype=jnp.float32).reshape(2, 6, 6, 3)
    patches = patches_of(images, 2)
    # The patch in row 1 and column 2 is the sixth of three a row.
    np.testing.assert_array_equal(patches[1, 5], images[1, 2:4, 4:6].reshape(-1))
