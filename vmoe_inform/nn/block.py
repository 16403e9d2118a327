"""One pre-LayerNorm transformer block, with a dense MLP or a MoE layer."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vmoe_inform.axes import Array, Bool, Float
from vmoe_inform.config import ModelConfig
from vmoe_inform.nn.attention import SelfAttention
from vmoe_inform.nn.mlp import Mlp
from vmoe_inform.nn.moe import MoeLayer
from vmoe_inform.nn.router import needs_attention


class Block(nn.Module):
    """Attention, then MLP or MoE layer, each on LayerNormed tokens and added to the residual stream."""

    config: ModelConfig
    is_moe: bool

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "B N D"], *, train: bool, image_mask: Bool[Array, " B"] | None = None
    ) -> tuple[Float[Array, "B N D"], dict[str, Any] | None]:
        """Returns the new tokens, and the metrics of the MoE layer (None for a dense block)."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        normed = nn.LayerNorm(epsilon=1e-6, dtype=dtype, name="attention_norm")(tokens)
        attention = SelfAttention(config.num_heads, config.attention_dropout_rate, dtype, name="attention")
        attended, record = attention(normed, train=train, record=self.is_moe and needs_attention(config.router))
        tokens = tokens + nn.Dropout(config.dropout_rate, deterministic=not train)(attended)
        normed = nn.LayerNorm(epsilon=1e-6, dtype=dtype, name="mlp_norm")(tokens)
        if self.is_moe:
            outputs, metrics = MoeLayer(config, name="moe")(normed, record, train=train, image_mask=image_mask)
            return tokens + outputs, metrics
        return tokens + Mlp(config.mlp_size, config.dropout_rate, dtype, name="mlp")(normed, train=train), None
