"""What the routers of a model did, from the trace that its MoE layers leave (:class:`vmoe_inform.nn.moe.MoeLayer`)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vmoe_inform.axes import Array, Float, Int
from vmoe_inform.routing import effective_neighbours, routing_entropy


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerStatistics:
    """Of one MoE layer, for each sequence of a batch.

    Attributes:
      entropy: mean over tokens of the entropy of the informed probabilities, in nats.
      load: mean load that a token puts on each expert.
      effective_neighbours: mean over tokens; 1 if tokens do not mix.
      dropped: share of the tokens' choices without a slot.
      chosen: experts of every token, the first choice first; E for none.
    """

    entropy: Float[Array, " B"]
    load: Float[Array, "B E"]
    effective_neighbours: Float[Array, " B"]
    dropped: Float[Array, " B"]
    chosen: Int[Array, "B N K"]


def layer_statistics(trace: Mapping[str, Any]) -> dict[str, LayerStatistics]:
    """Statistics by block name.

    Args:
      trace: the collection ``intermediates`` of a model's call.
    """
    layers = {}
    for block, left in trace.items():
        layer = left["moe"]
        routing = layer["routing"]
        entropy = routing_entropy(routing.informed)
        neighbours = jnp.ones_like(entropy) if routing.graph is None else effective_neighbours(routing.graph)
        layers[block] = LayerStatistics(
            entropy=jnp.mean(entropy, axis=-1),
            load=jnp.mean(layer["load"], axis=1),
            effective_neighbours=jnp.mean(neighbours, axis=-1),
            dropped=jnp.mean(layer["dropped"], axis=-1),
            chosen=layer["indices"],
        )
    return layers
