"""What models of images and of text share: transformer blocks, with MoE layers where the config says.

The functions are called inside the ``__call__`` of a model, in whose scope the blocks get their names, ``block_0`` on.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax

from vmoe_inform.axes import Array, Bool, Float
from vmoe_inform.config import ModelConfig
from vmoe_inform.nn.block import Block, Past
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
# Parameters that embed the inputs, before the first block; as their paths begin
EMBEDDINGS = ("patch_embedding", "class_token", "position_embedding", "vocabulary/embedding")
LayerMetrics = dict[str, dict[str, Any]]  # by block name, of blocks with a MoE layer
Memory = dict[str, Float[Array, "B P D"]]  # by block name, what its attention saw of the P tokens before


def apply_blocks(
    config: ModelConfig,
    tokens: Float[Array, "B N D"],
    around: Surroundings,
    real: Bool[Array, "B #N"] | None,
    *,
    train: bool,
    memory: Memory | None = None,
    relative_keys: Float[Array, "P F"] | None = None,
) -> tuple[Float[Array, "B N D"], LayerMetrics, Memory | None]:
    """All blocks in order; each MoE layer is handed what the one before it decided.

    Args:
      config: of the model.
      tokens: embedded.
      around: what the routers may need besides, of the whole model.
      real: False for filler, sequence by sequence or token by token, which takes no slots; None if all are real.
      train: noise, dropout and training capacity.
      memory: of the sequences before, where attention spans several in a row of a batch, or None.
      relative_keys: of the distances that it spans; None without ``memory``.

    Returns:
      the tokens before the last LayerNorm; the metrics of :class:`vmoe_inform.nn.moe.MoeLayer`; and the memory for the
      next sequences, without a gradient.
    """
    metrics: LayerMetrics = {}
    next_memory: Memory = {}
    for layer in range(config.num_layers):
        name = f"block_{layer}"
        ordinal = config.moe_layers.index(layer) if layer in config.moe_layers else None
        drop_rate = config.stochastic_depth_rate * layer / max(1, config.num_layers - 1)
        past = None if memory is None or relative_keys is None else (memory[name], relative_keys)
        block = Block(config, ordinal, drop_rate, name=name)
        tokens, layer_metrics, previous, kept = _apply_block(block, tokens, around, real, past, train=train)
        if layer_metrics is not None:
            metrics[name] = layer_metrics
            around = dataclasses.replace(around, previous=previous)
        if kept is not None:
            next_memory[name] = kept
    return tokens, metrics, next_memory or None


def _apply_block(
    block: Block,
    tokens: Float[Array, "B N D"],
    around: Surroundings,
    real: Bool[Array, "B #N"] | None,
    past: Past | None,
    *,
    train: bool,
) -> tuple[Float[Array, "B N D"], dict[str, Any] | None, PreviousLayer | None, Float[Array, "B P D"] | None]:
    """The block, which keeps for the gradient what ``remat`` says."""

    def apply(block: Block, *arrays: Any) -> Any:
        return block(*arrays[:2], train=train, real=arrays[2], past=arrays[3])

    if block.config.remat != "none":
        apply = nn.remat(apply, policy=_REMAT_POLICIES[block.config.remat])
    return apply(block, tokens, around, real, past)
