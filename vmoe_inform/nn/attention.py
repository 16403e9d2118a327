"""Multi-head self-attention that can tell a router what it saw."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Float
from vmoe_inform.dispatch import current_platform
from vmoe_inform.nn.bias import add_bias
from vmoe_inform.nn.fused_attention import fits, fused_attention
from vmoe_inform.nn.mlp import dropout
from vmoe_inform.routing.blocks import map_row_blocks
from vmoe_inform.routing.stats import softmax_entropy
from vmoe_inform.routing.steps import AttentionRecord
from vmoe_inform.sharding.mesh import on_each_device


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
      implementation: ``"fused"`` is the TPU kernel of :mod:`vmoe_inform.nn.fused_attention`, ``"xla"`` the same in
        single operations. ``"auto"`` is the kernel on TPUs where it fits, without dropout or a block size, otherwise
        single operations.
    """

    num_heads: int
    dropout_rate: float = 0.0
    block_size: int | None = None
    dtype: jax.typing.DTypeLike = jnp.float32
    implementation: Literal["auto", "xla", "fused"] = "auto"

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

        Raises:
          ValueError: the kernel is insisted on and cannot do it.
        """
        width = inputs.shape[-1]
        head_shape = (self.num_heads, width // self.num_heads)
        inputs = inputs.astype(self.dtype)

        dropout_key = self.make_rng("dropout") if train and self.dropout_rate > 0 else None
        fused = self._is_fused(inputs.shape, has_dropout=dropout_key is not None)
        # The kernel takes heads side by side; XLA does better if it knows of heads from the beginning.
        projected = (width,) if fused else head_shape

        def project(name: str) -> Array:
            kernel, bias = HeadProjection((width, *head_shape), 0, (1, 2), head_shape, name=name)()
            kernel, bias = kernel.astype(self.dtype), bias.astype(self.dtype)
            return add_bias(jnp.tensordot(inputs, kernel.reshape(width, *projected), 1), bias.reshape(projected))

        projections = project("query"), project("key"), project("value")
        if fused:
            attended, entropies = _attend_fused(*projections, num_heads=self.num_heads, record=record)
        else:
            key_and_rate = None if dropout_key is None else (dropout_key, self.dropout_rate)
            attended, entropies = _attend(
                *projections, record=record, block_size=self.block_size, key_and_rate=key_and_rate
            )

        kernel, bias = HeadProjection((*head_shape, width), (0, 1), 2, (width,), name="output")()
        kernel, bias = kernel.astype(self.dtype), bias.astype(self.dtype)
        outputs = add_bias(jnp.tensordot(attended, kernel.reshape(*projected, width), len(projected)), bias)
        if entropies is None:
            return outputs, None
        arrays = (*projections, attended)
        queries, keys, values, attended = (array.reshape(*inputs.shape[:2], *head_shape) for array in arrays)
        return outputs, AttentionRecord(queries, keys, values, attended, kernel, entropies)

    def _is_fused(self, shape: tuple[int, ...], *, has_dropout: bool) -> bool:
        """Whether the kernel is used.

        That is decided here and not when XLA knows the platform. Both ways would then keep what their gradients need,
        and one of them needs N x N numbers.
        """
        possible = not has_dropout and self.block_size is None and fits(shape[1], shape[2], self.num_heads, self.dtype)
        on_tpu = current_platform() == "tpu"
        if self.implementation == "fused" and not possible:
            received = f"'fused' with N = {shape[1]}, D = {shape[2]}, {self.num_heads} heads"
            raise checks.error("model.attention", "'auto' or 'xla' where the kernel cannot do it", received)
        if self.implementation == "fused" and not on_tpu:
            raise checks.error("model.attention", f"'auto' or 'xla' on {current_platform()}", self.implementation)
        # Parameters are made with a batch that is too small for a mesh.
        return self.implementation != "xla" and possible and on_tpu and not self.is_initializing()


def _attend_fused(
    queries: Float[Array, "B N D"], keys: Float[Array, "B N D"], values: Float[Array, "B N D"], **options: Any
) -> tuple[Float[Array, "B N D"], Float[Array, "B H"] | None]:
    """The kernel, on each device for its own images: XLA cannot divide it."""
    return on_each_device(lambda _, *arrays: fused_attention(*arrays, **options), (), queries, keys, values)


def _attend(
    queries: Float[Array, "B N H F"],
    keys: Float[Array, "B N H F"],
    values: Float[Array, "B N H F"],
    *,
    record: bool,
    block_size: int | None,
    key_and_rate: tuple[Array, float] | None,
) -> tuple[Float[Array, "B N H F"], Float[Array, "B H"] | None]:
    """What :func:`vmoe_inform.nn.fused_attention.fused_attention` does, left to XLA.

    Args:
      queries, keys, values: of each head.
      record: whether the entropies are asked for.
      block_size: tokens whose weights are in memory at a time; None for all.
      key_and_rate: of a dropout of the weights.
    """

    def attend(rows: tuple[Array, Array]) -> tuple[Array, Array | None]:
        """Values that some tokens attend to [B, R, H, F], and their entropies [B, R, H]."""
        queries, positions = rows
        logits = jnp.einsum("bihf,bjhf->bhij", queries, keys, preferred_element_type=jnp.float32)
        logits = logits / queries.shape[-1] ** 0.5
        attention = jax.nn.softmax(logits, axis=-1).astype(values.dtype)
        if key_and_rate is not None:
            key, rate = key_and_rate
            attention = dropout(jax.random.fold_in(key, positions[0, 0]), attention, rate)
        attended = jnp.einsum("bhij,bjhf->bihf", attention, values)
        # Next to the softmax the entropies cost no more than another sum over its rows.
        entropies = jnp.swapaxes(softmax_entropy(jax.lax.stop_gradient(logits)), 1, 2) if record else None
        return attended, entropies

    positions = jnp.arange(queries.shape[1])[None]
    attended, entropies = map_row_blocks(attend, (queries, positions), block_size=block_size, axis=1)
    return attended, None if entropies is None else jnp.mean(entropies, axis=1)
