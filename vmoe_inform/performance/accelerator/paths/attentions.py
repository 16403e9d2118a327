"""Attention in kernels, in blocks of rows and causal, against single operations on all rows; entropies included."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vmoe_inform.axes import Array, Tree
from vmoe_inform.dispatch import current_platform
from vmoe_inform.nn import cudnn_attention
from vmoe_inform.nn.attention import SelfAttention
from vmoe_inform.nn.previous_attention import PreviousAttention
from vmoe_inform.performance.accelerator.comparing import Function, Path
from vmoe_inform.performance.accelerator.sizes import Sizes

_BOTH = ("float32", "bfloat16")


def paths(sizes: Sizes) -> list[Path]:
    """Layers with their projections: outputs, and entropies of the heads."""
    block = sizes.tokens // 2  # and a last one of fewer rows
    make = functools.partial(_inputs, _layer(sizes, "float32", {}), sizes)
    references = {causal: _self_attention(sizes, {"causal": causal}, "float32") for causal in (False, True)}
    found = [
        Path(
            "attention",
            name,
            "single operations",
            make,
            functools.partial(_self_attention, sizes, options),
            references[options.get("causal", False)],
            dtypes,
            unavailable,
        )
        for name, options, dtypes, unavailable in _ways(block)
    ]
    layer = functools.partial(PreviousAttention, sizes.heads)
    found.append(
        Path(
            "attention",
            f"to the tokens before, blocks of {block}",
            "single operations",
            functools.partial(_inputs_of_previous, sizes),
            lambda dtype: _previous_attention(layer(block_size=block, dtype=jnp.dtype(dtype))),
            _previous_attention(layer()),
        )
    )
    return found


def _ways(block: int) -> list[tuple[str, dict[str, Any], tuple[str, ...], str]]:
    """Name, options of the layer, types, and why this device cannot do it."""
    on_tpu = "" if current_platform() == "tpu" else "the kernel is for TPUs"
    on_gpu = cudnn_attention.unavailable() if current_platform() == "gpu" else "the kernel is for NVIDIA GPUs"
    return [
        ("kernel of a TPU", {"implementation": "fused"}, _BOTH, on_tpu),
        ("cuDNN", {"implementation": "cudnn"}, ("bfloat16",), on_gpu),
        ("cuDNN, causal", {"implementation": "cudnn", "causal": True}, ("bfloat16",), on_gpu),
        (f"blocks of {block}", {"block_size": block}, _BOTH, ""),
        (f"causal, blocks of {block}", {"block_size": block, "causal": True}, ("float32",), ""),
    ]


def _layer(sizes: Sizes, dtype: str, options: dict[str, Any]) -> SelfAttention:
    return SelfAttention(sizes.heads, dtype=jnp.dtype(dtype), **{"implementation": "xla", **options})


def _self_attention(sizes: Sizes, options: dict[str, Any], dtype: str) -> Function:
    layer = _layer(sizes, dtype, options)

    def function(inputs: Tree) -> tuple[Array, Array]:
        key = inputs["params"]["key"]
        # No softmax depends on this bias, so that its gradient is nothing but rounding.
        key = {**key, "bias": jax.lax.stop_gradient(key["bias"])}
        params = {**inputs["params"], "key": key}
        found: Any = layer.apply({"params": params}, inputs["tokens"], train=False, record=True)
        outputs, record = found
        return outputs, record.head_entropies

    return function


def _previous_attention(layer: PreviousAttention) -> Function:
    def function(inputs: Tree) -> tuple[Array, Array]:
        around = (inputs["tokens"], inputs["memory"], inputs["relative_keys"])
        found: Any = layer.apply({"params": inputs["params"]}, *around, train=False, record=True)
        outputs, record = found
        return outputs, record.head_entropies

    return function


def _parameters(initialize: Callable[..., Tree], random: np.random.Generator, *arguments: Tree) -> Tree:
    """Random numbers in the shapes of a layer's parameters, small enough that softmaxes are not all of one token."""
    shapes = jax.eval_shape(initialize, jax.random.key(0), *arguments)["params"]
    return jax.tree.map(lambda leaf: random.normal(size=leaf.shape) / leaf.shape[0] ** 0.5, shapes)


def _inputs(layer: SelfAttention, sizes: Sizes, random: np.random.Generator) -> Tree:
    tokens = random.normal(size=(sizes.images, sizes.tokens, sizes.width)).astype(np.float32)
    initialize = functools.partial(layer.init, train=False, record=False)
    return {"tokens": tokens, "params": _parameters(initialize, random, tokens)}


def _inputs_of_previous(sizes: Sizes, random: np.random.Generator) -> Tree:
    span = sizes.tokens // 3
    around = {
        "tokens": random.normal(size=(sizes.images, sizes.tokens, sizes.width)).astype(np.float32),
        "memory": random.normal(size=(sizes.images, span, sizes.width)).astype(np.float32),
        "relative_keys": random.normal(size=(span, sizes.width // sizes.heads)).astype(np.float32),
    }
    initialize = functools.partial(PreviousAttention(sizes.heads).init, train=False, record=False)
    return {**around, "params": _parameters(initialize, random, *around.values())}
