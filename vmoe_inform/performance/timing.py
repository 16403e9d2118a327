"""Times as ratios: both sides are measured in turns, in one process, against a reference of the same run.

A machine's speed drifts (clocks, other processes), and drift cancels in the ratio of two measurements that follow each
other. So every round measures each candidate once, a ratio is formed within each round, and the rounds give a median
and quartiles.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import jax

from vmoe_inform import checks
from vmoe_inform.axes import Tree

Measure = Callable[[], float]
Clock = Callable[[], float]
Name = TypeVar("Name", bound=Hashable)
Measured = TypeVar("Measured")


@dataclasses.dataclass(frozen=True)
class Spread:
    """Median and quartiles of repeated measurements.

    Attributes:
      median: of all repeats.
      lower, upper: first and third quartile (linear interpolation); the median if there is one repeat.
      repeats: how many measurements these are.
    """

    median: float
    lower: float
    upper: float
    repeats: int


def spread(values: Sequence[float]) -> Spread:
    """Summarises repeated measurements.

    Raises:
      ValueError: no values.
    """
    if not values:
        raise checks.error("values", "at least one measurement", list(values))
    if len(values) == 1:
        return Spread(values[0], values[0], values[0], 1)
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, lower, upper, len(values))


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Spread:
    """Spread of the ratios that each round gives; not the ratio of two medians, which would keep the drift.

    Args:
      numerators, denominators: measurements, those of one round at the same place.

    Raises:
      ValueError: not one of each in every round.
    """
    if len(numerators) != len(denominators):
        raise checks.error("denominators", f"{len(numerators)} measurements, one a round", len(denominators))
    return spread([above / below for above, below in zip(numerators, denominators, strict=True)])


def quotient(numerator: float | None, denominator: float | None) -> float | None:
    """Of two figures that not every program has; None if one is missing, or there is nothing to compare with."""
    return None if numerator is None or not denominator else numerator / denominator


def seconds(function: Callable[[], Tree], clock: Clock = time.perf_counter) -> float:
    """Time until all arrays that ``function`` returns are there; JAX itself returns before."""
    start = clock()
    jax.block_until_ready(function())
    return clock() - start


def stopwatch(function: Callable[..., Tree], *arguments: Tree) -> Measure:
    """() -> seconds of a call of ``function`` with these arguments; see :func:`seconds`."""
    return lambda: seconds(lambda: function(*arguments))


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of a call.

    Attributes:
      wall: until the results are there.
      processor: of all threads of this process, whatever other programs do.
    """

    wall: float
    processor: float


def times(function: Callable[[], Tree]) -> Times:
    """Both times of a call of ``function``; see :func:`seconds`."""
    start = time.process_time()
    wall = seconds(function)
    return Times(wall, time.process_time() - start)


def interleave(measures: Mapping[Name, Callable[[], Measured]], repeats: int) -> dict[Name, list[Measured]]:
    """Takes each measurement once in every round.

    The first round warms up (memory is allocated, first pages are touched) and is left out. Every second round goes in
    reverse, so that no candidate always comes after the same other one.

    Args:
      measures: what to measure, by name.
      repeats: rounds that count.

    Returns:
      by name one measurement for each round.

    Raises:
      ValueError: ``repeats`` below 1.
    """
    if repeats < 1:
        raise checks.error("repeats", "an integer >= 1", repeats)
    rounds: dict[Name, list[Measured]] = {name: [] for name in measures}
    for number in range(repeats + 1):
        names = list(measures) if number % 2 else reversed(list(measures))
        for name in names:
            value = measures[name]()
            if number > 0:
                rounds[name].append(value)
    return rounds
