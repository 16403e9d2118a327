"""Attention on NVIDIA GPUs by cuDNN's kernels, with the heads' entropies: weights of N x N numbers are never in memory.

The kernels return the logarithm of each softmax's denominator. With it an entropy needs the mean logit alone, under the
softmax itself: H_i = logsumexp_i - q_i . sum_j(w_ij k_j) / sqrt(F). The sum is what the queries attend to with the keys
as values: a second product by the same kernel, without a gradient.

The backward pass of these kernels adds in no fixed order, unless XLA is told ``--xla_gpu_deterministic_ops=true``.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from vmoe_inform.axes import Array, Float, Int

# queries, keys, values [B, N, H, F] -> what is attended to [B, N, H, F], and logsumexp of the logits [B, N, H]
Kernel: TypeAlias = Callable[[Array, Array, Array], tuple[Array, Array]]

_TYPES = ("bfloat16", "float16")
_LARGEST_HEAD = 128  # more only where a GPU is as new as Hopper
_LEAST_CAPABILITY = 8.0  # Ampere


def fits(width: int, num_heads: int, dtype: Any) -> bool:
    """Whether the kernels support these sizes: bfloat16 or float16, and heads of a multiple of 8 of at most 128.

    Args:
      width: D.
      num_heads: H.
      dtype: of queries, keys and values.
    """
    head_size, rest = divmod(width, num_heads)
    return not rest and head_size % 8 == 0 and head_size <= _LARGEST_HEAD and jnp.dtype(dtype).name in _TYPES


def unavailable() -> str:
    """Why this machine cannot run the kernels; empty if it can, or if programs are compiled for a GPU elsewhere."""
    from jax._src.cudnn import fused_attention_stablehlo as library

    try:
        library.check_cudnn_version()
    except RuntimeError:
        return "no cuDNN is installed"
    device = jax.devices()[0]
    capability = getattr(device, "compute_capability", None)
    if device.platform != "gpu" or capability is None:
        return ""
    try:
        old = float(capability) < _LEAST_CAPABILITY
    except ValueError:  # of AMD, such as gfx942
        return f"{device.device_kind} is no GPU of NVIDIA"
    return f"{device.device_kind} has compute capability {capability}, below {_LEAST_CAPABILITY:g}" if old else ""


def cudnn_attention(
    queries: Float[Array, "B N H F"],
    keys: Float[Array, "B N H F"],
    values: Float[Array, "B N H F"],
    lengths: Int[Array, " B"] | None = None,
    *,
    record: bool,
    causal: bool = False,
) -> tuple[Float[Array, "B N H F"], Float[Array, "B N H"] | None]:
    """softmax(q . k / sqrt(F)) v of each head.

    Args:
      queries, keys, values: of sizes that fit, see :func:`fits`.
      lengths: tokens of each sequence, >= 1, that others attend to, the first ones; None for all N.
      record: whether the entropies are asked for.
      causal: token i attends to tokens j <= i only.

    Returns:
      what the heads attend to, and, if ``record``, the entropy of each query's weights in nats, float32, without a
      gradient. Its error is that of rounding a mean key to the type of the keys.

    Raises:
      RuntimeError, NotImplementedError: this machine cannot compile the kernels, see :func:`unavailable`.
    """
    kernel = functools.partial(_kernel, lengths=lengths, causal=causal)
    return with_entropies(queries, keys, values, kernel) if record else (kernel(queries, keys, values)[0], None)


def _kernel(queries: Array, keys: Array, values: Array, *, lengths: Array | None, causal: bool) -> tuple[Array, Array]:
    # jax.nn.dot_product_attention rounds logsumexp to the type of the outputs; the function behind it does not.
    from jax._src.cudnn import fused_attention_stablehlo as library

    masks, (batch, num_tokens) = library.MaskType, queries.shape[:2]
    if num_tokens % 2:  # JAX refuses the gradient of an odd number. No token attends to the one that is added.
        queries, keys, values = (jnp.pad(array, ((0, 0), (0, 1), (0, 0), (0, 0))) for array in (queries, keys, values))
        if lengths is None and not causal:
            lengths = jnp.full(batch, num_tokens, jnp.int32)
    if lengths is None:
        kind, every = (masks.CAUSAL if causal else masks.NO_MASK), None
    else:
        kind = masks.PADDING_CAUSAL if causal else masks.PADDING
        every = jnp.full_like(lengths, num_tokens)
    attended, logsumexp = library.dot_product_attention(
        queries,
        keys,
        values,
        q_seqlen=every,
        kv_seqlen=lengths,
        scale=queries.shape[-1] ** -0.5,
        mask_type=kind,
        return_residual=True,
    )
    # [B, H, N] -> [B, N, H]
    return attended[:, :num_tokens], jnp.swapaxes(logsumexp, 1, 2)[:, :num_tokens]


def with_entropies(
    queries: Float[Array, "B N H F"], keys: Float[Array, "B N H F"], values: Float[Array, "B N H F"], kernel: Kernel
) -> tuple[Float[Array, "B N H F"], Float[Array, "B N H"]]:
    """What a kernel gives, and the entropies of its weights by a second product; see the head of this module."""
    attended, logsumexp = kernel(queries, keys, values)
    queries, keys, logsumexp = jax.lax.stop_gradient((queries, keys, logsumexp))
    mean_keys = kernel(queries, keys, keys)[0]
    products = queries.astype(jnp.float32) * mean_keys.astype(jnp.float32)
    return attended, logsumexp.astype(jnp.float32) - jnp.sum(products, axis=-1) / queries.shape[-1] ** 0.5
