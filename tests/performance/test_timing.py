import itertools

import jax.numpy as jnp
import pytest

from vmoe_inform.performance import timing


def test_spread_is_median_and_quartiles():
    # Sorted: 1 2 3 4 10. The quartiles are the 2nd and the 4th, whatever the outlier is.
    assert timing.spread([4.0, 1.0, 10.0, 2.0, 3.0]) == timing.Spread(median=3.0, lower=2.0, upper=4.0, repeats=5)
    # Between the values: a quarter of the way from 1 to 3, half, three quarters.
    assert timing.spread([3.0, 1.0]) == timing.Spread(median=2.0, lower=1.5, upper=2.5, repeats=2)
    assert timing.spread([7.0]) == timing.Spread(7.0, 7.0, 7.0, 1)


def test_ratio_pairs_the_rounds_so_that_drift_cancels():
    # The machine becomes 8 times slower during the run; each round says 1.5.
    found = timing.ratio([1.5, 3.0, 12.0], [1.0, 2.0, 8.0])
    assert found == timing.Spread(median=1.5, lower=1.5, upper=1.5, repeats=3)


def test_bad_measurements_are_refused():
    with pytest.raises(ValueError, match=r"values: expected at least one measurement; received \[\]"):
        timing.spread([])
    with pytest.raises(ValueError, match="denominators: expected 2 measurements, one a round; received 1"):
        timing.ratio([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="repeats: expected an integer >= 1; received 0"):
        timing.interleave({"one": lambda: 1.0}, repeats=0)


def test_rounds_measure_everything_once_in_alternating_order_and_the_first_does_not_count():
    order: list[str] = []
    numbers = itertools.count()

    def measure(name: str) -> float:
        order.append(name)
        return float(next(numbers))

    found = timing.interleave({name: lambda name=name: measure(name) for name in "abc"}, repeats=3)
    assert "".join(order) == "cba" + "abc" + "cba" + "abc"
    assert found == {"a": [3.0, 8.0, 9.0], "b": [4.0, 7.0, 10.0], "c": [5.0, 6.0, 11.0]}


def test_seconds_ends_when_the_arrays_are_there():
    times = iter([10.0, 12.5])
    assert timing.seconds(lambda: {"sum": jnp.ones(3) + 1.0}, clock=lambda: next(times)) == 2.5
