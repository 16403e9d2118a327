"""Multi-head self-attention that can tell a router what it saw."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vmoe_inform.axes import Array, Bool, Float, Int
from vmoe_inform.nn import cache
from vmoe_inform.nn.attention_choice import Implementation, choose_attention
from vmoe_inform.nn.bias import add_bias
from vmoe_inform.nn.cudnn_attention import cudnn_attention
from vmoe_inform.nn.dropout import dropout
from vmoe_inform.nn.fused_attention import fused_attention
from vmoe_inform.routing.blocks import map_row_blocks
from vmoe_inform.routing.stats import mean_over_tokens, softmax_entropy
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
        kernel = self.param("kernel", head_initializer(self.in_axis, self.out_axis), self.kernel_shape)
        return kernel, self.param("bias", nn.initializers.zeros, self.bias_shape)


def head_initializer(in_axis: int | tuple[int, ...], out_axis: int | tuple[int, ...]) -> nn.initializers.Initializer:
    """Of the kernel of a projection to or from attention heads."""
    return nn.initializers.xavier_uniform(in_axis=in_axis, out_axis=out_axis)


class SelfAttention(nn.Module):
    """softmax(q . k / sqrt(F)) v per head, then an output projection (Mutual-Inform SMoE, Eq. 1).

    Attributes:
      num_heads: H.
      dropout_rate: dropout of the attention weights in training.
      block_size: tokens whose attention weights are in memory at a time, also for gradients; None for all N.
      dtype: type of the products; softmax statistics are float32.
      implementation: ``"fused"`` is the TPU kernel of :mod:`vmoe_inform.nn.fused_attention`, ``"cudnn"`` that of GPUs
        (:mod:`vmoe_inform.nn.cudnn_attention`), ``"xla"`` the same in single operations. ``"auto"`` is the kernel of
        the platform where it fits, without dropout or block size, on TPUs without mask; otherwise single operations.
      causal: token i attends to tokens j <= i only.
      most_tokens: N, which a cache of the tokens before has room for; None keeps none.
    """

    num_heads: int
    dropout_rate: float = 0.0
    block_size: int | None = None
    dtype: jax.typing.DTypeLike = jnp.float32
    implementation: Implementation = "auto"
    causal: bool = False
    most_tokens: int | None = None

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "B N D"], *, train: bool, record: bool, real: Bool[Array, "B N"] | None = None
    ) -> tuple[Float[Array, "B N D"], AttentionRecord | None]:
        """Attends.

        Args:
          inputs: tokens [B, N, D].
          train: whether dropout is on.
          record: whether a router needs to know what the heads saw.
          real: False for padding behind a text, which no real token attends to; None if all are real.

        Returns:
          outputs [B, N, D], and the record (None unless asked for).

        Raises:
          ValueError: the kernel is insisted on and cannot do it.
        """
        width = inputs.shape[-1]
        head_shape = (self.num_heads, width // self.num_heads)
        inputs = inputs.astype(self.dtype)

        dropout_key = self.make_rng("dropout") if train and self.dropout_rate > 0 else None
        hidden = None if self.causal else real  # in a causal model padding is behind all that is real
        keeps = self.most_tokens is not None and cache.keeps(self)
        implementation = choose_attention(
            self.implementation,
            inputs.shape,
            self.num_heads,
            self.dtype,
            whole=dropout_key is None and self.block_size is None and not keeps,
            masked=self.causal or hidden is not None,
            initializing=self.is_initializing(),
        )
        # The TPU's kernel takes heads side by side; others do better if they know of heads from the beginning.
        projected = (width,) if implementation == "fused" else head_shape

        def project(name: str) -> Array:
            kernel, bias = HeadProjection((width, *head_shape), 0, (1, 2), head_shape, name=name)()
            kernel, bias = kernel.astype(self.dtype), bias.astype(self.dtype)
            return add_bias(jnp.tensordot(inputs, kernel.reshape(width, *projected), 1), bias.reshape(projected))

        projections = project("query"), project("key"), project("value")
        if implementation == "fused":
            attended, entropies = _attend_fused(*projections, num_heads=self.num_heads, record=record)
        elif implementation == "cudnn":
            attended, entropies = _attend_cudnn(*projections, record=record, causal=self.causal, real=hidden)
        else:
            queries, *seen = projections
            first = None
            if self.most_tokens is not None and keeps:
                first = cache.count(self, inputs.shape[1])
                seen = cache.append(self, "before", seen, first, self.most_tokens)
            attended, entropies = _attend(
                queries,
                *seen,
                first=first,
                record=record,
                block_size=self.block_size,
                drop=None if dropout_key is None else (dropout_key, self.dropout_rate),
                causal=self.causal,
                real=hidden,
            )

        kernel, bias = HeadProjection((*head_shape, width), (0, 1), 2, (width,), name="output")()
        kernel, bias = kernel.astype(self.dtype), bias.astype(self.dtype)
        outputs = add_bias(jnp.tensordot(attended, kernel.reshape(*projected, width), len(projected)), bias)
        if entropies is None:
            return outputs, None
        arrays = (*projections, attended)
        queries, keys, values, attended = (array.reshape(*inputs.shape[:2], *head_shape) for array in arrays)
        return outputs, make_record(queries, keys, values, attended, kernel, entropies, real)


def make_record(
    queries: Float[Array, "B N H F"],
    keys: Float[Array, "B N H F"],
    values: Float[Array, "B N H F"],
    attended: Float[Array, "B N H F"],
    output_kernel: Float[Array, "H F D"],
    entropies: Float[Array, "B N H"] | Float[Array, "B H"],
    real: Bool[Array, "B N"] | None,
    relative_keys: Float[Array, "P F"] | None = None,
) -> AttentionRecord:
    """A record, from the entropies of each token or from their means; padding, not ``real``, counts in no mean."""
    of_tokens = entropies if entropies.ndim == 3 else None
    means = entropies if of_tokens is None else mean_over_tokens(of_tokens, real, axis=1)
    return AttentionRecord(queries, keys, values, attended, output_kernel, means, of_tokens, relative_keys)


def _attend_fused(
    queries: Float[Array, "B N D"], keys: Float[Array, "B N D"], values: Float[Array, "B N D"], **options: Any
) -> tuple[Float[Array, "B N D"], Float[Array, "B H"] | None]:
    """The kernel, on each device for its own images: XLA cannot divide it."""
    return on_each_device(lambda _, *arrays: fused_attention(*arrays, **options), (), queries, keys, values)


def _attend_cudnn(
    queries: Float[Array, "B N H F"],
    keys: Float[Array, "B N H F"],
    values: Float[Array, "B N H F"],
    *,
    record: bool,
    causal: bool,
    real: Bool[Array, "B N"] | None,
) -> tuple[Float[Array, "B N H F"], Float[Array, "B N H"] | Float[Array, "B H"] | None]:
    """cuDNN's kernel, on each device for its own sequences; arguments and results as :func:`_attend`."""
    batches: tuple[Array, ...] = (queries, keys, values)
    if real is not None:  # padding is behind a text; of nothing but padding all tokens attend to all
        lengths = jnp.sum(real, axis=-1, dtype=jnp.int32)
        batches = (*batches, jnp.where(lengths == 0, real.shape[1], lengths))
    attended, entropies = on_each_device(
        lambda _, *arrays: cudnn_attention(*arrays, record=record, causal=causal), (), *batches
    )
    if entropies is None or causal or real is not None:
        return attended, entropies
    return attended, jnp.mean(entropies, axis=1)


