"""One transformer block, with a dense MLP or a MoE layer."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vmoe_inform.axes import Array, Bool, Float
from vmoe_inform.config import ModelConfig
from vmoe_inform.nn.attention import SelfAttention
from vmoe_inform.nn.dropout import Dropout
from vmoe_inform.nn.mlp import Mlp
from vmoe_inform.nn.moe import MoeLayer
from vmoe_inform.nn.previous_attention import PreviousAttention, next_memory
from vmoe_inform.nn.router import Surroundings, needs_attention, without_padding
from vmoe_inform.routing.steps import AttentionRecord, PreviousLayer

# Inputs of a branch -> what it adds to the residual stream, and what else it knows
Branch = Callable[[Array], tuple[Array, Any]]
Norm = Callable[[str], Callable[[Array], Array]]  # name -> the LayerNorm of that name
Past = tuple[Float[Array, "B P D"], Float[Array, "P F"]]  # inputs of the P tokens before, and relative keys


def _pre_ln(tokens: Array, branch: Branch, norm: Norm, name: str, *, sparse: bool) -> tuple[Array, Any]:
    """h + branch(LN(h))."""
    del sparse
    update, left = branch(norm(f"{name}_norm")(tokens))
    return tokens + update, left


def _post_ln_double(tokens: Array, branch: Branch, norm: Norm, name: str, *, sparse: bool) -> tuple[Array, Any]:
    """LN(h + branch(h)), of a MoE layer LN(h + LN(h + branch(h))), as in the papers' programs."""
    update, left = branch(tokens)
    if sparse:
        update = norm("moe_norm")(tokens + update)
    return norm(f"{name}_norm")(tokens + update), left


_STYLES: Mapping[str, Callable[..., tuple[Array, Any]]] = {"pre_ln": _pre_ln, "post_ln_double": _post_ln_double}


class Block(nn.Module):
    """Attention, then MLP or MoE layer, each added to the residual stream with LayerNorms where ``config.block`` says.

    Attributes:
      config: of the model.
      moe_ordinal: of this block's MoE layer among all, from 0; None for a dense block.
      drop_rate: probability that a sequence skips one of the two branches in training (stochastic depth, arXiv
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
        real: Bool[Array, "B #N"] | None = None,
        past: Past | None = None,
    ) -> tuple[Float[Array, "B N D"], dict[str, Any] | None, PreviousLayer | None, Float[Array, "B P D"] | None]:
        """Applies both branches.

        Args:
          tokens: [B, N, D].
          around: what the router may need besides.
          train: noise, dropout and training capacity.
          real: False for filler, sequence by sequence or token by token; None if all are real.
          past: of the sequences before, where attention spans several.

        Returns:
          the new tokens; of a MoE layer its metrics and what the next one may know (None if dense); and what this
          attention hands to that of the next sequences (None without ``past``).
        """
        config, ordinal, style = self.config, self.moe_ordinal, _STYLES[self.config.block]
        # Dropouts are named by their order, and draw by their names.
        drop, drop_branch = Dropout(config.dropout_rate), Dropout(self.drop_rate, whole=True)

        def norm(name: str) -> nn.LayerNorm:
            return nn.LayerNorm(epsilon=config.layer_norm_epsilon, dtype=jnp.dtype(config.dtype), name=name)

        def attend(inputs: Array) -> tuple[Array, Any]:
            attended, record = self._attend(inputs, past, real, train=train)
            update = drop_branch(drop(attended, train=train), train=train)
            return update, (record, None if past is None else next_memory(past[0], inputs))

        tokens, (record, memory) = style(tokens, attend, norm, "attention", sparse=False)

        def think(inputs: Array) -> tuple[Array, Any]:
            if ordinal is None:
                mlp = Mlp(config.mlp_size, config.dropout_rate, jnp.dtype(config.dtype), config.activation, name="mlp")
                return drop_branch(mlp(inputs, train=train), train=train), (None, None)
            moe, near = MoeLayer(config, ordinal, name="moe"), dataclasses.replace(around, attention=record)
            outputs, metrics, previous = moe(inputs, near, train=train, real=real)
            return drop_branch(outputs, train=train), (metrics, previous)

        tokens, (metrics, previous) = style(tokens, think, norm, "mlp", sparse=ordinal is not None)
        return tokens, metrics, previous, memory

    def _attend(
        self, inputs: Array, past: Past | None, real: Array | None, *, train: bool
    ) -> tuple[Array, AttentionRecord | None]:
        """The attention's outputs, and the record if this block's router needs it."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        record = self.moe_ordinal is not None and needs_attention(config.router, self.moe_ordinal)
        sizes = (config.num_heads, config.attention_dropout_rate, config.attention_block_size, dtype)
        no_padding = without_padding(real)
        if past is not None:
            previous = PreviousAttention(*sizes, name="attention")
            return previous(inputs, *past, train=train, record=record, real=no_padding)
        most = config.num_tokens if config.causal else None
        attention = SelfAttention(*sizes, config.attention, config.causal, most, name="attention")
        return attention(inputs, train=train, record=record, real=no_padding)
