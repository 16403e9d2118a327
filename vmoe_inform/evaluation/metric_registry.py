"""The metrics of labelled images by name: what each is called, which scores it is made of, and its version.

A *score* is one number for each image, made of its logits; scores are kept. A *metric* is one number for a suite, made
of scores. A metric of one's own is one function under one of two decorators, in a module that is imported::

    @of_image("brier", title="Brier score", unit="number", less_is_better=True)
    def brier(logits, labels):
        return np.square(softmax(logits, axis=1) - np.eye(logits.shape[1])[labels]).sum(axis=1)

    @of_scores("overconfidence", title="mean confidence in wrong answers", needs=("hit", "confidence"))
    def overconfidence(hit, confidence):
        return confidence[~hit].mean() if not hit.all() else 0.0

All suites of labelled images then have it. A change of what a function computes takes a new version. Finished
evaluations compute the metric from the scores that they have kept, or say that they are older.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from vmoe_inform import checks
from vmoe_inform.evaluation import metrics
from vmoe_inform.evaluation.paired import Contributions
from vmoe_inform.evaluation.results import SHARE, Scale, Unit
from vmoe_inform.registry import Registry

ScoreFunction: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray | None]
MetricFunction: TypeAlias = Callable[..., float]


@dataclasses.dataclass(frozen=True)
class Metric:
    """One number of a suite.

    Attributes:
      name: key in results.json.
      title: in words; ``{classes}`` becomes the number of classes of the model.
      short_title: where there is little room; empty for the title.
      unit: ``share`` is from 0 to 1 and shown in %, with an interval, as a ``perplexity`` has; ``ratio`` is shown in %
        of another model's.
      less_is_better: as for errors.
      version: counted up when what is computed changes.
      needs: scores that it is made of.
      compute: of these arrays [n], in their order; None where the suite makes the metric by itself.
      is_mean: whether it is the mean of independent images, so that it has a standard error.
    """

    name: str
    title: str
    short_title: str = ""
    unit: Unit = "share"
    less_is_better: bool = False
    version: int = 1
    needs: tuple[str, ...] = ()
    compute: MetricFunction | None = None
    is_mean: bool = False

    @property
    def scale(self) -> Scale | None:
        """How a headline of this metric is read; None for a share, more is better."""
        found = Scale(self.unit, self.less_is_better)
        return None if found == SHARE else found


@dataclasses.dataclass(frozen=True)
class Score:
    """One number of an image.

    Attributes:
      name: key of the kept array.
      compute: logits [n, classes] and labels [n] -> [n], or None where there are too few classes for it.
      dtype: in which it is kept.
      version: counted up when what is computed changes.
    """

    name: str
    compute: ScoreFunction
    dtype: str = "float32"
    version: int = 1


METRICS: Registry[Metric] = Registry("metric")
SCORES: Registry[Score] = Registry("score")

# What evaluations have that do not say which versions they have.
FIRST_SCORES: Mapping[str, int] = dict.fromkeys(("hit", "hit_top5", "nll", "confidence", "log_doubt"), 1)
FIRST_METRICS: Mapping[str, int] = dict.fromkeys(
    (
        *("top1", "top5", "top1_unmasked", "nll", "aurc", "ece", "mean_top1", "mce", "relative_mce", "aupr"),
        *("count_in_distribution", "excluded", "clean_top1", "without_gradient"),
    ),
    1,
)


def score(name: str, *, dtype: str = "float32", version: int = 1) -> Callable[[ScoreFunction], ScoreFunction]:
    """Decorator that registers a score."""

    def add(function: ScoreFunction) -> ScoreFunction:
        SCORES.add(name, Score(name, function, dtype, version))
        return function

    return add


def of_scores(
    name: str,
    *,
    title: str,
    needs: Sequence[str],
    short_title: str = "",
    unit: Unit = "share",
    less_is_better: bool = False,
    version: int = 1,
    is_mean: bool = False,
) -> Callable[[MetricFunction], MetricFunction]:
    """Decorator that registers a metric, a function of the scores that it ``needs``. See :class:`Metric`."""

    def add(function: MetricFunction) -> MetricFunction:
        found = Metric(name, title, short_title, unit, less_is_better, version, tuple(needs), function, is_mean)
        METRICS.add(name, found)
        return function

    return add


def of_image(
    name: str,
    *,
    title: str,
    short_title: str = "",
    unit: Unit = "share",
    less_is_better: bool = False,
    version: int = 1,
) -> Callable[[ScoreFunction], ScoreFunction]:
    """Decorator that registers a score, and its mean over the images as a metric. See :class:`Metric`."""

    def add(function: ScoreFunction) -> ScoreFunction:
        score(name, version=version)(function)
        METRICS.add(name, Metric(name, title, short_title, unit, less_is_better, version, (name,), mean, is_mean=True))
        return function

    return add


def mean(values: np.ndarray) -> float:
    """Mean in float64."""
    return float(values.mean(dtype=np.float64))


score("hit", dtype="bool")(lambda logits, labels: metrics.top_k_hits(logits, labels, 1))
score("hit_top5", dtype="bool")(
    lambda logits, labels: metrics.top_k_hits(logits, labels, 5) if logits.shape[1] > 5 else None
)
score("nll")(metrics.negative_log_likelihoods)
score("confidence")(lambda logits, labels: metrics.max_probability(logits))
score("log_doubt")(lambda logits, labels: metrics.log_doubt(logits))

of_scores("top1", title="top-1 accuracy", needs=("hit",), is_mean=True)(mean)
of_scores("top5", title="top-5 accuracy", needs=("hit_top5",))(mean)
of_scores(
    "top1_unmasked",
    title="the same, over all {classes} classes",
    short_title="over all classes",
    needs=("hit_unmasked",),
    is_mean=True,
)(mean)
of_scores("nll", title="negative log-likelihood", needs=("nll",), unit="nats", less_is_better=True)(mean)
of_scores(
    "aurc",
    title="area under the risk-coverage curve, less is better",
    needs=("hit", "log_doubt"),
    less_is_better=True,
)(lambda hit, log_doubt: metrics.area_under_risk_coverage(hit, -log_doubt))

TOP1, TOP5, UNMASKED, NLL, AURC = (METRICS[name] for name in ("top1", "top5", "top1_unmasked", "nll", "aurc"))


def scores_of(logits: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """All registered scores of these images, as they are kept."""
    found = {name: SCORES[name].compute(logits, labels) for name in SCORES}
    return {name: values.astype(SCORES[name].dtype) for name, values in found.items() if values is not None}


def metrics_of(scores: Mapping[str, np.ndarray]) -> tuple[dict[str, float], dict[str, float]]:
    """All registered metrics that can be made of these scores, and the standard errors of those that are means.

    Raises:
      ValueError: a metric that is not finite, which JSON could not hold.
    """
    values: dict[str, float] = {}
    errors: dict[str, float] = {}
    for metric in map(METRICS.__getitem__, METRICS):
        if metric.compute is None or not set(metric.needs) <= scores.keys():
            continue
        value = float(metric.compute(*(scores[name] for name in metric.needs)))
        if not math.isfinite(value):
            raise checks.error(f"metric {metric.name}", "a finite number", value)
        values[metric.name] = value
        if metric.is_mean:
            errors[metric.name] = metrics.standard_error(scores[metric.needs[0]])
    return values, errors


def contributions_of(scores: Mapping[str, np.ndarray]) -> dict[str, Contributions]:
    """What each image adds to all registered metrics that are means of one of these scores, by their names."""
    found = {}
    for metric in map(METRICS.__getitem__, METRICS):
        if metric.compute is mean and set(metric.needs) <= scores.keys():
            values = scores[metric.needs[0]]
            index = scores.get("index", np.arange(len(values)))
            scale = Scale(metric.unit, metric.less_is_better)
            found[metric.name] = Contributions(index, values, np.ones(len(values)), scale)
    return found


def score_versions() -> dict[str, int]:
    """Versions of all registered scores."""
    return {name: SCORES[name].version for name in SCORES}


def metric_versions() -> dict[str, int]:
    """Versions of all registered metrics."""
    return {name: METRICS[name].version for name in METRICS}
