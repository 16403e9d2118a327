"""Attention by cuDNN: its arithmetic by another kernel on the CPU, and the program that a GPU would be given."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as library

from tests.nn.test_fused_attention import mesh_of
from vmoe_inform import config as config_lib
from vmoe_inform.nn import cudnn_attention
from vmoe_inform.nn.attention import SelfAttention, _attend

B, N, H, F = 2, 13, 2, 8


@pytest.fixture
def with_cudnn(monkeypatch):
    """As on a machine with cuDNN 9.10."""
    monkeypatch.setattr(library, "check_cudnn_version", lambda: 91000)


def kernel(queries, keys, values, causal):
    """What cuDNN computes, in JAX's own words."""
    return jax.nn.dot_product_attention(
        queries, keys, values, implementation="xla", is_causal=causal, return_residual=True
    )


@pytest.mark.parametrize("causal", [False, True])
def test_entropies_by_a_second_product_are_those_of_the_weights(causal):
    random = np.random.default_rng(0)
    arrays = [jnp.asarray(2 * random.normal(size=(B, N, H, F)), jnp.float32) for _ in range(3)]
    direction = jnp.asarray(random.normal(size=(B, N, H, F)), jnp.float32)

    def with_gradients(attend):
        def loss(arrays):
            attended, entropies = attend(*arrays)
            return jnp.sum(attended * direction) + jnp.sum(entropies), (attended, entropies)

        return jax.value_and_grad(loss, has_aux=True)

    def direct(*arrays):
        attended, entropies = _attend(*arrays, record=True, block_size=None, causal=True, real=None)
        return attended, entropies

    def direct_of_all(queries, keys, values):
        logits = jnp.einsum("bihf,bjhf->bhij", queries, keys) / F**0.5
        weights = jax.nn.softmax(logits)
        entropies = jax.lax.stop_gradient(-jnp.sum(weights * jnp.log(weights), axis=-1))
        return jnp.einsum("bhij,bjhf->bihf", weights, values), jnp.swapaxes(entropies, 1, 2)

    by_kernel = functools.partial(cudnn_attention.with_entropies, kernel=functools.partial(kernel, causal=causal))
    found, expected = jax.jit(
        lambda arrays: [with_gradients(each)(arrays) for each in (by_kernel, direct if causal else direct_of_all)]
    )(arrays)
    chex.assert_trees_all_close(found, expected, rtol=2e-5, atol=2e-5)


def lowered(layer, dtype=jnp.bfloat16, *, tokens=N, padding=False, train=False):
    """The text of a layer and its gradient for a GPU, before XLA sees it."""
    real = jnp.arange(tokens)[None] < jnp.array([[5], [0]]) if padding else None
    tokens = jax.ShapeDtypeStruct((B, tokens, 16), dtype)

    def initialize():
        return layer.init(jax.random.key(0), jnp.zeros((1, N, 16)), train=False, record=False)

    def loss(variables, tokens):
        rngs = {"dropout": jax.random.key(0)}
        outputs, record = layer.apply(variables, tokens, train=train, record=True, real=real, rngs=rngs)
        return jnp.sum(outputs.astype(jnp.float32)) + jnp.sum(record.head_entropies)

    with mesh_of("gpu"):
        traced = jax.jit(jax.value_and_grad(loss)).trace(jax.eval_shape(initialize), tokens)
        return traced.lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.parametrize(
    ("tokens", "causal", "padding", "mask"),
    [
        (12, False, False, "NO_MASK"),
        (12, True, False, "CAUSAL"),
        (12, False, True, "PADDING"),
        (13, False, False, "PADDING"),  # an even number, of which one is hidden
        (13, True, False, "CAUSAL"),
    ],
)
def test_a_gpu_gets_cudnn_twice_forward_and_once_backward(with_cudnn, tokens, causal, padding, mask):
    text = lowered(SelfAttention(H, dtype=jnp.bfloat16, causal=causal), tokens=tokens, padding=padding)
    calls = re.findall(r"@(__cudnn\$\w+)", text)
    assert sorted(calls) == ["__cudnn$fmhaSoftmax"] * 2 + ["__cudnn$fmhaSoftmaxBackward"]
    assert set(re.findall(r"mask_type\\22: \\22([A-Z_]+)", text)) == {mask}
    assert re.search(r"x(12x12|13x13|14x14)x", text) is None


@pytest.mark.parametrize(
    ("dtype", "options", "train"),
    [
        (jnp.float32, {}, False),
        (jnp.bfloat16, {"block_size": 5}, False),
        (jnp.bfloat16, {"dropout_rate": 0.1}, True),
        (jnp.bfloat16, {"implementation": "xla"}, False),
        (jnp.bfloat16, {"num_heads": 4}, False),  # F = 4
    ],
)
def test_what_cudnn_cannot_do_is_left_to_xla(with_cudnn, dtype, options, train):
    assert "__cudnn" not in lowered(SelfAttention(**{"num_heads": H, "dtype": dtype, **options}), dtype, train=train)


def test_without_cudnn_a_gpu_gets_single_operations():
    assert "__cudnn" not in lowered(SelfAttention(H, dtype=jnp.bfloat16))
    with pytest.raises(ValueError, match=r"model.attention: expected 'auto' or 'xla' on gpu \(no cuDNN is installed\)"):
        lowered(SelfAttention(H, dtype=jnp.bfloat16, implementation="cudnn"))


class Gpu:
    platform = "gpu"

    def __init__(self, kind, capability):
        self.device_kind, self.compute_capability = kind, capability


@pytest.mark.parametrize(
    ("kind", "capability", "reason"),
    [
        ("NVIDIA H100", "9.0", ""),
        ("NVIDIA B200", "10.0", ""),
        ("Tesla V100", "7.0", "Tesla V100 has compute capability 7.0, below 8"),
        ("AMD Instinct MI300X", "gfx942", "AMD Instinct MI300X is no GPU of NVIDIA"),
    ],
)
def test_which_gpus_have_the_kernels(with_cudnn, monkeypatch, kind, capability, reason):
    monkeypatch.setattr(jax, "devices", lambda: [Gpu(kind, capability)])
    assert cudnn_attention.unavailable() == reason


def test_insisting_where_there_is_none():
    layer, tokens = SelfAttention(H, dtype=jnp.bfloat16, implementation="cudnn"), jnp.zeros((1, N, 16))
    with pytest.raises(ValueError, match=r"model\.attention: expected 'auto' or 'xla' on cpu"):
        jax.eval_shape(lambda: layer.init(jax.random.key(0), tokens, train=False, record=False))
    with pytest.raises(ValueError, match=r"model.attention_block_size: .*'cudnn'; received 4"):
        config_lib.parse_model({"attention": "cudnn", "attention_block_size": 4})
