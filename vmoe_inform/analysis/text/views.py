"""Views for the page of words: a few texts, with the routing of each run word by word."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np

from vmoe_inform import checks
from vmoe_inform.analysis.collect.certified_rows import CertifiedRow
from vmoe_inform.analysis.collect.views import LayerView
from vmoe_inform.axes import Float, Int


@dataclasses.dataclass(frozen=True)
class Expected:
    """What a language model expects after each token.

    Attributes:
      nats: cross-entropy of the token that follows.
      likely: the M most probable tokens, the most probable first.
      shares: their probabilities.
    """

    nats: Float[np.ndarray, "n N"]
    likely: Int[np.ndarray, "n N M"]
    shares: Float[np.ndarray, "n N M"]


@dataclasses.dataclass(frozen=True)
class TextView:
    """The routing of n texts by one run.

    Attributes:
      run: its name.
      label: run and step, for titles.
      layers: by block name.
      num_experts: E.
      expected: of a language model.
      predictions: of a classifier, the class it says of each text.
    """

    run: str
    label: str
    layers: Mapping[str, LayerView]
    num_experts: int
    expected: Expected | None = None
    predictions: Int[np.ndarray, " n"] | None = None

    def take(self, rows: Int[np.ndarray, " k"]) -> Self:
        """Of the texts only those of these numbers."""
        expected = self.expected
        return dataclasses.replace(
            self,
            layers={block: layer.take(rows) for block, layer in self.layers.items()},
            expected=expected and Expected(expected.nats[rows], expected.likely[rows], expected.shares[rows]),
            predictions=None if self.predictions is None else self.predictions[rows],
        )


@dataclasses.dataclass(frozen=True)
class TextViews:
    """All that a page of words shows.

    Attributes:
      tokens: of each text as words to show, without filler.
      targets: the token after each; empty for classifiers.
      labels: the class of each text in words; empty for language models.
      class_names: by class; empty for language models.
      selection: how the texts were chosen, a sentence or two; may be empty.
      likely: by token id, the words of :attr:`Expected.likely`.
      views: one for each run; the first is the one that the page is about.
      certified: table of certificates of the first run; empty where there is none.
    """

    tokens: Sequence[Sequence[str]]
    views: Sequence[TextView]
    targets: Sequence[Sequence[str]] = ()
    labels: Sequence[int] = ()
    class_names: Sequence[str] = ()
    selection: str = ""
    likely: Mapping[int, str] = dataclasses.field(default_factory=dict)
    certified: Sequence[CertifiedRow] = ()

    def __post_init__(self) -> None:
        """Raises ValueError where the parts are not of the same texts, or the runs cannot be compared."""
        if not self.views:
            raise checks.error("views", "at least one", self.views)
        first = self.views[0]
        for view in self.views:
            if view.num_experts != first.num_experts:
                expected = f"{first.num_experts} experts, as {first.run} has"
                raise checks.error(f"view of {view.run}", expected, view.num_experts)
            for block, layer in view.layers.items():
                if len(layer.experts) != len(self.tokens):
                    expected = f"{len(self.tokens)} texts"
                    raise checks.error(f"view of {view.run}, {block}", expected, len(layer.experts))
        if not self.layers:
            raise checks.error("views", "a MoE layer that all runs have", [list(view.layers) for view in self.views])

    @property
    def layers(self) -> list[str]:
        """The MoE layers that all views have."""
        return [block for block in self.views[0].layers if all(block in view.layers for view in self.views)]

    def take(self, indices: Sequence[int]) -> Self:
        """Of the texts only those of these numbers."""
        rows = np.asarray(indices)
        return dataclasses.replace(
            self,
            tokens=[self.tokens[index] for index in indices],
            targets=[self.targets[index] for index in indices] if self.targets else (),
            labels=[self.labels[index] for index in indices] if self.labels else (),
            views=[view.take(rows) for view in self.views],
        )
