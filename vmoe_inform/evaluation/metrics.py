"""Figures of a set of predictions, as pure functions on the host: arrays in, shares and nats out, in float64."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from scipy.special import log_softmax
from sklearn.metrics import average_precision_score

from vmoe_inform import checks


def _checked(logits: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """The logits in float64, the labels as integers; both on the host."""
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    if logits.ndim != 2 or 0 in logits.shape:
        raise checks.error("logits", "shape [images, classes] with at least one of each", logits.shape)
    if labels.shape != logits.shape[:1]:
        raise checks.error("labels", f"shape {logits.shape[:1]}", labels.shape)
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise checks.error("labels", f"0 to {logits.shape[1] - 1}", (int(labels.min()), int(labels.max())))
    if not np.isfinite(logits).all():
        raise checks.error("logits", "finite numbers", f"{int((~np.isfinite(logits)).sum())} others")
    return logits, labels


def top_k_hits(logits: ArrayLike, labels: ArrayLike, k: int) -> Bool[np.ndarray, " n"]:
    """Whether the label is among the k largest logits; of equal logits the lower class comes first, as in argmax.

    Args:
      logits: [n, classes].
      labels: integers [n].
      k: 1 to the number of classes.

    Raises:
      ValueError: shapes that do not fit, labels out of range, logits that are not finite, or k out of range.
    """
    logits, labels = _checked(logits, labels)
    num_classes = logits.shape[1]
    if not 1 <= k <= num_classes:
        raise checks.error("k", f"1 to {num_classes} classes", k)
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    ahead = (logits > own) | ((logits == own) & (np.arange(num_classes) < labels[:, None]))
    return ahead.sum(axis=1) < k


def top_k_accuracy(logits: ArrayLike, labels: ArrayLike, k: int) -> float:
    """Share of images whose label is among the k largest logits; args and errors as :func:`top_k_hits`."""
    return float(top_k_hits(logits, labels, k).mean())


def negative_log_likelihood(logits: ArrayLike, labels: ArrayLike) -> float:
    """Mean of -log softmax(logits)[label] in nats; args and errors as :func:`top_k_hits`."""
    logits, labels = _checked(logits, labels)
    return float(-np.take_along_axis(log_softmax(logits, axis=1), labels[:, None], axis=1).mean())


def max_probability(logits: ArrayLike) -> Float[np.ndarray, " n"]:
    """Confidence of each prediction, the largest softmax probability, from logits [n, classes]."""
    return np.exp(log_softmax(np.asarray(logits, np.float64), axis=1).max(axis=1))


def reliability(logits: ArrayLike, labels: ArrayLike, num_bins: int = 15) -> dict[str, list[float] | list[int]]:
    """Confidence and accuracy in equal-width bins of the confidence, for a reliability diagram.

    Bin i holds confidences in (i / num_bins, (i + 1) / num_bins] (Guo et al. 2017, arXiv 1706.04599, Sec. 2).

    Args:
      logits, labels: as for :func:`top_k_hits`, with the same errors.
      num_bins: >= 1.

    Returns:
      {"edges": [num_bins + 1], "count", "accuracy", "confidence": [num_bins]}; the means of an empty bin are 0.
    """
    if num_bins < 1:
        raise checks.error("num_bins", "a number >= 1", num_bins)
    hits = top_k_hits(logits, labels, 1)
    confidences = max_probability(logits)
    edges = np.arange(num_bins + 1) / num_bins
    bins = np.clip(np.searchsorted(edges, confidences, side="left") - 1, 0, num_bins - 1)
    count = np.bincount(bins, minlength=num_bins)
    of_at_least_one = np.maximum(count, 1)
    return {
        "edges": edges.tolist(),
        "count": count.tolist(),
        "accuracy": (np.bincount(bins, weights=hits, minlength=num_bins) / of_at_least_one).tolist(),
        "confidence": (np.bincount(bins, weights=confidences, minlength=num_bins) / of_at_least_one).tolist(),
    }


def calibration_error(diagram: Mapping[str, list[float] | list[int]]) -> float:
    """Expected calibration error of a :func:`reliability` diagram: mean |accuracy - confidence| over the images."""
    count, accuracy, confidence = (np.asarray(diagram[name]) for name in ("count", "accuracy", "confidence"))
    return float(np.average(np.abs(accuracy - confidence), weights=count))


def expected_calibration_error(logits: ArrayLike, labels: ArrayLike, num_bins: int = 15) -> float:
    """ECE with equal-width bins of the largest probability (arXiv 1706.04599, Eq. 3); args as :func:`reliability`."""
    return calibration_error(reliability(logits, labels, num_bins))


def area_under_precision_recall(scores: ArrayLike, positive: ArrayLike) -> float:
    """AUPR as average precision: the mean precision at each positive, in the order of falling score.

    Args:
      scores: [n], higher for what looks positive.
      positive: bool [n].

    Raises:
      ValueError: shapes that do not fit, scores that are not finite, or nothing positive or nothing negative.
    """
    scores, positive = np.asarray(scores, np.float64), np.asarray(positive, bool)
    if scores.ndim != 1 or positive.shape != scores.shape:
        raise checks.error("positive", f"the shape of the scores, {scores.shape}, one-dimensional", positive.shape)
    if not np.isfinite(scores).all():
        raise checks.error("scores", "finite numbers", f"{int((~np.isfinite(scores)).sum())} others")
    if positive.all() or not positive.any():
        raise checks.error("positive", "some positive and some negative items", f"{int(positive.sum())} positive")
    return float(average_precision_score(positive, scores))


def standard_error(values: ArrayLike) -> float:
    """Standard error of the mean of independent values [n], n >= 1, with the variance of the sample, sum / n."""
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values):
        raise checks.error("values", "shape [n] with n >= 1", values.shape)
    return float(values.std() / np.sqrt(len(values)))
