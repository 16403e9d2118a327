"""Which differences between routers the seeds of a study show: p-values, corrected for their number, and power."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from scipy import optimize, special

from vmoe_inform import checks

LEVEL = 0.05  # probability of a difference where there is none
POWER = 0.8

Name = TypeVar("Name")


def p_value(values: Sequence[float], *, equal_at: float = 0.0) -> float | None:
    """p-value of the two-sided t test that the mean is ``equal_at``; of paired differences, the paired t test.

    Args:
      values: one for each seed, two or more.
      equal_at: the mean where there is no effect.

    Returns:
      None for values that are all equal: they are too coarse to state an uncertainty.
    """
    error = _standard_error(values)
    if error is None:
        return None
    return float(2 * special.stdtr(len(values) - 1, -abs(float(np.mean(values)) - equal_at) / error))


def holm(p_values: Mapping[Name, float]) -> dict[Name, float]:
    """p-values corrected for their number (Holm 1979, Scandinavian Journal of Statistics 6).

    The i-th smallest of m is multiplied by m - i + 1, is at least the one before it, and at most 1. With probability
    0.95 no effect that is none is at most 0.05 then, however the tests depend on each other.
    """
    corrected, largest = {}, 0.0
    for place, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[name]))
        corrected[name] = largest
    return corrected


def detectable(values: Sequence[float]) -> float | None:
    """The smallest true mean that as many seeds would show in 80 % of studies, by the two-sided t test at 5 %.

    Args:
      values: as of :func:`p_value`; their standard deviation stands for the true one.

    Returns:
      a number > 0; None for values that are all equal.
    """
    error = _standard_error(values)
    return None if error is None else _noncentrality(len(values)) * error


@functools.cache
def _noncentrality(count: int) -> float:
    """Mean over standard error at which the t test of ``count`` values has :data:`POWER`.

    Means so far above 0 are never found to be below it, which is therefore left out.
    """
    critical = special.stdtrit(count - 1, 1 - LEVEL / 2)
    return float(
        optimize.brentq(lambda mean: 1 - special.nctdtr(count - 1, mean, critical) - POWER, 0.0, 2 * critical + 4)
    )


def _standard_error(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        raise checks.error("values", "two or more numbers", list(values))
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return error if error > 0 else None
