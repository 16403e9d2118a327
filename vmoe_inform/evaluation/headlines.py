"""The one metric of each suite that a reader sees first, with how sure it is."""

import dataclasses
import math
from collections.abc import Iterable, Mapping

from vmoe_inform import checks
from vmoe_inform.evaluation import suites as suites_lib
from vmoe_inform.evaluation.results import SHARE, Results, SuiteResult, Unit

_DEVIATIONS = 1.96  # half width of a 95 % interval in standard deviations
_LARGEST_EXPONENT = 200.0  # whose power is finite, also times the largest perplexity


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number that a metric says of records, and how sure it is.

    Attributes:
      value: a share between 0 and 1, or a perplexity.
      count: records it is worked out from; for O those of no known class.
      low, high: 95 % interval.
      unit: of the value.
    """

    value: float
    count: int
    low: float
    high: float
    unit: Unit = "share"


def suites_of(results: Mapping[str, Results]) -> list[str]:
    """Names of all suites of all runs, also of those that are missing here, in the order in which they are shown."""
    return in_order(suite for result in results.values() for suite in (*result.suites, *result.missing))


def in_order(found: Iterable[str]) -> list[str]:
    """Suites in the order in which they are shown, each once; those that are not registered come last."""
    known, names = suites_lib.names(), dict.fromkeys(found)
    return [suite for suite in known if suite in names] + [suite for suite in names if suite not in known]


def headline(result: SuiteResult) -> Estimate:
    """The headline of a suite."""
    return with_interval(result, result.headline, (result.scale or SHARE).unit)


def with_interval(result: SuiteResult, metric: str, unit: Unit = "share") -> Estimate:
    """The metric of a suite, with its interval.

    The interval of a share treats the records as drawn at random. Some results have a standard error, as C over images,
    whose corrupted versions are no independent draws. Then the interval is that of the number of independent draws with
    this error (Kish's effective sample size). Otherwise each image counts as one draw. For an area under the
    precision-recall curve that is the binomial interval over the positives (Boyd, Eng and Page 2013). Any other number
    has the normal interval of its standard error, a perplexity that of its logarithm.

    Args:
      result: of a suite.
      metric: one of its metrics.
      unit: of the metric.
    """
    value, error = result.metrics[metric], result.standard_errors.get(metric, 0.0)
    if unit == "perplexity":
        factor = math.exp(min(_DEVIATIONS * error / value, _LARGEST_EXPONENT))
        return Estimate(value, result.count, value / factor, value * factor, unit)
    if unit != "share":
        return Estimate(value, result.count, value - _DEVIATIONS * error, value + _DEVIATIONS * error, unit)
    draws = value * (1 - value) / error**2 if error > 0 and 0 < value < 1 else result.count
    low, high = wilson_interval(value, draws)
    return Estimate(value, result.count, low, high)


def wilson_interval(share: float, count: float, *, deviations: float = _DEVIATIONS) -> tuple[float, float]:
    """Interval of a binomial share (Wilson 1927); unlike the normal one it is right for shares near 0 and 1.

    Args:
      share: 0 to 1.
      count: draws, > 0.
      deviations: half width in standard deviations; 1.96 is 95 %.

    Raises:
      ValueError: share outside 0 to 1, or count not > 0.
    """
    if not checks.Bound(at_least=0.0, at_most=1.0).holds(share):
        raise checks.error("share", "a number >= 0 and <= 1", share)
    checks.positive("count", count)
    squared = deviations**2 / count
    center = (share + squared / 2) / (1 + squared)
    half = math.sqrt(squared * share * (1 - share) + squared**2 / 4) / (1 + squared)
    return max(0.0, center - half), min(1.0, center + half)
