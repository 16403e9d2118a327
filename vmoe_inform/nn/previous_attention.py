"""Attention to the tokens before, of the Adaptive-Span transformer (arXiv 1905.07799) with a fixed span.

Each token attends to the P tokens before it, and not to itself. For the first tokens of a sequence these are carried
over from the sequence before: the memory. It is zeros at the start, which are not masked.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vmoe_inform.axes import Array, Bool, Float
from vmoe_inform.nn import cache
from vmoe_inform.nn.attention import attend_by, head_initializer, make_record
from vmoe_inform.routing.blocks import map_row_blocks
from vmoe_inform.routing.steps import AttentionRecord


class HeadKernel(nn.Module):
    """Kernel of a projection to or from attention heads without a bias; the caller does the product."""

    shape: tuple[int, int, int]
    in_axis: int | tuple[int, ...]
    out_axis: int | tuple[int, ...]

    @nn.compact
    def __call__(self) -> Array:
        return self.param("kernel", head_initializer(self.in_axis, self.out_axis), self.shape)


class PreviousAttention(nn.Module):
    """softmax(q_i . (k_j + r_(i-j)) / sqrt(F)) v_j over the P tokens j before i, then an output projection; no biases.

    Attributes:
      num_heads: H.
      dropout_rate: dropout of the attention weights in training.
      block_size: tokens whose attention weights are in memory at a time, also for gradients; None for all N. A block of
        R tokens looks at R + P, so that small blocks of long sequences take fewer operations.
      dtype: type of the products; softmax statistics are float32.
    """

    num_heads: int
    dropout_rate: float = 0.0
    block_size: int | None = None
    dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        inputs: Float[Array, "B N D"],
        memory: Float[Array, "B P D"],
        relative_keys: Float[Array, "P F"],
        *,
        train: bool,
        record: bool,
        real: Bool[Array, "B N"] | None = None,
    ) -> tuple[Float[Array, "B N D"], AttentionRecord | None]:
        """Attends.

        Args:
          inputs: tokens [B, N, D].
          memory: the P inputs before these.
          relative_keys: r_1 to r_P, shared by the heads.
          train: whether dropout is on.
          record: whether a router needs to know what the heads saw.
          real: False for padding behind a text; None if all are real.

        Returns:
          outputs [B, N, D], and the record of these N tokens (None unless asked for).
        """
        num_tokens, width = inputs.shape[1:]
        head_shape = (self.num_heads, width // self.num_heads)
        inputs, memory = inputs.astype(self.dtype), memory.astype(self.dtype)
        relative_keys = relative_keys.astype(self.dtype)
        keeps = cache.keeps(self)  # then keys and values of the tokens before are known
        context = inputs if keeps else jnp.concatenate([memory, inputs], axis=1)

        def project(name: str, tokens: Array) -> Array:
            kernel = HeadKernel((width, *head_shape), 0, (1, 2), name=name)()
            return jnp.tensordot(tokens, kernel.astype(self.dtype), 1)

        queries, keys, values = project("query", inputs), project("key", context), project("value", context)
        if keeps:
            keys, values = cache.append_to_last(self, "before", (keys, values), len(relative_keys))
        drop = (self.make_rng("dropout"), self.dropout_rate) if train and self.dropout_rate > 0 else None

        def attend(rows: tuple[Array, Array]) -> tuple[Array, Array | None]:
            """Values that R tokens attend to [B, R, H, F], and their entropies [B, R, H]."""
            queries, positions = rows
            first, length = positions[0, 0], queries.shape[1] + relative_keys.shape[0]
            near = [jax.lax.dynamic_slice_in_dim(array, first, length, axis=1) for array in (keys, values)]
            logits = previous_logits(queries, near[0], relative_keys)
            return attend_by(logits, near[1], record=record, drop=drop, first=first)

        rows = (queries, jnp.arange(num_tokens)[None])
        attended, entropies = map_row_blocks(attend, rows, block_size=self.block_size, axis=1)
        kernel = HeadKernel((*head_shape, width), (0, 1), 2, name="output")().astype(self.dtype)
        outputs = jnp.tensordot(attended, kernel, 2)
        if entropies is None:
            return outputs, None
        keys, values = (array[:, -num_tokens:] for array in (keys, values))
        return outputs, make_record(queries, keys, values, attended, kernel, entropies, real, relative_keys)


def previous_logits(
    queries: Float[Array, "B R H F"], keys: Float[Array, "B J H F"], relative_keys: Float[Array, "P F"]
) -> Float[Array, "B H R J"]:
    """q_i . (k_j + r_(i-j)) / sqrt(F) in float32, and -inf for all but the P tokens j before i.

    Args:
      queries: of R tokens in a row.
      keys: of the P tokens before them, then of themselves: J = P + R.
      relative_keys: r_1 to r_P.
    """
    rows, span = queries.shape[1], relative_keys.shape[0]
    by_content = jnp.einsum("bihf,bjhf->bhij", queries, keys, preferred_element_type=jnp.float32)
    by_distance = jnp.einsum("bihf,pf->bhip", queries, relative_keys[::-1], preferred_element_type=jnp.float32)
    # Row i of [R, P] is to begin at column i of [R, P + R]: one number more to each row than the shape has.
    shifted = jnp.pad(by_distance, ((0, 0), (0, 0), (0, 0), (0, rows + 1))).reshape(*by_distance.shape[:2], -1)
    shifted = shifted[..., : rows * (span + rows)].reshape(*by_distance.shape[:3], span + rows)
    column = jnp.arange(span + rows)[None] - jnp.arange(rows)[:, None]
    allowed = (column >= 0) & (column < span)
    return jnp.where(allowed[None, None], (by_content + shifted) / queries.shape[-1] ** 0.5, -jnp.inf)


def next_memory(memory: Float[Array, "B P D"], inputs: Float[Array, "B N D"]) -> Float[Array, "B P D"]:
    """The P inputs before the next sequence, without a gradient."""
    span = memory.shape[1]
    new = inputs.astype(memory.dtype)[:, -span:]
    return jax.lax.stop_gradient(jnp.concatenate([memory[:, new.shape[1] :], new], axis=1))
