"""Views for the interactive page: a few images, clean and corrupted, with the routing of each run.

Token graphs are large. A :class:`View` keeps of each token only its strongest neighbours, so that traces can be made,
cut down and let go one after the other.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from vmoe_inform import checks
from vmoe_inform.analysis.collect.traces import LayerTrace, Trace
from vmoe_inform.axes import Float, Int

KEPT = ("informed", "base_indices", "indices", "weights")  # what a trace has to keep for a view, besides its graphs
MOST_NEIGHBOURS = 6

Condition = tuple[str, int]  # corruption and severity
UNCORRUPTED: Condition = ("", 0)


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
    """One MoE layer's routing of n images of N tokens.

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


@dataclasses.dataclass(frozen=True)
class View:
    """The routing of the images by one run under one condition.

    Attributes:
      run: its name.
      condition: corruption and severity of the images; :data:`UNCORRUPTED`.
      predictions: the classes it says.
      confidence: the probability of that class.
      layers: by block name.
      num_experts, grid, class_token, label: as in :class:`Trace`.
    """

    run: str
    condition: Condition
    predictions: Int[np.ndarray, " n"]
    confidence: Float[np.ndarray, " n"]
    layers: Mapping[str, LayerView]
    num_experts: int
    grid: tuple[int, int]
    class_token: bool
    label: str = ""

    @classmethod
    def of(cls, trace: Trace, *, run: str, condition: Condition = UNCORRUPTED) -> "View":
        """A view of a trace that has the fields :data:`KEPT`, and graphs where neighbours are to be shown.

        Raises:
          ValueError: a layer without experts or weights.
        """
        probabilities = np.exp(trace.logits - trace.logits.max(-1, keepdims=True))
        probabilities /= probabilities.sum(-1, keepdims=True)
        return cls(
            run=run,
            condition=condition,
            predictions=probabilities.argmax(-1),
            confidence=probabilities.max(-1),
            layers={block: _layer_view(block, layer, trace.num_experts) for block, layer in trace.layers.items()},
            num_experts=trace.num_experts,
            grid=trace.grid,
            class_token=trace.class_token,
            label=trace.label,
        )


@dataclasses.dataclass(frozen=True)
class Views:
    """All that a page shows.

    Attributes:
      images: by condition, the same images.
      labels: the class of each.
      class_names: by class.
      views: one for each run and condition; the first run is the one that the page is about.
    """

    images: Mapping[Condition, UInt8[np.ndarray, "n P P 3"]]
    labels: Sequence[int]
    class_names: Sequence[str]
    views: Sequence[View]

    def __post_init__(self) -> None:
        """Raises ValueError where the parts are not of the same images, or the runs cannot be compared."""
        if not self.views:
            raise checks.error("views", "at least one", self.views)
        for condition, images in self.images.items():
            if len(images) != len(self.labels):
                raise checks.error(f"images[{condition}]", f"{len(self.labels)} images, one a label", len(images))
        first = self.views[0]
        for view in self.views:
            name = f"view of {view.run}, {condition_name(view.condition)}"
            if view.condition not in self.images:
                raise checks.error(name, "a condition with images", view.condition)
            if len(view.predictions) != len(self.labels):
                raise checks.error(name, f"{len(self.labels)} images", len(view.predictions))
            for field, what in (("num_experts", "experts"), ("grid", "rows and columns of patches")):
                if getattr(view, field) != getattr(first, field):
                    expected = f"{getattr(first, field)} {what}, as {first.run} has"
                    raise checks.error(name, expected, getattr(view, field))
        if not self.layers:
            raise checks.error("views", "a MoE layer that all runs have", [list(view.layers) for view in self.views])

    @property
    def layers(self) -> list[str]:
        """The MoE layers that all views have."""
        return [block for block in self.views[0].layers if all(block in view.layers for view in self.views)]

    @property
    def runs(self) -> list[str]:
        """Names of the runs."""
        return list(dict.fromkeys(view.run for view in self.views))

    @property
    def run_labels(self) -> list[str]:
        """The runs with their steps, where these are known."""
        return list(dict.fromkeys(view.label or view.run for view in self.views))

    def take(self, indices: Sequence[int]) -> "Views":
        """Of the images only those of these numbers."""
        rows = np.asarray(indices)
        return dataclasses.replace(
            self,
            images={condition: images[rows] for condition, images in self.images.items()},
            labels=[self.labels[index] for index in indices],
            views=[_taken(view, rows) for view in self.views],
        )


def condition_name(condition: Condition) -> str:
    """``("fog", 3)`` -> ``"fog, severity 3"``."""
    corruption, severity = condition
    return f"{corruption.replace('_', ' ')}, severity {severity}" if severity else "clean"


def _layer_view(block: str, layer: LayerTrace, num_experts: int) -> LayerView:
    if layer.indices is None or layer.weights is None:
        raise checks.error(f"layers[{block!r}]", "a trace that kept indices and weights", "none")
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


def _taken(view: View, rows: np.ndarray) -> View:
    def taken(array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else array[rows]

    layers = {}
    for block, layer in view.layers.items():
        near = layer.neighbours
        layers[block] = LayerView(
            experts=layer.experts[rows],
            weights=layer.weights[rows],
            own_experts=taken(layer.own_experts),
            undecided=taken(layer.undecided),
            neighbours=near and Neighbours(near.itself[rows], near.others[rows], near.weights[rows]),
        )
    return dataclasses.replace(
        view, predictions=view.predictions[rows], confidence=view.confidence[rows], layers=layers
    )
