"""Multi-head self-attention that can tell a router what it saw."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vmoe_inform.axes import Array, Float
from vmoe_inform.routing.blocks import map_row_blocks
from vmoe_inform.routing.stats import softmax_entropy
from vmoe_inform.routing.steps import AttentionRecord


class HeadProjection(nn.Module):
    """Kernel and bias of a projection to or from attention heads; the caller does the product."""

    kernel_shape: tuple[int, int, int]
    in_axis: int | tuple[int, ...]
    out_axis: int | tuple[int, ...]
    bias_shape: tuple[int, ...]

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        initializer = nn.initializers.xavier_uniform(in_axis=self.in_axis, out_axis=self.out_axis)
        kernel = self.param("kernel", initializer, self.kernel_shape)
        return kernel, self.param("bias", nn.initializers.zeros, self.bias_shape)


class SelfAttention(nn.Module):
    """softmax(q . k / sqrt(F)) v per head, then an output projection (Mutual-Inform SMoE, Eq. 1).

    Attributes:
      num_heads: H.
      dropout_rate: dropout of the attention weights in training.
      block_size: tokens whose attention weights are in memory at a time, also for gradients; None for all N.
      dtype: type of the products; softmax statistics are float32.
    """

    num_heads: int
    dropout_rate: float = 0.0
    block_size: int | None = None
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "B N D"], *, train: bool, record: bool
    ) -> tuple[Float[Array, "B N D"], AttentionRecord | None]:
        """Attends.

        Args:
          inputs: tokens [B, N, D].
          train: whether dropout is on.
          record: whether a router needs to know what the heads saw.

        Returns:
          outputs [B, N, D], and the record (None unless asked for).
        """
        width = inputs.shape[-1]
        head_shape = (self.num_heads, width // self.num_heads)
        inputs = inputs.astype(self.dtype)

        def project(name: str) -> Float[Array, "B N H F"]:
            kernel, bias = HeadProjection((width, *head_shape), 0, (1, 2), head_shape, name=name)()
            return jnp.einsum("bnd,dhf->bnhf", inputs, kernel.astype(self.dtype)) + bias.astype(self.dtype)[None, None]

        queries, keys, values = project("query"), project("key"), project("value")
        dropout_key = self.make_rng("dropout") if train and self.dropout_rate > 0 else None

        def attend(rows: tuple[Array, Array]) -> tuple[Array, Array | None]:
            """Values that some tokens attend to [B, R, H, F], and their entropies [B, R, H]."""
            queries, positions = rows
            logits = jnp.einsum("bihf,bjhf->bhij", queries, keys, preferred_element_type=jnp.float32)
            logits = logits / head_shape[1] ** 0.5
            attention = jax.nn.softmax(logits, axis=-1).astype(self.dtype)
            if dropout_key is not None:
                attention = _dropout(jax.random.fold_in(dropout_key, positions[0, 0]), attention, self.dropout_rate)
            attended = jnp.einsum("bhij,bjhf->bihf", attention, values)
            # Beside the softmax the entropies cost no more than another sum over its rows.
            entropies = jnp.swapaxes(softmax_entropy(jax.lax.stop_gradient(logits)), 1, 2) if record else None
            return attended, entropies

        positions = jnp.arange(inputs.shape[1])[None]
        attended, entropies = map_row_blocks(attend, (queries, positions), block_size=self.block_size, axis=1)
        kernel, bias = HeadProjection((*head_shape, width), (0, 1), 2, (width,), name="output")()
        kernel, bias = kernel.astype(self.dtype), bias.astype(self.dtype)[None, None]
        outputs = jnp.einsum("bnhf,hfd->bnd", attended, kernel) + bias
        if entropies is None:
            return outputs, None
        return outputs, AttentionRecord(queries, keys, values, attended, kernel, jnp.mean(entropies, axis=1))


def _dropout(key: Array, array: Array, rate: float) -> Array:
    """The array with a share of its entries set to 0 and the others scaled to keep the expected value."""
    keep = jax.random.bernoulli(key, 1.0 - rate, array.shape)
    return jnp.where(keep, array / (1.0 - rate), 0.0)
