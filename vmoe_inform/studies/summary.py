"""The statistics of a study: measures of runs, and how they differ from those of one router, seed by seed.

Routers are trained with the same seeds. So a seed's initial parameters and order of the data are the same for both
sides of a comparison, and cancel in the difference. Intervals are those of Student's t over the seeds,
with one degree of freedom less than seeds. They are not corrected for their number; p-values are, table by table.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import special

from vmoe_inform import checks
from vmoe_inform.evaluation.headlines import headline
from vmoe_inform.evaluation.metrics import coefficient_of_variation
from vmoe_inform.evaluation.suites import kind
from vmoe_inform.studies import significance
from vmoe_inform.studies.results import RunResult

LEVEL = 0.95
ALL_LAYERS = "mean of layers"  # in the place of a block's name

Measures = dict[str, float]  # by name, see measures_of


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval.

    Attributes:
      mean: over the seeds.
      low, high: bounds.
    """

    mean: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    def excludes(self, value: float) -> bool:
        """Whether ``value`` lies outside. An interval without width excludes nothing: values that are equal for all
        seeds are too coarse to state an uncertainty."""
        return self.low < self.high and not self.low <= value <= self.high


@dataclasses.dataclass(frozen=True)
class PairedInterval(Interval):
    """How a router differs from the one compared with; all are None of values that are equal for all seeds.

    Attributes:
      p_value: of the paired t test, two-sided.
      corrected_p_value: by Holm, for all effects of the same table; None, too, as long as the others are not known.
      detectable: the smallest true effect that as many seeds would show in 80 % of studies.
    """

    p_value: float | None = None
    corrected_p_value: float | None = None
    detectable: float | None = None

    @property
    def survives(self) -> bool:
        """Whether it is clear of no effect after the correction."""
        return self.corrected_p_value is not None and self.corrected_p_value <= significance.LEVEL


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One measure of one router.

    Attributes:
      mean: over the seeds.
      difference: to the same seed's run of the router compared with.
      ratio: to the same; None if that is 0 for some seed.
    """

    mean: Interval
    difference: PairedInterval
    ratio: PairedInterval | None


def t_interval(values: Sequence[float], *, level: float = LEVEL) -> Interval:
    """Mean and interval of independent values: mean -+ t s / sqrt(n), with s the standard deviation of n - 1.

    Args:
      values: one for each seed.
      level: share of such intervals that hold the true mean.

    Raises:
      ValueError: fewer than two values, or one that is not finite.
    """
    array = np.asarray(values, float)
    if array.ndim != 1 or len(array) < 2:
        raise checks.error("values", "two or more numbers", list(values))
    if not np.isfinite(array).all():
        raise checks.error("values", "finite numbers", list(values))
    mean = float(array.mean())
    half = float(special.stdtrit(len(array) - 1, (1 + level) / 2) * array.std(ddof=1) / math.sqrt(len(array)))
    return Interval(mean, mean - half, mean + half)


def compare(values: Sequence[float], reference: Sequence[float]) -> Comparison:
    """Compares a measure of one router with that of another, paired by seed.

    Raises:
      ValueError: different numbers of values, and as :func:`t_interval`.
    """
    checks.shape("values", (len(values),), (len(reference),))
    own, other = np.asarray(values, float), np.asarray(reference, float)
    ratio = _paired(list(own / other), equal_at=1.0) if (other != 0).all() else None
    return Comparison(t_interval(list(own)), _paired(list(own - other), equal_at=0.0), ratio)


def _paired(values: Sequence[float], *, equal_at: float) -> PairedInterval:
    interval = t_interval(values)
    return PairedInterval(
        interval.mean,
        interval.low,
        interval.high,
        p_value=significance.p_value(values, equal_at=equal_at),
        detectable=significance.detectable(values),
    )


def measures_of(result: RunResult) -> Measures:
    """The measures of one run by name.

    - ``score/<suite>``: the suite's headline at the end.
    - ``metric/<suite>/<metric>``: at the end, each metric that has a row of its own in tables.
    - ``entropy/<block>`` (nats), ``load_cv/<block>``, ``effective_neighbours/<block>``, ``dropped/<block>`` and
      ``collapsed/<block>`` (shares), and ``margin/<block>``: of each MoE layer at the end.
    - ``fluctuation/<block>``: share of the tokens whose set of experts changed between the two.
    - ``entropy/mean of layers`` and alike: of several MoE layers.

    Args:
      result: of a run.
    """
    measures: Measures = {f"score/{suite}": headline(found).value for suite, found in result.last.suites.items()}
    for suite, found in result.last.suites.items():
        shown = [metric.name for metric in kind(suite).rows if metric.name in found.metrics]
        measures |= {f"metric/{suite}/{name}": found.metrics[name] for name in shown}
    for block, routing in result.last.routing.items():
        measures[f"entropy/{block}"] = routing.entropy
        if routing.effective_neighbours is not None:
            measures[f"effective_neighbours/{block}"] = routing.effective_neighbours
        measures[f"dropped/{block}"] = routing.dropped
        measures[f"load_cv/{block}"] = coefficient_of_variation(routing.load)
        if routing.collapsed is not None:
            measures[f"collapsed/{block}"] = routing.collapsed
        if routing.margin is not None:
            measures[f"margin/{block}"] = routing.margin
    for block, rate in result.fluctuation.items():
        measures[f"fluctuation/{block}"] = rate
    return measures | _means(measures, list(result.last.routing))


def _means(measures: Measures, blocks: Sequence[str]) -> Measures:
    """Means over the MoE layers, of what is known of all of several."""
    kinds = dict.fromkeys(name.partition("/")[0] for name in measures if name.partition("/")[2] in blocks)
    of_layers = {kind: [measures.get(f"{kind}/{block}") for block in blocks] for kind in kinds}
    return {
        f"{kind}/{ALL_LAYERS}": math.fsum(value for value in values if value is not None) / len(values)
        for kind, values in of_layers.items()
        if len(blocks) > 1 and None not in values
    }


def summarize(measures: Mapping[str, Sequence[Measures]], against: str) -> dict[str, dict[str, Comparison]]:
    """Compares every measure of every router with that of one.

    Args:
      measures: by router, one for each seed, in the same order of seeds.
      against: the router compared with; of its own differences all are 0.

    Returns:
      by router and name of the measure; what a router or ``against`` has not for all seeds is left out.

    Raises:
      ValueError: as :func:`compare`.
    """
    found = {
        router: {
            name: compare([own[name] for own in of_seeds], [own[name] for own in measures[against]])
            for name in of_seeds[0]
            if all(name in own for own in (*of_seeds, *measures[against]))
        }
        for router, of_seeds in measures.items()
    }
    return _corrected(found)


def table_of(measure: str) -> str:
    """The table that shows a measure, for all of whose effects p-values are corrected: the scores, or a MoE layer."""
    kind, _, rest = measure.partition("/")
    if kind == "score":
        return kind
    return measure.rpartition("/")[0] if kind == "metric" else rest


def _corrected(found: Mapping[str, Mapping[str, Comparison]]) -> dict[str, dict[str, Comparison]]:
    """With p-values that are corrected within each table, its ratios included."""
    tables: dict[str, dict[tuple[str, str, str], float]] = {}
    for router, comparisons in found.items():
        for name, comparison in comparisons.items():
            for field, effect in (("difference", comparison.difference), ("ratio", comparison.ratio)):
                if effect is not None and effect.p_value is not None and is_shown(name, field):
                    tables.setdefault(table_of(name), {})[router, name, field] = effect.p_value
    corrected = {key: value for of_table in tables.values() for key, value in significance.holm(of_table).items()}

    def of_router(router: str, name: str, comparison: Comparison) -> Comparison:
        ratio = comparison.ratio
        return Comparison(
            comparison.mean,
            dataclasses.replace(comparison.difference, corrected_p_value=corrected.get((router, name, "difference"))),
            ratio and dataclasses.replace(ratio, corrected_p_value=corrected.get((router, name, "ratio"))),
        )

    return {
        router: {name: of_router(router, name, comparison) for name, comparison in comparisons.items()}
        for router, comparisons in found.items()
    }


def is_shown(measure: str, field: str) -> bool:
    """Whether tables show the ``difference`` or the ``ratio`` of a measure: ratios are shown of entropies."""
    return field == "difference" or measure.startswith("entropy/")


def overhead(cost: Mapping[str, Mapping[str, float]], against: str) -> dict[str, dict[str, float]]:
    """Cost of each router as a ratio to that of one, minus 1.

    Args:
      cost: flops by router and by what they are for.
      against: the router compared with.
    """
    return {
        router: {name: flops / cost[against][name] - 1 for name, flops in of_router.items()}
        for router, of_router in cost.items()
    }
