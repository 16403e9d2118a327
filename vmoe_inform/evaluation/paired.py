"""How a metric differs between two models on the same records, with an interval over the records.

What makes a record hard is the same for both models and cancels in the difference. So its interval is narrower than
those of the two scores. Three kinds of metric have three ways:

- shares of records that are right: McNemar's exact test, and the interval of Bonett and Price;
- other means, and perplexities: Student's t of the records' contributions;
- all else, such as an area under a curve: the bootstrap, which draws records with both models' answers.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from vmoe_inform import checks
from vmoe_inform.evaluation.results import SHARE, Scale, Unit, Value

_LEVEL = 0.95  # of all intervals
_NUM_DRAWS = 1000  # of the bootstrap
_SEED = 0  # of its draws: the same records for all metrics and models

Scores = dict[str, np.ndarray]  # of one set, as suites make them: [n] of its records, [] of the whole set


@dataclasses.dataclass(frozen=True)
class Contributions:
    """A metric as what each record adds to it: sum of values / sum of weights, or for a perplexity exp of that.

    Attributes:
      index: number of each record, each once [n].
      values: [n].
      weights: > 0, such as the tokens of a window [n].
      scale: of the metric.
    """

    index: Int[np.ndarray, " n"]
    values: np.ndarray
    weights: np.ndarray
    scale: Scale = SHARE

    def of(self, index: Int[np.ndarray, " m"]) -> "Contributions":
        """Those of some of the records."""
        order = np.argsort(self.index, kind="stable")
        order = order[np.isin(self.index[order], index)]
        return Contributions(self.index[order], self.values[order], self.weights[order], self.scale)

    @property
    def is_share(self) -> bool:
        """Whether the metric is the share of records that are right."""
        return bool(np.isin(self.values, (0, 1)).all() and (self.weights == 1).all() and self.scale.unit == "share")

    @property
    def value(self) -> float:
        """The metric."""
        mean = float(self.values.sum(dtype=np.float64) / self.weights.sum(dtype=np.float64))
        return math.exp(mean) if self.scale.unit == "perplexity" else mean

    @property
    def influences(self) -> Float[np.ndarray, " n"]:
        """First-order effect of each record on the metric (Cochran 1977, Sec. 2.11: the ratio of two means)."""
        total = self.weights.sum(dtype=np.float64)
        effects = (self.values - self.values.sum(dtype=np.float64) / total * self.weights) / total
        return effects * self.value if self.scale.unit == "perplexity" else effects


@dataclasses.dataclass(frozen=True)
class Difference:
    """A metric of two models on the same records.

    Attributes:
      count: records.
      before, after: the metric of the first and of the second model.
      low, high: 95 % interval of after - before.
      p_value: of the hypothesis that they are the same; None where there is no test.
      gained, lost: records that only the second model, or only the first, gets right; None for other metrics.
      unit, less_is_better: of the metric.
    """

    count: checks.PositiveInt
    before: Value
    after: Value
    low: Value
    high: Value
    p_value: checks.Share | None = None
    gained: checks.NonNegativeInt | None = None
    lost: checks.NonNegativeInt | None = None
    unit: Unit = "share"
    less_is_better: bool = False

    @property
    def value(self) -> float:
        """The metric of the second model minus that of the first."""
        return self.after - self.before


def difference(before: Contributions, after: Contributions) -> Difference:
    """The difference of a metric to which each record adds something.

    Args:
      before: of the first model.
      after: of the second; records that only one of the two has count in neither.

    Raises:
      InputError: fewer than two common records.
    """
    common = np.intersect1d(before.index, after.index)
    _check_count(len(common))
    before, after = before.of(common), after.of(common)
    count, unit = len(common), before.scale.unit
    shared = (unit, before.scale.less_is_better)
    if before.is_share and after.is_share:
        right_before, right_after = before.values.astype(bool), after.values.astype(bool)
        gained, lost = int((right_after & ~right_before).sum()), int((right_before & ~right_after).sum())
        low, high = interval_of_shares(gained, lost, count)
        p_value = mcnemar(gained, lost)
        return Difference(count, before.value, after.value, low, high, p_value, gained, lost, *shared)
    import scipy.special  # not while a run starts, which compares nothing

    effects = after.influences - before.influences
    change = after.value - before.value
    error = math.sqrt(float(np.square(effects).sum()) * count / (count - 1))
    half = float(scipy.special.stdtrit(count - 1, (1 + _LEVEL) / 2)) * error
    p_value = float(2 * scipy.special.stdtr(count - 1, -abs(change) / error)) if error > 0 else float(change == 0)
    return Difference(count, before.value, after.value, change - half, change + half, p_value, None, None, *shared)


def mcnemar(gained: int, lost: int) -> float:
    """P value of McNemar's exact test (1947): each of the records that one model alone gets right is a fair coin.

    Args:
      gained: records that only the second model gets right.
      lost: records that only the first gets right.
    """
    import scipy.stats  # which takes longer to import than JAX

    return float(scipy.stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def interval_of_shares(gained: int, lost: int, count: int) -> tuple[float, float]:
    """95 % interval of (gained - lost) / count: Wald's with one record added to both (Bonett and Price 2012).

    Unlike Wald's own it has a width where no record, or every record, differs.

    Args:
      gained: as for :func:`mcnemar`.
      lost: the same.
      count: records.
    """
    import scipy.special

    up, down = (gained + 1) / (count + 2), (lost + 1) / (count + 2)
    deviations = float(scipy.special.ndtri((1 + _LEVEL) / 2))
    half = deviations * math.sqrt((up + down - (up - down) ** 2) / (count + 2))
    return max(-1.0, up - down - half), min(1.0, up - down + half)


def bootstrap(
    before: Mapping[str, Scores],
    after: Mapping[str, Scores],
    metric: Callable[[Mapping[str, Scores]], float],
    *,
    groups: Sequence[Sequence[str]],
    scale: Scale = SHARE,
) -> Difference:
    """The difference of any metric, with the percentile interval of the paired bootstrap (Efron 1979).

    Args:
      before: scores of each set of a suite, of the first model. Arrays [n, ...] are of its n records; ``index`` numbers
        them, and they are in their order where it is missing. Single numbers are of the whole set.
      after: the same of the second model.
      metric: of such scores.
      groups: names of the sets; those of one group show the same records, which are drawn together.
      scale: of the metric.

    Raises:
      InputError: fewer than two common records in a group, or arrays of a set that are of different lengths.
    """
    before, after = (_common(*pair, groups) for pair in ((before, after), (after, before)))
    random = np.random.default_rng(_SEED)
    known = {name: _index(before[name]) for group in groups for name in group}
    records = [np.unique(np.concatenate([known[name] for name in group])) for group in groups]
    for own in records:
        _check_count(len(own))
    changes = []
    for _ in range(_NUM_DRAWS):
        positions: dict[str, np.ndarray] = {}
        for group, own in zip(groups, records, strict=True):
            drawn = own[random.integers(len(own), size=len(own))]
            positions |= {name: _positions(known[name], drawn) for name in group}
        draws = ({name: _take(of[name], positions[name]) for name in positions} for of in (before, after))
        first, second = map(metric, draws)
        changes.append(second - first)
    low, high = np.quantile(changes, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]).tolist()
    count = sum(map(len, records))
    return Difference(
        count, metric(before), metric(after), low, high, unit=scale.unit, less_is_better=scale.less_is_better
    )


def _check_count(count: int) -> None:
    if count < 2:
        raise checks.error("records that both models answered", "two or more", count)


def _index(scores: Scores) -> Int[np.ndarray, " n"]:
    """Numbers of the records of a set."""
    lengths = {name: len(array) for name, array in scores.items() if array.ndim}
    if len(set(lengths.values())) != 1:
        raise checks.error("scores of a set", "arrays of one length, a value for each record", lengths)
    return scores["index"] if "index" in scores else np.arange(next(iter(lengths.values())))


def _common(
    scores: Mapping[str, Scores], others: Mapping[str, Scores], groups: Sequence[Sequence[str]]
) -> dict[str, Scores]:
    """The scores of the records that both have, in the order of their numbers."""
    found = {}
    for name in (name for group in groups for name in group):
        own = _index(scores[name])
        common = np.intersect1d(own, _index(others[name]))
        found[name] = {**_take(scores[name], _positions(own, common)), "index": common}
    return found


def _positions(index: Int[np.ndarray, " n"], wanted: Int[np.ndarray, " m"]) -> Int[np.ndarray, " _"]:
    """Where the wanted records are that a set has."""
    order = np.argsort(index, kind="stable")
    places = np.searchsorted(index, wanted, sorter=order)
    places = order[np.minimum(places, len(index) - 1)]
    return places[index[places] == wanted]


def _take(scores: Scores, positions: Int[np.ndarray, " m"]) -> dict[str, np.ndarray]:
    """The scores of the records at these positions; what is of the whole set stays."""
    return {name: array[positions] if array.ndim else array for name, array in scores.items()}
