"""What the routers of a model did, from the trace that its MoE layers leave (:class:`vmoe_inform.nn.moe.MoeLayer`)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vmoe_inform.axes import Array, Bool, Float, Int
from vmoe_inform.routing import collapsed_sequences, effective_neighbours, routing_entropy, topk_margin
from vmoe_inform.routing.stats import mean_over_tokens


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerStatistics:
    """Of one MoE layer, for each sequence of a batch, over its real tokens.

    Attributes:
      entropy: mean over tokens of the entropy of the informed probabilities, in nats.
      load: mean load that a token puts on each expert.
      effective_neighbours: mean over tokens; 1 if tokens do not mix.
      dropped: share of the tokens' choices without a slot.
      collapsed: whether all tokens have the same first expert.
      margin: mean over tokens of the K-th minus the (K + 1)-th largest informed probability, scaled to sum 1. It has
        what the select step adds before the choice. Infinite for K = E.
      chosen: experts of every token, the first choice first; E for none.
    """

    entropy: Float[Array, " B"]
    load: Float[Array, "B E"]
    effective_neighbours: Float[Array, " B"]
    dropped: Float[Array, " B"]
    collapsed: Bool[Array, " B"]
    margin: Float[Array, " B"]
    chosen: Int[Array, "B N K"]


def layer_statistics(
    trace: Mapping[str, Any], token_mask: Bool[Array, "B N"] | None = None
) -> dict[str, LayerStatistics]:
    """Statistics by block name.

    Args:
      trace: the collection ``intermediates`` of a model's call.
      token_mask: which tokens are real and no padding, which counts nowhere; None: all.
    """
    layers = {}
    for block, left in trace.items():
        layer = left["moe"]
        routing = layer["routing"]
        entropy = routing_entropy(routing.informed)
        neighbours = jnp.ones_like(entropy) if routing.graph is None else effective_neighbours(routing.graph)
        margins = topk_margin(layer.get("preferences", routing.normalized), routing.base_indices.shape[-1])
        layers[block] = LayerStatistics(
            entropy=mean_over_tokens(entropy, token_mask, axis=1),
            load=mean_over_tokens(layer["load"], token_mask, axis=1),
            effective_neighbours=mean_over_tokens(neighbours, token_mask, axis=1),
            dropped=mean_over_tokens(layer["dropped"], token_mask, axis=1),
            collapsed=collapsed_sequences(layer["indices"], token_mask),
            margin=mean_over_tokens(margins, token_mask, axis=1),
            chosen=layer["indices"],
        )
    return layers
