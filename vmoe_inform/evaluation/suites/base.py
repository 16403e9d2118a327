"""Evaluation suites: the sets of records that a suite asks a model about, and its metrics of the answers.

A record is an image, a text, or a window of a corpus. A suite works in two stages, both pure. ``score`` makes a few
numbers for each record of the answers for one set. Only these are kept, since they are small enough to be kept for
every set. ``summarize`` makes the suite's metrics of the scores of all sets. Most metrics are shares from 0 to 1; the
suite's kind states the unit of the others.

registry.py has the suites by name; each has a file of its own in this folder.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int

from vmoe_inform import config as config_lib
from vmoe_inform import tasks
from vmoe_inform.config import Config
from vmoe_inform.data import sources
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation import metric_registry
from vmoe_inform.evaluation.adversarial import Attack
from vmoe_inform.evaluation.paired import Contributions
from vmoe_inform.evaluation.results import Scale, SuiteResult
from vmoe_inform.tasks import Task
from vmoe_inform.tasks.predictions import Answers, Predictions, TokenLosses

__all__ = [
    "TEST_SET",
    "Answers",
    "AttackedPredictions",
    "Features",
    "NotAvailable",
    "Predictions",
    "RecordSet",
    "Scores",
    "Suite",
    "TokenLosses",
    "TrainedModel",
    "task_of",
    "test_split",
]

Scores = dict[str, np.ndarray]  # [n], one value a record, or a single number of the set, as "skipped"
Records = Any  # a Source of images, or what else the task's ``evaluation_batches`` takes

TEST_SET = "clean"  # name of the set of all test records as they are, which several suites look at


class NotAvailable(Exception):
    """The suite cannot be had for this config; the message says what to put where, or to install or change."""


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

    def predict(self, source: Records) -> Answers:
        """Answers for records as they are."""
        ...

    def predict_attacked(self, source: Source, attack: Attack) -> AttackedPredictions:
        """Predictions for images that are changed so that the model mistakes them."""
        ...

    def features(self, source: Source) -> Features:
        """What the model's head sees of each image."""
        ...


def predict_as_they_are(model: TrainedModel, source: Records) -> Answers:
    """Answers for records as they are."""
    return model.predict(source)


@dataclasses.dataclass(frozen=True)
class RecordSet:
    """One unit of work: a set of records and how it is predicted.

    Attributes:
      load: finds the set; cheap enough to be called when its scores are there already.
      predict: asks the model.
      settings: what decides the predictions besides the model and the records, as JSON values; scores of other
        settings are not taken for these.
    """

    load: Callable[[], Records]
    predict: Callable[[TrainedModel, Any], Answers] = predict_as_they_are
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Suite:
    """A suite for one config.

    Attributes:
      name: as registered.
      sets: by name.
      score: name of a set and the answers for it -> scores of its records.
      summarize: scores of all sets, by their names -> the suite's metrics.
      origin: of the records, as sources state it.
      made_from: the records that the metrics depend on, from which the suite is known again; None: all sets.
      headline: the metric that stands for the suite; :func:`~vmoe_inform.evaluation.suites.registry.load` sets it.
      scale: of the headline, set there too; None for a share, more is better.
      metric_versions: of its metrics, by their names; ``load`` adds those of the suite's own.
      score_versions: of the registered scores among those that ``score`` makes, by their names.
      contributions: scores of all sets -> metrics to which each record adds something, the headline first; None: of a
        single set, the registered means. They are for comparisons of two models on the same records.
    """

    name: str
    sets: Mapping[str, RecordSet]
    score: Callable[[str, Any], Scores]
    summarize: Callable[[Mapping[str, Scores]], SuiteResult]
    origin: str = ""
    made_from: Callable[[], Sequence[Records]] | None = None
    headline: str = "top1"
    scale: Scale | None = None
    metric_versions: Mapping[str, int] = dataclasses.field(default_factory=dict)
    score_versions: Mapping[str, int] = dataclasses.field(default_factory=dict)
    contributions: Callable[[Mapping[str, Scores]], Mapping[str, Contributions]] | None = None

    def records(self) -> Sequence[Records]:
        """Sets from which the suite is known again; cheap where its sets are many or generated."""
        return [record_set.load() for record_set in self.sets.values()] if self.made_from is None else self.made_from()

    def contributions_of(self, scores: Mapping[str, Scores]) -> Mapping[str, Contributions]:
        """Metrics to which each record adds something; empty if none is known."""
        if self.contributions is not None:
            return self.contributions(scores)
        return metric_registry.contributions_of(*scores.values()) if len(scores) == 1 else {}

    def result(self, scores: Mapping[str, Scores]) -> SuiteResult:
        """What the suite measures, and where its records are from."""
        return dataclasses.replace(
            self.summarize(scores),
            headline=self.headline,
            scale=self.scale,
            origin=self.origin,
            versions=self.metric_versions,
        )


def task_of(config: Config) -> Any:
    """The task of a run with what it has read: kept, since all suites of a run ask for the same records."""
    return _task(_Settings(json.dumps(config_lib.to_json(config), sort_keys=True), config))


@dataclasses.dataclass(frozen=True)
class _Settings:
    """A config that can be a key: ``text`` says all of it."""

    text: str
    config: Config = dataclasses.field(compare=False)


@functools.lru_cache(maxsize=2)
def _task(settings: _Settings) -> Task[Any, Any]:
    return tasks.from_config(settings.config)


test_split = sources.test  # the clean test images, which are kept, since every suite of images asks for them
