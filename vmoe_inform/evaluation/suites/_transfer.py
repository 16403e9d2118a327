"""Shared code of the suites of linear classifiers. The features are what the head sees; the model learns nothing."""

import numpy as np

from vmoe_inform.config import ImageConfig
from vmoe_inform.data import sources
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation import metrics
from vmoe_inform.evaluation.results import SuiteResult
from vmoe_inform.evaluation.suites.base import Predictions, Scores, test_split


def both_splits(config: ImageConfig) -> list[Source]:
    """Training and test split of a classifier."""
    return [sources.training(config.data), test_split(config.data)]


def hit_scores(_: str, predictions: Predictions) -> Scores:
    """Whether the largest value is the label's: the values are no model's logits, and their softmax means nothing."""
    predicted = np.argmax(predictions.logits, axis=1)
    return {
        "index": predictions.indices.astype(np.int32),
        "label": predictions.labels.astype(np.int32),
        "predicted": predicted.astype(np.int32),
        "hit": predicted == predictions.labels,
        "skipped": np.asarray(predictions.skipped),
    }


def hit_accuracy(scores: Scores) -> SuiteResult:
    hits = scores["hit"]
    return SuiteResult(
        count=len(hits),
        metrics={"top1": float(hits.mean())},
        standard_errors={"top1": metrics.standard_error(hits)},
        skipped=int(scores["skipped"]),
    )
