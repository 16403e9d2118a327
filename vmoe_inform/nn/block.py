"""One pre-LayerNorm transformer block, with a dense MLP or a MoE layer."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vmoe_inform.axes import Array, Bool, Float
from vmoe_inform.config import ModelConfig
from vmoe_inform.nn.attention import SelfAttention
from vmoe_inform.nn.mlp import Mlp
from vmoe_inform.nn.moe import MoeLayer
from vmoe_inform.nn.router import Surroundings, needs_attention
from vmoe_inform.routing.steps import PreviousLayer


class Block(nn.Module):
    """Attention, then MLP or MoE layer, each on LayerNormed tokens and added to the residual stream.

    Attributes:
      config: of the model.
      moe_ordinal: of this block's MoE layer among all, from 0; None for a dense block.
      drop_rate: probability that an image skips one of the two branches in training (stochastic depth, arXiv
        1603.09382). The others are scaled, so that the expected value stays. Tokens of skipped MoE layers still take
        their slots and count in the losses, so the input of an expert does not depend on chance.
    """

    config: ModelConfig
    moe_ordinal: int | None
    drop_rate: float = 0.0

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "B N D"],
        around: Surroundings,
        *,
        train: bool,
        sequence_mask: Bool[Array, " B"] | None = None,
    ) -> tuple[Float[Array, "B N D"], dict[str, Any] | None, PreviousLayer | None]:
        """Returns the new tokens, and of a MoE layer its metrics and what the next one may know (None if dense)."""
        config, dtype, ordinal = self.config, jnp.dtype(self.config.dtype), self.moe_ordinal
        normed = nn.LayerNorm(epsilon=1e-6, dtype=dtype, name="attention_norm")(tokens)
        attention = SelfAttention(
            config.num_heads,
            config.attention_dropout_rate,
            config.attention_block_size,
            dtype,
            config.attention,
            name="attention",
        )
        recorded = ordinal is not None and needs_attention(config.router, ordinal)
        attended, record = attention(normed, train=train, record=recorded)
        attended = nn.Dropout(config.dropout_rate, deterministic=not train)(attended)
        drop_branch = nn.Dropout(self.drop_rate, broadcast_dims=(1, 2), deterministic=not train)  # one draw an image
        tokens = tokens + drop_branch(attended)
        normed = nn.LayerNorm(epsilon=1e-6, dtype=dtype, name="mlp_norm")(tokens)
        if ordinal is None:
            mlp = Mlp(config.mlp_size, config.dropout_rate, dtype, name="mlp")
            return tokens + drop_branch(mlp(normed, train=train)), None, None
        around = dataclasses.replace(around, attention=record)
        moe = MoeLayer(config, ordinal, name="moe")
        outputs, metrics, previous = moe(normed, around, train=train, sequence_mask=sequence_mask)
        return tokens + drop_branch(outputs), metrics, previous