def _attend(
    queries: Float[Array, "B R H F"],
    keys: Float[Array, "B N H F"],
    values: Float[Array, "B N H F"],
    *,
    first: Int[Array, ""] | None = None,
    record: bool,
    block_size: int | None,
    drop: tuple[Array, float] | None = None,
    causal: bool = False,
    real: Bool[Array, "B N"] | None = None,
) -> tuple[Float[Array, "B R H F"], Float[Array, "B R H"] | Float[Array, "B H"] | None]:
    """What :func:`vmoe_inform.nn.fused_attention.fused_attention` does, left to XLA, and with masks.

    Args:
      queries, keys, values: of each head.
      first: number of the first query's token among the N, where there are fewer queries; None: all tokens have one.
      record: whether the entropies are asked for; of each token where there is a mask, otherwise their means.
      block_size: tokens whose weights are in memory at a time; None for all.
      drop: key and rate of a dropout of the weights.
      causal, real: see :class:`SelfAttention`.
    """

    def attend(rows: tuple[Array, Array]) -> tuple[Array, Array | None]:
        """Values that some tokens attend to [B, R, H, F], and their entropies [B, R, H]."""
        queries, positions = rows
        logits = jnp.einsum("bihf,bjhf->bhij", queries, keys, preferred_element_type=jnp.float32)
        logits = _masked(logits / queries.shape[-1] ** 0.5, positions[0], causal=causal, real=real)
        return attend_by(logits, values, record=record, drop=drop, first=positions[0, 0])

    positions = jnp.arange(queries.shape[1])[None]
    positions = positions if first is None else first + positions
    attended, entropies = map_row_blocks(attend, (queries, positions), block_size=block_size, axis=1)
    if entropies is None or causal or real is not None:
        return attended, entropies
    return attended, jnp.mean(entropies, axis=1)


def _masked(
    logits: Float[Array, "B H R N"], rows: Int[Array, " R"], *, causal: bool, real: Bool[Array, "B N"] | None
) -> Float[Array, "B H R N"]:
    """The logits, -inf where token i of these rows may not attend to token j."""
    if causal:
        allowed = rows[:, None] >= jnp.arange(logits.shape[-1])[None]
        logits = jnp.where(allowed[None, None], logits, -jnp.inf)
    if real is not None:  # of nothing but padding all tokens attend to all
        real = real | ~jnp.any(real, axis=-1, keepdims=True)
        logits = jnp.where(real[:, None, None], logits, -jnp.inf)
    return logits


def attend_by(
    logits: Float[Array, "B H R J"],
    values: Float[Array, "B J H F"],
    *,
    record: bool,
    drop: tuple[Array, float] | None,
    first: Int[Array, ""],
) -> tuple[Float[Array, "B R H F"], Float[Array, "B R H"] | None]:
    """What R tokens attend to by the softmax of their logits, and its entropies in nats, without a gradient.

    Args:
      logits: float32, -inf for what a token may not attend to.
      values: of the J tokens.
      record: whether the entropies are asked for.
      drop: key and rate of a dropout of the weights.
      first: number of the first of the R tokens, by which the dropout differs between blocks of rows.
    """
    attention = jax.nn.softmax(logits, axis=-1).astype(values.dtype)
    if drop is not None:
        key, rate = drop
        attention = dropout(jax.random.fold_in(key, first), attention, rate)
    attended = jnp.einsum("bhij,bjhf->bihf", attention, values)
    # Next to the softmax the entropies cost no more than another sum over its rows.
    entropies = jnp.swapaxes(softmax_entropy(jax.lax.stop_gradient(logits)), 1, 2) if record else None
    return attended, entropies
