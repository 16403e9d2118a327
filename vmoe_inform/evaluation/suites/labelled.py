"""Accuracy on labelled images, for all suites that measure it: scores of each image, and metrics of the scores."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from vmoe_inform import checks
from vmoe_inform.data.images import label_sets
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation import metrics
from vmoe_inform.evaluation.metric_registry import (
    AURC,
    NLL,
    TOP5,
    metric_versions,
    metrics_of,
    score_versions,
    scores_of,
)
from vmoe_inform.evaluation.results import SuiteResult, WorstClass
from vmoe_inform.evaluation.suites.base import Predictions, RecordSet, Scores, Suite

DETAILS = (TOP5, NLL, AURC)

_NUM_WORST_CLASSES = 10


def accuracy_scores(predictions: Predictions, classes: Int[np.ndarray, " k"] | None = None) -> Scores:
    """What is kept of predictions to tell accuracy and confidence from: about 27 bytes an image.

    Args:
      predictions: of one set.
      classes: labels, ascending; only their logits are looked at (masked), for the probabilities too. None: all.

    Returns:
      ``index``, ``label``, ``predicted`` int32, all registered scores and, where logits are masked, ``hit_unmasked``
      bool, all [n]; ``skipped`` [].
    """
    logits, labels = predictions.logits, predictions.labels
    shared = {
        "index": predictions.indices.astype(np.int32),
        "label": labels.astype(np.int32),
        "skipped": np.asarray(predictions.skipped),
    }
    if classes is None:
        return shared | {"predicted": np.argmax(logits, axis=1).astype(np.int32), **scores_of(logits, labels)}
    if not np.isin(labels, classes).all():
        raise checks.error("labels", f"among the suite's {len(classes)} classes", np.setdiff1d(labels, classes))
    masked = logits[:, classes]
    return shared | {
        "predicted": classes[np.argmax(masked, axis=1)].astype(np.int32),
        **scores_of(masked, np.searchsorted(classes, labels)),
        "hit_unmasked": metrics.top_k_hits(logits, labels, 1),
    }


def accuracy(scores: Scores, class_names: Sequence[str], *, also: Mapping[str, float] | None = None) -> SuiteResult:
    """All registered metrics that can be made of the scores, curves and the worst classes.

    Args:
      scores: of one set, ``hit``, ``log_doubt``, ``label`` and ``skipped`` among them.
      class_names: of the labels.
      also: the suite's own metrics.
    """
    hits, ranks = scores["hit"], -scores["log_doubt"]
    values, errors = metrics_of(scores)
    return SuiteResult(
        count=len(hits),
        metrics={**values, **(also or {})},
        standard_errors=errors,
        skipped=int(scores["skipped"]),
        risk_coverage=metrics.risk_coverage(hits, ranks),
        worst_classes=worst_classes(scores["label"], hits, class_names),
    )


def worst_classes(labels: np.ndarray, hits: np.ndarray, class_names: Sequence[str]) -> tuple[WorstClass, ...]:
    """The ten classes of lowest accuracy among those with images, the worst first; of equal ones the larger first."""
    count = np.bincount(labels, minlength=len(class_names))
    top1 = np.bincount(labels, weights=hits, minlength=len(class_names)) / np.maximum(count, 1)
    order = sorted(map(int, np.flatnonzero(count)), key=lambda label: (top1[label], -count[label]))
    return tuple(
        WorstClass(
            name=class_names[label],
            top1=float(top1[label]),
            count=int(count[label]),
            title=label_sets.title(class_names[label]),
        )
        for label in order[:_NUM_WORST_CLASSES]
    )


def accuracy_suite(name: str, source: Source, classes: Int[np.ndarray, " k"] | None = None) -> Suite:
    """A suite of one set of labelled images.

    Args:
      name: of the suite and its set.
      source: the images.
      classes: labels that are told apart, ascending; None: all.
    """

    def summarize(scores: Mapping[str, Scores]) -> SuiteResult:
        found = accuracy(scores[name], source.class_names)
        return found if classes is None else dataclasses.replace(found, classes=len(classes))

    return Suite(
        name,
        {name: RecordSet(lambda: source)},
        lambda _, predictions: accuracy_scores(predictions, classes),
        summarize,
        source.origin,
        metric_versions=metric_versions(),
        score_versions=score_versions(),
    )
