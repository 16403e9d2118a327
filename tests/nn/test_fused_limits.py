"""Attention's kernel at the limits of what it says it fits, compiled for a TPU that is not there."""

import jax
import pytest

from vmoe_inform.nn import fused_attention as fused
from vmoe_inform.performance import compiled, topology

# The most tokens by type and width of a head: at least 128 lanes of a program are one head's, or shared.
MOST_TOKENS = [("bfloat16", 64, 1792), ("bfloat16", 256, 896), ("float32", 64, 1280), ("float32", 256, 640)]


@pytest.mark.parametrize(("dtype", "head_size", "most"), MOST_TOKENS)
def test_most_tokens(dtype, head_size, most):
    """All lengths up to the limit fit: what is padded to whole registers, and blocks of queries, leave no gap."""
    fitting = [tokens for tokens in range(1, 2 * most) if fused.fits(tokens, 256, 256 // head_size, dtype)]
    assert fitting == list(range(1, most + 1))


@pytest.mark.slow  # 45 processor seconds
@pytest.mark.parametrize(
    ("dtype", "head_size", "tokens"),
    [
        ("bfloat16", 256, 896),
        ("bfloat16", 64, 640),  # the longest in blocks of 384 queries whose heads are worked on in pairs
        ("bfloat16", 64, 896),  # and of 256
        ("bfloat16", 64, 1408),  # and of 128
        ("float32", 128, 1280),
        ("float32", 256, 640),
    ],
)
def test_the_compiler_has_room_for_what_fits(dtype, head_size, tokens):
    """Both passes. With several images, the next one's arrays are on the chip, too."""
    width = max(head_size, 128)
    arrays = [jax.ShapeDtypeStruct((3, tokens, width), dtype)] * 4

    def with_gradients(queries, keys, values, gradient):
        def attend(*arrays):
            return fused.fused_attention(*arrays, num_heads=width // head_size, record=True)

        attended, pull_back, entropies = jax.vjp(attend, queries, keys, values, has_aux=True)
        return attended, entropies, pull_back(gradient)

    with topology.uncached():
        found = compiled.compile_for(topology.devices_of("v5e:1x1")[0], with_gradients, *arrays)
    assert found.run.as_text().count('custom_call_target="tpu_custom_call"') == 2
