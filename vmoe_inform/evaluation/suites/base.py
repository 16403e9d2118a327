"""Evaluation suites: the sets of images that a suite predicts, and its metrics of the predictions.

A suite works in two stages, both pure. ``score`` makes a few numbers for each image of the predictions for one set.
Only these are kept, since they are small enough to be kept for every set. ``summarize`` makes the suite's metrics of
the scores of all sets. Every metric is a share from 0 to 1, except ``nll`` in nats and the errors relative to AlexNet.

registry.py has the suites by name; each has a file of its own in this folder.
"""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int

from vmoe_inform.config import ImageDataConfig
from vmoe_inform.data import sources
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation.adversarial import Attack
from vmoe_inform.evaluation.results import SuiteResult

Scores = dict[str, np.ndarray]  # arrays [n], one value an image; "skipped" is a number

TEST_SET = "clean"  # name of the set of all test images as they are, which several suites look at


class NotAvailable(Exception):
    """The suite cannot be had for this config; the message says what to put where, or to install or change."""


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a model says about one set, in the order of its records.

    Attributes:
      logits: [n, classes].
      labels: [n].
      indices: number of each record in its source, ascending, [n].
      skipped: records that could not be read, which are not among the n.
    """

    logits: Float[np.ndarray, "n classes"]
    labels: Int[np.ndarray, " n"]
    indices: Int[np.ndarray, " n"]
    skipped: int


@dataclasses.dataclass(frozen=True)
class AttackedPredictions(Predictions):
    """Predictions for adversarial images.

    Attributes:
      without_gradient: whether the gradient was zero in some step of the attack [n].
    """

    without_gradient: Bool[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True)
class Features:
    """What a model's head sees of one set, in the order of its records.

    Attributes:
      values: [n, F].
      labels, indices, skipped: as of :class:`Predictions`.
    """

    values: Float[np.ndarray, "n F"]
    labels: Int[np.ndarray, " n"]
    indices: Int[np.ndarray, " n"]
    skipped: int


class TrainedModel(Hashable, Protocol):
    """What may be asked of a model that is evaluated."""

    def predict(self, source: Source) -> Predictions:
        """Predictions for images as they are."""
        ...

    def predict_attacked(self, source: Source, attack: Attack) -> AttackedPredictions:
        """Predictions for images that are changed so that the model mistakes them."""
        ...

    def features(self, source: Source) -> Features:
        """What the model's head sees of each image."""
        ...


def predict_as_they_are(model: TrainedModel, source: Source) -> Predictions:
    """Predictions for images as they are."""
    return model.predict(source)


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """One unit of work: a set of images and how it is predicted.

    Attributes:
      load: finds the set; cheap enough to be called when its scores are there already.
      predict: asks the model.
      settings: what decides the predictions besides the model and the records, as JSON values; scores of other
        settings are not taken for these.
    """

    load: Callable[[], Source]
    predict: Callable[[TrainedModel, Source], Predictions] = predict_as_they_are
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Suite:
    """A suite for one config.

    Attributes:
      name: as registered.
      sets: by name.
      score: name of a set and the predictions for it -> scores of its images.
      summarize: scores of all sets, by their names -> the suite's metrics.
      origin: of the images, as sources state it.
      made_from: the images that the metrics depend on, from which the suite is known again; None: all sets.
      headline: the metric that stands for the suite; :func:`~vmoe_inform.evaluation.suites.registry.load` sets it.
      metric_versions: of its metrics, by their names; ``load`` adds those of the suite's own.
      score_versions: of the registered scores among those that ``score`` makes, by their names.
    """

    name: str
    sets: Mapping[str, ImageSet]
    score: Callable[[str, Predictions], Scores]
    summarize: Callable[[Mapping[str, Scores]], SuiteResult]
    origin: str = ""
    made_from: Callable[[], Sequence[Source]] | None = None
    headline: str = "top1"
    metric_versions: Mapping[str, int] = dataclasses.field(default_factory=dict)
    score_versions: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def images(self) -> Sequence[Source]:
        """Sets from which the suite is known again; cheap where its sets are many or generated."""
        return [image_set.load() for image_set in self.sets.values()] if self.made_from is None else self.made_from()

    def result(self, scores: Mapping[str, Scores]) -> SuiteResult:
        """What the suite measures, and where its images are from."""
        found = self.summarize(scores)
        return dataclasses.replace(found, headline=self.headline, origin=self.origin, versions=self.metric_versions)


@functools.lru_cache(maxsize=1)
def test_split(data: ImageDataConfig) -> Source:
    """The clean test images. Kept, since every suite asks for them and 50,000 files take a while to list."""
    return sources.test(data)
