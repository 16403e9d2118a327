"""Views of single sequences for interactive pages: the routing of every token in each layer.

Token graphs are large. A :class:`LayerView` keeps of each token only its strongest neighbours, so that traces can be
made, cut down and let go one after the other.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Self

import numpy as np

from vmoe_inform import checks
from vmoe_inform.analysis.collect.traces import LayerTrace
from vmoe_inform.axes import Float, Int

KEPT = ("informed", "base_indices", "indices", "weights")  # what a trace has to keep for a view, besides its graphs
MOST_NEIGHBOURS = 6


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """The neighbours of tokens; the weights of a token sum to 1 over all tokens.

    Attributes:
      itself: weight of the token itself.
      others: the M other tokens of the largest weights, the largest first.
      weights: of these.
    """

    itself: Float[np.ndarray, "n N"]
    others: Int[np.ndarray, "n N M"]
    weights: Float[np.ndarray, "n N M"]


@dataclasses.dataclass(frozen=True)
class LayerView:
    """One MoE layer's routing of n sequences of N tokens.

    Attributes:
      experts: the K chosen experts, the first choice first; E where there is none.
      weights: of the chosen experts, as the outputs are multiplied by.
      own_experts: what a token would have chosen by itself; None where that is not known.
      undecided: routing entropy over the most it could be, ln E; None where that is not known.
      neighbours: None where tokens do not attend to each other.
    """

    experts: Int[np.ndarray, "n N K"]
    weights: Float[np.ndarray, "n N K"]
    own_experts: Int[np.ndarray, "n N K"] | None
    undecided: Float[np.ndarray, "n N"] | None
    neighbours: Neighbours | None

    def take(self, rows: Int[np.ndarray, " k"]) -> Self:
        """Of the sequences only those of these numbers."""

        def taken(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else array[rows]

        near = self.neighbours
        return dataclasses.replace(
            self,
            experts=self.experts[rows],
            weights=self.weights[rows],
            own_experts=taken(self.own_experts),
            undecided=taken(self.undecided),
            neighbours=near and Neighbours(near.itself[rows], near.others[rows], near.weights[rows]),
        )


def layer_views(layers: Mapping[str, LayerTrace], num_experts: int) -> dict[str, LayerView]:
    """Views of records that have the fields :data:`KEPT`, and graphs where neighbours are to be shown.

    Raises:
      ValueError: a layer without experts or weights.
    """
    return {block: _layer_view(block, layer, num_experts) for block, layer in layers.items()}


def _layer_view(block: str, layer: LayerTrace, num_experts: int) -> LayerView:
    if layer.indices is None or layer.weights is None:
        raise checks.error(f"layers[{block!r}]", "a trace that kept indices and weights", checks.NOTHING)
    return LayerView(
        experts=layer.indices,
        weights=layer.weights,
        own_experts=layer.base_indices,
        undecided=None if layer.informed is None else undecided(layer.informed, num_experts),
        neighbours=None if layer.graph is None else neighbours_of(layer.graph),
    )


def undecided(probabilities: Float[np.ndarray, "*batch E"], num_experts: int) -> Float[np.ndarray, "*batch"]:
    """Entropy of each row over ln E: 0 for a row that is sure of one expert, 1 for one that is of none."""
    logs = np.log(np.where(probabilities > 0, probabilities, 1.0))
    return -(probabilities * logs).sum(-1) / math.log(max(num_experts, 2))


def neighbours_of(graph: Float[np.ndarray, "n N N"], number: int = MOST_NEIGHBOURS) -> Neighbours:
    """The diagonal and the ``number`` largest other entries (or all of them) of each row of a token graph."""
    num_tokens = graph.shape[-1]
    number = min(number, num_tokens - 1)
    itself = np.diagonal(graph, axis1=1, axis2=2)
    beside = np.where(np.eye(num_tokens, dtype=bool), -1.0, graph)
    largest = (
        np.argpartition(-beside, number - 1, axis=-1)[..., :number] if number else np.zeros((*itself.shape, 0), int)
    )
    order = np.argsort(-np.take_along_axis(beside, largest, axis=-1), axis=-1, kind="stable")
    others = np.take_along_axis(largest, order, axis=-1)
    return Neighbours(itself, others, np.take_along_axis(graph, others, axis=-1))
