"""What models of images and of text share: transformer blocks, with MoE layers where the config says.

The functions are called inside the ``__call__`` of a model, in whose scope the blocks get their names, ``block_0`` on.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax

from vmoe_inform.axes import Array, Bool, Float
from vmoe_inform.config import ModelConfig
from vmoe_inform.nn.block import Block
from vmoe_inform.nn.mlp import EXPERT_PRODUCTS
from vmoe_inform.nn.router import Surroundings
from vmoe_inform.routing.steps import PreviousLayer

_REMAT_POLICIES = {
    # Products with parameters; not the products of attention, N x N, which are as large as they are cheap.
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names(EXPERT_PRODUCTS),
    ),
    "full": jax.checkpoint_policies.nothing_saveable,
}
LayerMetrics = dict[str, dict[str, Any]]  # by block name, of blocks with a MoE layer


def apply_blocks(
    config: ModelConfig,
    tokens: Float[Array, "B N D"],
    around: Surroundings,
    sequence_mask: Bool[Array, " B"] | None,
    *,
    train: bool,
) -> tuple[Float[Array, "B N D"], LayerMetrics]:
    """All blocks in order; each MoE layer is handed what the one before it decided.

    Args:
      config: of the model.
      tokens: embedded.
      around: what the routers may need besides, of the whole model.
      sequence_mask: False for filler sequences, whose tokens take no slots; None if all are real.
      train: noise, dropout and training capacity.

    Returns:
      the tokens before the last LayerNorm, and the metrics of :class:`vmoe_inform.nn.moe.MoeLayer`.
    """
    metrics: LayerMetrics = {}
    for layer in range(config.num_layers):
        name = f"block_{layer}"
        ordinal = config.moe_layers.index(layer) if layer in config.moe_layers else None
        drop_rate = config.stochastic_depth_rate * layer / max(1, config.num_layers - 1)
        block = Block(config, ordinal, drop_rate, name=name)
        tokens, layer_metrics, previous = _apply_block(block, tokens, around, sequence_mask, train=train)
        if layer_metrics is not None:
            metrics[name] = layer_metrics
            around = dataclasses.replace(around, previous=previous)
    return tokens, metrics


def _apply_block(
    block: Block,
    tokens: Float[Array, "B N D"],
    around: Surroundings,
    sequence_mask: Bool[Array, " B"] | None,
    *,
    train: bool,
) -> tuple[Float[Array, "B N D"], dict[str, Any] | None, PreviousLayer | None]:
    """The block, which keeps for the gradient what ``remat`` says."""

    def apply(block: Block, *arrays: Any) -> Any:
        return block(*arrays[:2], train=train, sequence_mask=arrays[2])

    if block.config.remat != "none":
        apply = nn.remat(apply, policy=_REMAT_POLICIES[block.config.remat])
    return apply(block, tokens, around, sequence_mask)
