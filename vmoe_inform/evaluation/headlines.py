"""The one figure of each suite that a reader sees first, with how sure it is."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

from vmoe_inform import checks
from vmoe_inform.evaluation import suites as suites_lib

Results = Mapping[str, Any]  # one run's results.json


@dataclasses.dataclass(frozen=True)
class Headline:
    """A suite's headline.

    Attributes:
      value: share between 0 and 1.
      count: images it is worked out from; for O those of no known class.
      low, high: 95 % interval.
    """

    value: float
    count: int
    low: float
    high: float


def suites_of(results: Mapping[str, Results]) -> list[str]:
    """Names of all suites of all runs, in the order in which they are shown."""
    return in_order(suite for result in results.values() for suite in result["suites"])


def in_order(found: Iterable[str]) -> list[str]:
    """Suites in the order in which they are shown, each once; those that are not registered come last."""
    known, names = suites_lib.names(), dict.fromkeys(found)
    return [suite for suite in known if suite in names] + [suite for suite in names if suite not in known]


def headline(suite: str, figures: Mapping[str, Any]) -> Headline | None:
    """The headline of a suite, or None when its data are not available.

    Raises:
      ValueError: results that hold neither the suite's metric nor ``not_available``.
    """
    if "not_available" in figures:
        return None
    metric = suites_lib.kind(suite).metric.name
    for key in (metric, "count"):
        if key not in figures:
            raise checks.error(f"suites.{suite}", f"the key {key!r} or 'not_available'", sorted(figures))
    return with_interval(figures, metric)


def with_interval(figures: Mapping[str, Any], metric: str) -> Headline:
    """The share ``metric`` of a suite's figures, with its interval.

    The interval treats the images as drawn at random. Where the suite gives ``<metric>_standard_error`` (for C over
    the images, whose corrupted versions are no independent draws), the interval is that of as many independent draws
    as would have this error (Kish's effective sample size). Where it gives none, each image counts as one draw, which
    for an area under the precision-recall curve is the binomial interval over the positives (Boyd, Eng and Page 2013).

    Args:
      figures: a suite's entry of results.json.
      metric: a key of it; the value is a share between 0 and 1.
    """
    value, count = float(figures[metric]), int(figures["count"])
    error = float(figures.get(f"{metric}_standard_error", 0.0))
    draws = value * (1 - value) / error**2 if error > 0 and 0 < value < 1 else count
    low, high = wilson_interval(value, draws)
    return Headline(value, count, low, high)


def wilson_interval(share: float, count: float, *, deviations: float = 1.96) -> tuple[float, float]:
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
