"""Evaluation suites: which sets of images a suite predicts, and what it says about the predictions.

A suite works in two stages, both pure. ``score`` makes a few numbers for each image of the predictions for one set:
they are all that is kept of these, small enough to be kept for every set. ``summarize`` makes the suite's figures of
the scores of all sets. Every figure is a share from 0 to 1, except ``nll`` in nats and the errors relative to AlexNet.

Suites are registered by name for the classes that they are about: see families.py, which loads them.
"""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int

from vmoe_inform import checks, suite_kinds
from vmoe_inform.config import Config, DataConfig
from vmoe_inform.data import sources
from vmoe_inform.data.images import label_sets
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation import metrics
from vmoe_inform.evaluation.adversarial import Attack
from vmoe_inform.registry import Registry

Entry = dict[str, Any]  # of results.json
Scores = dict[str, np.ndarray]  # arrays [n], one value an image; "skipped" is a number

CLEAN = "clean"  # the set of all test images as they are, which several suites look at
_NUM_WORST_CLASSES = 10


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

    def predict(self, source: Source, *, crop: float | None = None) -> Predictions:
        """Predictions for images as they are; ``crop`` replaces ``data.evaluation_crop``."""
        ...

    def predict_attacked(self, source: Source, attack: Attack) -> AttackedPredictions:
        """Predictions for images that are changed so that the model mistakes them."""
        ...

    def features(self, source: Source) -> Features:
        """What the model's head sees of each image."""
        ...


def predict_as_they_are(model: TrainedModel, source: Source) -> Predictions:
    """Predictions for images as ``data.evaluation_crop`` shows them."""
    return model.predict(source)


def predict_whole(model: TrainedModel, source: Source) -> Predictions:
    """Predictions for images that were cropped when the set was made."""
    return model.predict(source, crop=1.0)


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
      summarize: scores of all sets, by their names -> the suite's figures.
      origin: of the images, as sources state it.
      made_from: the images that the figures depend on, from which the suite is known again; None: all sets.
    """

    name: str
    sets: Mapping[str, ImageSet]
    score: Callable[[str, Predictions], Scores]
    summarize: Callable[[Mapping[str, Scores]], Entry]
    origin: str = ""
    made_from: Callable[[], Sequence[Source]] | None = None

    def images(self) -> Sequence[Source]:
        """Sets from which the suite is known again; cheap where its sets are many or generated."""
        return [image_set.load() for image_set in self.sets.values()] if self.made_from is None else self.made_from()

    def entry(self, scores: Mapping[str, Scores]) -> Entry:
        """The suite's entry of ``results.json``: its figures, and where its images are from."""
        return self.summarize(scores) | ({"origin": self.origin} if self.origin else {})


SuiteFunction = Callable[[Config], Suite]


class SuiteRegistry(Registry[SuiteFunction]):
    """Suites by name; configs and command lines know those that are registered."""

    def add(self, name: str, entry: SuiteFunction) -> SuiteFunction:
        suite_kinds.register(name)
        return super().add(name, entry)


# A suite of the first registry is for any data set, one of the others for data sets of such classes.
SUITES = SuiteRegistry("suite")
IMAGENET_SUITES = SuiteRegistry("suite for ImageNet's classes")
MINI_SUITES = SuiteRegistry("suite for other classes")


@functools.lru_cache(maxsize=1)
def test_split(data: DataConfig) -> Source:
    """The clean test images. Kept, since every suite asks for them and 50,000 files take a while to list."""
    return sources.load(data, data.test_split)


def accuracy_scores(predictions: Predictions, classes: Int[np.ndarray, " k"] | None = None) -> Scores:
    """What is kept of predictions to tell accuracy and confidence from: about 27 bytes an image.

    Args:
      predictions: of one set.
      classes: labels, ascending; only their logits are looked at (masked), for the probabilities too. None: all.

    Returns:
      ``index``, ``label``, ``predicted`` int32, ``hit``, ``hit_top5`` (with more than five classes) and, where logits
      are masked, ``hit_unmasked`` bool, ``nll``, ``confidence`` and ``log_doubt`` float32, all [n]; ``skipped`` [].
    """
    logits, labels = predictions.logits, predictions.labels
    unmasked = {}
    columns = np.arange(logits.shape[1]) if classes is None else classes
    if classes is not None:
        if not np.isin(labels, classes).all():
            raise checks.error("labels", f"among the suite's {len(classes)} classes", np.setdiff1d(labels, classes))
        unmasked = {"hit_unmasked": metrics.top_k_hits(logits, labels, 1)}
        logits, labels = logits[:, columns], np.searchsorted(columns, labels)
    top5 = {"hit_top5": metrics.top_k_hits(logits, labels, 5)} if logits.shape[1] > 5 else {}
    return {
        "index": predictions.indices.astype(np.int32),
        "label": predictions.labels.astype(np.int32),
        "predicted": columns[np.argmax(logits, axis=1)].astype(np.int32),
        "hit": metrics.top_k_hits(logits, labels, 1),
        **top5,
        **unmasked,
        "nll": metrics.negative_log_likelihoods(logits, labels).astype(np.float32),
        "confidence": metrics.max_probability(logits).astype(np.float32),
        "log_doubt": metrics.log_doubt(logits).astype(np.float32),
        "skipped": np.asarray(predictions.skipped),
    }


