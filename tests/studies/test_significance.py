"""What the seeds of a study show, against values worked out by hand and tables."""

import math

import pytest

from vmoe_inform.studies import significance


def test_p_value_of_three_differences():
    # Mean 2, standard error 1 / sqrt(3), t = 2 sqrt(3). With 2 degrees of freedom P(T > t) is half of the value below.
    t = 2 * math.sqrt(3)
    assert significance.p_value([1.0, 2.0, 3.0]) == pytest.approx(1 - t / math.sqrt(t * t + 2))
    assert significance.p_value([2.0, 3.0, 4.0], equal_at=1.0) == pytest.approx(1 - t / math.sqrt(t * t + 2))
    assert significance.p_value([-1.0, 1.0]) == 1.0


def test_equal_values_prove_nothing():
    assert significance.p_value([2.0, 2.0]) is significance.detectable([2.0, 2.0]) is None


def test_holm_by_hand():
    # Ascending 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04, and the last not below the one before.
    found = significance.holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert significance.holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert significance.holm({}) == {}


@pytest.mark.parametrize(("count", "deviations"), [(5, 1.682), (10, 0.996), (30, 0.529)])
def test_detectable_difference_is_that_of_the_published_tables(count, deviations):
    """Effect sizes of the paired t test, two-sided 5 %, power 80 %."""
    values = [(-1.0) ** place for place in range(count)]
    deviation = math.sqrt(sum((value - sum(values) / count) ** 2 for value in values) / (count - 1))
    assert significance.detectable(values) == pytest.approx(deviations * deviation, abs=1e-3)


def test_of_many_values_it_is_that_of_the_normal_distribution():
    values = [1.0, -1.0] * 50_000
    assert significance.detectable(values) == pytest.approx((1.959964 + 0.841621) / math.sqrt(100_000), rel=1e-4)


def test_one_value_is_not_enough():
    with pytest.raises(ValueError, match=r"values: expected two or more numbers; received \[1.0\]"):
        significance.detectable([1.0])
