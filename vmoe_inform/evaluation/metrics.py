"""Metrics of a set of predictions, as pure functions on the host: arrays in, shares and nats out, in float64."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from vmoe_inform import checks
from vmoe_inform.evaluation.results import Reliability, RiskCoverage


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


def negative_log_likelihoods(logits: ArrayLike, labels: ArrayLike) -> Float[np.ndarray, " n"]:
    """-log softmax(logits)[label] in nats of each image; args and errors as :func:`top_k_hits`."""
    from scipy.special import log_softmax  # not while a run starts: SciPy takes a fifth of the time of JAX to import

    logits, labels = _checked(logits, labels)
    return -np.take_along_axis(log_softmax(logits, axis=1), labels[:, None], axis=1)[:, 0]


def negative_log_likelihood(logits: ArrayLike, labels: ArrayLike) -> float:
    """Mean of :func:`negative_log_likelihoods`."""
    return float(negative_log_likelihoods(logits, labels).mean())


def max_probability(logits: ArrayLike) -> Float[np.ndarray, " n"]:
    """Confidence of each prediction, the largest softmax probability, from logits [n, classes]."""
    from scipy.special import log_softmax

    return np.exp(log_softmax(np.asarray(logits, np.float64), axis=1).max(axis=1))


def log_doubt(logits: ArrayLike) -> Float[np.ndarray, " n"]:
    """Log of the probability of all classes but the predicted one, log(1 - :func:`max_probability`), of [n, classes].

    It orders predictions as their confidence does, and still does where the confidence is rounded to 1. That happens
    from 17 nats on between the largest logit and the others in float32, from 37 in float64.
    """
    from scipy.special import logsumexp

    logits = np.sort(np.asarray(logits, np.float64), axis=1)
    if logits.shape[1] == 1:  # there is nothing to doubt
        return np.full(len(logits), np.finfo(np.float32).min, np.float64)
    return logsumexp(logits[:, :-1], axis=1) - logsumexp(logits, axis=1)


def _checked_confidences(hits: ArrayLike, confidences: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    hits, confidences = np.asarray(hits, bool), np.asarray(confidences, np.float64)
    if hits.ndim != 1 or not len(hits):
        raise checks.error("hits", "shape [n] with n >= 1", hits.shape)
    if confidences.shape != hits.shape:
        raise checks.error("confidences", f"shape {hits.shape}", confidences.shape)
    if not np.isfinite(confidences).all():
        raise checks.error("confidences", "finite numbers", f"{int((~np.isfinite(confidences)).sum())} others")
    return hits, confidences


def reliability(hits: ArrayLike, confidences: ArrayLike, num_bins: int = 15) -> Reliability:
    """Confidence and accuracy in equal-width bins of the confidence, for a reliability diagram.

    Bin i holds confidences in (i / num_bins, (i + 1) / num_bins] (Guo et al. 2017, arXiv 1706.04599, Sec. 2).

    Args:
      hits: whether each prediction is right, bool [n].
      confidences: its probability, [n].
      num_bins: >= 1.

    Returns:
      of each bin; the means of an empty one are 0.

    Raises:
      ValueError: shapes that do not fit, no predictions, confidences that are not finite, or no bins.
    """
    if num_bins < 1:
        raise checks.error("num_bins", "a number >= 1", num_bins)
    hits, confidences = _checked_confidences(hits, confidences)
    edges = np.arange(num_bins + 1) / num_bins
    bins = np.clip(np.searchsorted(edges, confidences, side="left") - 1, 0, num_bins - 1)
    count = np.bincount(bins, minlength=num_bins)
    of_at_least_one = np.maximum(count, 1)
    return Reliability(
        confidence=tuple((np.bincount(bins, weights=confidences, minlength=num_bins) / of_at_least_one).tolist()),
        accuracy=tuple((np.bincount(bins, weights=hits, minlength=num_bins) / of_at_least_one).tolist()),
        count=tuple(count.tolist()),
        edges=tuple(edges.tolist()),
    )


def calibration_error(diagram: Reliability) -> float:
    """Expected calibration error of a :func:`reliability` diagram: mean |accuracy - confidence| over the images."""
    return float(np.average(np.abs(np.subtract(diagram.accuracy, diagram.confidence)), weights=diagram.count))


def _risks(hits: ArrayLike, confidences: ArrayLike) -> Float[np.ndarray, " n"]:
    """Share of errors among the i most confident predictions, for i = 1 to n.

    Among equal confidences no order is better than another: each counts the mean error of all of them, which gives
    the expectation over their orders.
    """
    hits, confidences = _checked_confidences(hits, confidences)
    _, group, sizes = np.unique(-confidences, return_inverse=True, return_counts=True)
    mean_errors = np.bincount(group, weights=~hits) / sizes
    return np.cumsum(np.repeat(mean_errors, sizes)) / np.arange(1, len(hits) + 1)


def risk_coverage(hits: ArrayLike, confidences: ArrayLike, num_coverages: int = 20) -> RiskCoverage:
    """Share of errors that remains where the model answers only what it is most confident of.

    (Geifman and El-Yaniv 2017, arXiv 1705.08500, Sec. 2: selective risk and coverage.)

    Args:
      hits: as for :func:`reliability`, with the same errors.
      confidences: as there.
      num_coverages: points, at equal distances up to a coverage of 1.

    Returns:
      shares of the predictions, and errors among them, each [num_coverages].
    """
    risks = _risks(hits, confidences)
    parts = np.arange(1, num_coverages + 1)
    answered = -(-parts * len(risks) // num_coverages)  # rounded up: at least one prediction
    return RiskCoverage(tuple((parts / num_coverages).tolist()), tuple(risks[answered - 1].tolist()))


def area_under_risk_coverage(hits: ArrayLike, confidences: ArrayLike) -> float:
    """Mean over the predictions of the share of errors among those at least as confident (AURC).

    Args and errors as :func:`reliability`. A confidence that knows nothing has an area of the whole error.
    """
    return float(_risks(hits, confidences).mean())


def mean_corruption_error(errors: Mapping[str, ArrayLike], reference: Mapping[str, float]) -> float:
    """mCE: errors under corruption as multiples of another model's (arXiv 1903.12261, Sec. 4.1).

    Args:
      errors: corruption -> top-1 errors at all severities.
      reference: corruption -> the other model's mean error over the severities, AlexNet's by convention.

    Returns:
      mean over the corruptions of sum over severities of errors / the same of the reference; 1 is the reference.
    """
    return float(np.mean([np.mean(np.asarray(of_one)) / reference[name] for name, of_one in errors.items()]))


def relative_mean_corruption_error(
    errors: Mapping[str, ArrayLike], clean_error: float, reference: Mapping[str, float], reference_clean_error: float
) -> float:
    """Relative mCE: as :func:`mean_corruption_error`, of what the corruptions add to the errors on clean images."""
    added = [
        (np.mean(np.asarray(of_one)) - clean_error) / (reference[name] - reference_clean_error)
        for name, of_one in errors.items()
    ]
    return float(np.mean(added))


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
    from sklearn.metrics import average_precision_score  # takes a second to import, which no other metric needs

    return float(average_precision_score(positive, scores))


def standard_error(values: ArrayLike) -> float:
    """Standard error of the mean of independent values [n], n >= 1, with the variance of the sample, sum / n."""
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values):
        raise checks.error("values", "shape [n] with n >= 1", values.shape)
    return float(values.std() / np.sqrt(len(values)))


def coefficient_of_variation(load: ArrayLike) -> float:
    """Standard deviation over mean of the experts' loads [E]: 0 if all are alike, sqrt(E - 1) if one expert has all."""
    shares = np.asarray(load, np.float64)
    return float(shares.std() / shares.mean()) if shares.any() else 0.0
