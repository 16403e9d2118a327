"""Views for the interactive page: a few images, clean and corrupted, with the routing of each run."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from jaxtyping import UInt8

from vmoe_inform import checks
from vmoe_inform.analysis.collect.certified_rows import CertifiedRow
from vmoe_inform.analysis.collect.views import LayerView, layer_views
from vmoe_inform.analysis.images.tracing import ImageTrace
from vmoe_inform.axes import Float, Int

Condition = tuple[str, int]  # corruption and severity
UNCORRUPTED: Condition = ("", 0)


@dataclasses.dataclass(frozen=True)
class View:
    """The routing of the images by one run under one condition.

    Attributes:
      run: its name.
      condition: corruption and severity of the images; :data:`UNCORRUPTED`.
      predictions: the classes it says.
      confidence: the probability of that class.
      layers: by block name.
      num_experts, grid, class_token, label: as in :class:`ImageTrace`.
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
    def of(cls, trace: ImageTrace, *, run: str, condition: Condition = UNCORRUPTED) -> Self:
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
            layers=layer_views(trace.layers, trace.num_experts),
            num_experts=trace.num_experts,
            grid=trace.grid,
            class_token=trace.class_token,
            label=trace.label,
        )

    def take(self, rows: Int[np.ndarray, " k"]) -> Self:
        """Of the images only those of these numbers."""
        layers = {block: layer.take(rows) for block, layer in self.layers.items()}
        return dataclasses.replace(
            self, predictions=self.predictions[rows], confidence=self.confidence[rows], layers=layers
        )


@dataclasses.dataclass(frozen=True)
class Views:
    """All that a page shows.

    Attributes:
      images: by condition, the same images.
      labels: the class of each; empty where nobody knows it.
      class_names: by class.
      views: one for each run and condition; the first run is the one that the page is about.
      names: what each image is called instead of its class; empty where the class is known.
      certified: table of certificates of the first run; empty where there is none.
    """

    images: Mapping[Condition, UInt8[np.ndarray, "n P P 3"]]
    labels: Sequence[int]
    class_names: Sequence[str]
    views: Sequence[View]
    names: Sequence[str] = ()
    certified: Sequence[CertifiedRow] = ()

    def __post_init__(self) -> None:
        """Raises ValueError where the parts are not of the same images, or the runs cannot be compared."""
        if not self.views:
            raise checks.error("views", "at least one", self.views)
        if bool(self.labels) == bool(self.names):
            raise checks.error("views", "either labels or names of the images", f"{self.labels}, {self.names}")
        for condition, images in self.images.items():
            if len(images) != self.count:
                what = "label" if self.labels else "name"
                raise checks.error(f"images[{condition}]", f"{self.count} images, one a {what}", len(images))
        first = self.views[0]
        for view in self.views:
            name = f"view of {view.run}, {condition_name(view.condition)}"
            if view.condition not in self.images:
                raise checks.error(name, "a condition with images", view.condition)
            if len(view.predictions) != self.count:
                raise checks.error(name, f"{self.count} images", len(view.predictions))
            for field, what in (("num_experts", "experts"), ("grid", "rows and columns of patches")):
                if getattr(view, field) != getattr(first, field):
                    expected = f"{getattr(first, field)} {what}, as {first.run} has"
                    raise checks.error(name, expected, getattr(view, field))
        if not self.layers:
            raise checks.error("views", "a MoE layer that all runs have", [list(view.layers) for view in self.views])

    @property
    def count(self) -> int:
        """Number of images."""
        return len(self.labels or self.names)

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

    def take(self, indices: Sequence[int]) -> Self:
        """Of the images only those of these numbers."""
        rows = np.asarray(indices)
        return dataclasses.replace(
            self,
            images={condition: images[rows] for condition, images in self.images.items()},
            labels=[self.labels[index] for index in indices if self.labels],
            names=[self.names[index] for index in indices if self.names],
            views=[view.take(rows) for view in self.views],
        )


def condition_name(condition: Condition) -> str:
    """``("fog", 3)`` -> ``"fog, severity 3"``."""
    corruption, severity = condition
    return f"{corruption.replace('_', ' ')}, severity {severity}" if severity else "clean"