def accuracy(scores: Scores, class_names: Sequence[str]) -> Entry:
    """Figures of :func:`accuracy_scores`, with the standard error of each share.

    Args:
      scores: of one set. Without ``nll`` (several labels are right) there is none.
      class_names: of the labels.
    """
    hits, ranks = scores["hit"], -scores["log_doubt"]
    entry: Entry = {"top1": float(hits.mean()), "top1_standard_error": metrics.standard_error(hits)}
    if "hit_top5" in scores:
        entry["top5"] = float(scores["hit_top5"].mean())
    if "hit_unmasked" in scores:
        entry["top1_unmasked"] = float(scores["hit_unmasked"].mean())
        entry["top1_unmasked_standard_error"] = metrics.standard_error(scores["hit_unmasked"])
    if "nll" in scores:
        entry["nll"] = float(scores["nll"].mean(dtype=np.float64))
    return {
        **entry,
        "risk_coverage": metrics.risk_coverage(hits, ranks),
        "aurc": metrics.area_under_risk_coverage(hits, ranks),
        "worst_classes": worst_classes(scores["label"], hits, class_names),
        "count": len(hits),
        "skipped": int(scores["skipped"]),
    }


def worst_classes(labels: np.ndarray, hits: np.ndarray, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """The ten classes of lowest accuracy among those with images, the worst first; of equal ones the larger first."""
    count = np.bincount(labels, minlength=len(class_names))
    top1 = np.bincount(labels, weights=hits, minlength=len(class_names)) / np.maximum(count, 1)
    order = sorted(map(int, np.flatnonzero(count)), key=lambda label: (top1[label], -count[label]))
    return [
        {
            "class": class_names[label],
            "title": label_sets.title(class_names[label]),
            "top1": float(top1[label]),
            "count": int(count[label]),
        }
        for label in order[:_NUM_WORST_CLASSES]
    ]


def accuracy_suite(name: str, source: Source, classes: Int[np.ndarray, " k"] | None = None) -> Suite:
    """A suite of one set of labelled images.

    Args:
      name: of the suite and its set.
      source: the images.
      classes: labels that are told apart, ascending; None: all.
    """

    def summarize(scores: Mapping[str, Scores]) -> Entry:
        masked = {} if classes is None else {"classes": len(classes)}
        return accuracy(scores[name], source.class_names) | masked

    return Suite(
        name,
        {name: ImageSet(lambda: source)},
        lambda _, predictions: accuracy_scores(predictions, classes),
        summarize,
        source.origin,
    )


@SUITES.register("clean")
def clean(config: Config) -> Suite:
    """The test split: accuracy and calibration, with the bins of the reliability diagram."""
    source = test_split(config.data)

    def summarize(scores: Mapping[str, Scores]) -> Entry:
        own = scores[CLEAN]
        diagram = metrics.reliability(own["hit"], own["confidence"], config.evaluation.ece_bins)
        figures = accuracy(own, source.class_names)
        return {**figures, "ece": metrics.calibration_error(diagram), "reliability": diagram}

    return dataclasses.replace(accuracy_suite(CLEAN, source), summarize=summarize)


def unknown_objects(outside: Scores, inside: Scores) -> Entry:
    """How well the confidence tells objects of no known class from images of known ones, as for ImageNet-O.

    AUPR with the former as positives and minus the largest probability as the score (arXiv 1907.07174, Sec. 4), in the
    form of ``log_doubt``, which has the same order and no ties where probabilities are rounded to 1. A score that knows
    nothing has an AUPR of count / (count + count_in_distribution).

    Args:
      outside: scores of objects of no class, with ``log_doubt`` [n] and ``skipped``.
      inside: the same of images of known classes.
    """
    doubts = np.concatenate([inside["log_doubt"], outside["log_doubt"]])
    positive = np.arange(len(doubts)) >= len(inside["log_doubt"])
    return {
        "aupr": metrics.area_under_precision_recall(doubts, positive),
        "count": len(outside["log_doubt"]),
        "count_in_distribution": len(inside["log_doubt"]),
        "skipped": int(outside["skipped"]) + int(inside["skipped"]),
    }
