"""Which implementation of attention a layer has: kernels where they can do what is asked for, else single operations.

That is decided when the layer is traced, and not when XLA knows the platform. Several ways would then keep what their
gradients need, and one of them needs N x N numbers.
"""

from typing import Any, Literal, TypeAlias

from vmoe_inform import checks
from vmoe_inform.dispatch import current_platform
from vmoe_inform.nn import cudnn_attention, fused_attention

Implementation: TypeAlias = Literal["auto", "xla", "fused", "cudnn"]
_PLATFORMS = {"fused": "tpu", "cudnn": "gpu"}


def choose_attention(
    requested: Implementation,
    shape: tuple[int, ...],
    num_heads: int,
    dtype: Any,
    *,
    whole: bool,
    masked: bool,
    initializing: bool,
) -> str:
    """``"fused"``, ``"cudnn"`` or ``"xla"``.

    Args:
      requested: an implementation, or ``"auto"`` for the kernel of the platform where it fits.
      shape: of the inputs, [B, N, D].
      num_heads: H.
      dtype: of the products.
      whole: there is no dropout of weights, no block size, and no cache of the tokens before.
      masked: some tokens do not attend to all: causal, or with padding.
      initializing: parameters are made, with a batch that is too small for a mesh.

    Raises:
      ValueError: a kernel is requested that cannot do it, or that is for another platform.
    """
    possible = {
        "fused": whole and not masked and fused_attention.fits(shape[1], shape[2], num_heads, dtype),
        "cudnn": whole and cudnn_attention.fits(shape[2], num_heads, dtype),
    }
    platform = current_platform()
    if requested in possible:
        if not possible[requested]:
            received = f"{requested!r} with N = {shape[1]}, D = {shape[2]}, {num_heads} heads"
            raise checks.error("model.attention", "'auto' or 'xla' where the kernel cannot do it", received)
        reason = _reason(requested, platform)
        if reason:
            raise checks.error("model.attention", f"'auto' or 'xla' on {platform}{reason}", requested)
    if requested != "xla" and not initializing:
        for name in possible if requested == "auto" else [requested]:
            if possible[name] and not _reason(name, platform):
                return name
    return "xla"


def _reason(name: str, platform: str) -> str:
    """Why the platform has no such kernel, in brackets where its name says too little; empty if it has one."""
    if platform != _PLATFORMS[name]:
        return " (its kernel is for another platform)"
    words = cudnn_attention.unavailable() if name == "cudnn" else ""
    return f" ({words})" if words else ""
