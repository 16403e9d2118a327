"""Objects of no known class among test images: can the confidence tell them apart?

AUPR with the objects as positives and minus the largest probability as the score (Hendrycks et al. 2021, arXiv
1907.07174, Sec. 4).
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from vmoe_inform.config import ImageConfig
from vmoe_inform.data.images.published import PublishedSuite
from vmoe_inform.data.sources import ArrayRecords, Source
from vmoe_inform.evaluation import glyphs, metrics
from vmoe_inform.evaluation.metric_registry import Metric
from vmoe_inform.evaluation.results import SuiteResult
from vmoe_inform.evaluation.suites import _imagenet
from vmoe_inform.evaluation.suites.base import (
    TEST_SET,
    NotAvailable,
    Predictions,
    RecordSet,
    Scores,
    Suite,
    test_split,
)
from vmoe_inform.evaluation.suites.registry import register

PUBLISHED = PublishedSuite("ImageNet-O", ("imagenet-o",), None, 2_000, subset="o")


@register(
    "o",
    title="O: spotting objects of no known class",
    short_title="O, other objects",
    metric=Metric("aupr", "precision-recall area"),
    details=(Metric("count_in_distribution", "images of known classes to tell them from", unit="images"),),
    published=PUBLISHED,
)
def of_no_class(config: ImageConfig) -> Suite:
    """ImageNet-O; for digits and idx files, letters."""
    return _imagenet_o(config) if _imagenet.has_imagenet_classes(config) else _letters(config)


def _imagenet_o(config: ImageConfig) -> Suite:
    """Against test images of the 200 classes that resemble the objects.

    The confidence is the largest probability of the softmax over those classes' logits.
    """
    source, classes = _imagenet.load(PUBLISHED, config), _imagenet.known_classes(PUBLISHED, config)

    def score(set_name: str, predictions: Predictions) -> Scores:
        # Labels of the outsiders mean nothing; of the test images those of the 200 classes count.
        chosen = (
            np.isin(predictions.labels, classes) if set_name == TEST_SET else np.ones(len(predictions.labels), bool)
        )
        logits = predictions.logits[chosen][:, classes]
        return {
            "index": predictions.indices[chosen].astype(np.int32),
            "log_doubt": metrics.log_doubt(logits).astype(np.float32),
            "skipped": np.asarray(predictions.skipped),
        }

    def summarize(scores: Mapping[str, Scores]) -> SuiteResult:
        return dataclasses.replace(told_apart(scores["o"], scores[TEST_SET]), classes=len(classes))

    sets = {TEST_SET: RecordSet(lambda: test_split(config.data)), "o": RecordSet(lambda: source)}
    return Suite("o", sets, score, summarize, source.origin)


def _letters(config: ImageConfig) -> Suite:
    if config.data.source not in ("digits", "idx"):
        raise NotAvailable(
            f"source {config.data.source!r} has no objects of no class built in: it would need a folder of images "
            "that show none of its classes, as ImageNet-O is for ImageNet"
        )
    test = test_split(config.data)

    def letters() -> Source:
        # At the resolution of the test images, lest sharpness give the letters away. Their label 0 means nothing.
        height, width, _ = np.shape(test.records[0]["image"])
        images, _ = glyphs.glyphs(glyphs.LETTERS, max(height, width))
        return Source(ArrayRecords(images, np.zeros(len(images), np.int32)), test.class_names)

    def score(_: str, predictions: Predictions) -> Scores:
        log_doubt = metrics.log_doubt(predictions.logits).astype(np.float32)
        return {"log_doubt": log_doubt, "skipped": np.asarray(predictions.skipped)}

    def summarize(scores: Mapping[str, Scores]) -> SuiteResult:
        return told_apart(scores["o"], scores[TEST_SET])

    return Suite("o", {TEST_SET: RecordSet(lambda: test), "o": RecordSet(letters)}, score, summarize)


def told_apart(outside: Scores, inside: Scores) -> SuiteResult:
    """How well the confidence tells objects of no known class from images of known ones, as for ImageNet-O.

    It is the AUPR with the former as positives, and minus the largest probability as the score (arXiv 1907.07174, Sec.
    4). The score has the form of ``log_doubt``, in the same order, without ties where probabilities are rounded to 1.
    An uninformative score has an AUPR of count / (count + count_in_distribution).

    Args:
      outside: scores of objects of no class, with ``log_doubt`` [n] and ``skipped``.
      inside: the same of images of known classes.
    """
    doubts = np.concatenate([inside["log_doubt"], outside["log_doubt"]])
    positive = np.arange(len(doubts)) >= len(inside["log_doubt"])
    return SuiteResult(
        count=len(outside["log_doubt"]),
        metrics={
            "aupr": metrics.area_under_precision_recall(doubts, positive),
            "count_in_distribution": len(inside["log_doubt"]),
        },
        headline="aupr",
        skipped=int(outside["skipped"]) + int(inside["skipped"]),
    )
