"""Multi-head self-attention that can tell a router what it saw."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vmoe_inform.axes import Array, Float
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
      dtype: type of the products; softmax statistics are float32.
    """

    num_heads: int
    dropout_rate: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "B N D"], *, train: bool, record: bool
    ) -> tuple[Float[Array, "B N D"], AttentionRecord | None]:
        """Attends.

        Args:
          inputs: tokens [B, N, D].
          train: whether dropout is on.
          record: whether a router needs to know queries, keys, means and raw outputs.

        Returns:
          outputs [B, N, D], and the record (None unless asked for), whose arrays have ``dtype``.
        """
        width = inputs.shape[-1]
        head_shape = (self.num_heads, width // self.num_heads)
        inputs = inputs.astype(self.dtype)

        def project(name: str) -> Float[Array, "B N H F"]:
            kernel, bias = HeadProjection((width, *head_shape), 0, (1, 2), head_shape, name=name)()
            return jnp.einsum("bnd,dhf->bnhf", inputs, kernel.astype(self.dtype)) + bias.astype(self.dtype)[None, None]

        queries, keys, values = project("query"), project("key"), project("value")
        logits = jnp.einsum("bihf,bjhf->bhij", queries, keys, preferred_element_type=jnp.float32)
        attention = jax.nn.softmax(logits / head_shape[1] ** 0.5, axis=-1).astype(self.dtype)
        attention = nn.Dropout(self.dropout_rate, deterministic=not train)(attention)
        attended = jnp.einsum("bhij,bjhf->bihf", attention, values)
        kernel, bias = HeadProjection((*head_shape, width), (0, 1), 2, (width,), name="output")()
        kernel, bias = kernel.astype(self.dtype), bias.astype(self.dtype)[None, None]
        raw = jnp.einsum("bnhf,hfd->bnd", attended, kernel)
        if not record:
            return raw + bias, None
        # H * O_h (V_h x_j + b_V,h): the mean over heads of sum_j A_h[i,j] means[h,j] is the raw output
        # (Mutual-Inform SMoE, Eq. 1)
        means = self.num_heads * jnp.einsum("bnhf,hfd->bhnd", values, kernel)
        return raw + bias, AttentionRecord(jnp.swapaxes(queries, 1, 2), jnp.swapaxes(keys, 1, 2), means, raw)
