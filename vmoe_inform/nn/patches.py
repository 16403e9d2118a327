"""Tokens from the patches of images."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from vmoe_inform.axes import Array, Float
from vmoe_inform.dispatch import current_platform


class PatchEmbedding(nn.Module):
    """A linear layer of the pixels of each patch; parameters are those of a convolution, kernel [p, p, 3, D].

    Attributes:
      features: D.
      patch_size_px: p.
      dtype: of the product.
    """

    features: int
    patch_size_px: int
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "B P P 3"]) -> Float[Array, "B N D"]:
        side = self.patch_size_px
        shape = (side, side, images.shape[-1], self.features)
        kernel = self.param("kernel", nn.linear.default_kernel_init, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        images, kernel, bias = promote_dtype(images, kernel, bias, dtype=self.dtype)
        embed = embed_by_product if current_platform() == "cpu" else embed_by_convolution
        return embed(images, kernel, bias)


def patches_of(images: Float[Array, "B P P C"], side: int) -> Float[Array, "B N values"]:
    """The pixels of each patch, row by row.

    Args:
      images: whose side is a multiple of that of patches.
      side: of a patch, p.
    """
    batch, size, _, channels = images.shape  # no number while a program for any batch size is exported
    across = size // side
    # [B, rows * p, columns * p, C] -> [B, rows, columns, p, p, C] -> [B, N, p * p * C]
    cut = images.reshape(batch, across, side, across, side, channels)
    return cut.swapaxes(2, 3).reshape(batch, across * across, side * side * channels)


def embed_by_product(
    images: Float[Array, "B P P C"], kernel: Float[Array, "p p C D"], bias: Float[Array, " D"]
) -> Float[Array, "B N D"]:
    """The convolution of patches as a product. CPUs are slow at convolutions whose windows are so large."""
    return patches_of(images, len(kernel)) @ kernel.reshape(-1, kernel.shape[-1]) + bias[None, None]


def embed_by_convolution(
    images: Float[Array, "B P P C"], kernel: Float[Array, "p p C D"], bias: Float[Array, " D"]
) -> Float[Array, "B N D"]:
    """The same sums, as accelerators do them best."""
    step = (len(kernel), len(kernel))
    tokens = jax.lax.conv_general_dilated(images, kernel, step, "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    # Before they are laid out in a row: after it, a TPU's compiler lays out the tokens of all blocks in another way.
    tokens = tokens + bias[None, None, None]
    return tokens.reshape(images.shape[0], -1, kernel.shape[-1])  # [B, rows, columns, D] -> [B, N, D]
