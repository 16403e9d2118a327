"""The statistics of studies, against values worked out by hand."""

import dataclasses
import math

import pytest

from tests.studies import sample
from vmoe_inform.studies import summary
from vmoe_inform.studies.summary import Interval, PairedInterval


def test_t_interval_of_three_values():
    # mean 2, standard deviation 1; t for 2 degrees of freedom has a closed form: t = 2 p sqrt(2 / (1 - 4 p^2)) with
    # p = 0.975 - 1/2, so 4.302653, and the half width is t / sqrt(3) = 2.484138.
    p = 0.475
    t = 2 * p * math.sqrt(2 / (1 - 4 * p * p))
    found = summary.t_interval([1.0, 2.0, 3.0])
    assert t == pytest.approx(4.302653, abs=1e-6)
    assert found.mean == 2.0
    assert found.half_width == pytest.approx(t / math.sqrt(3))
    assert (found.low, found.high) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)


def test_t_interval_of_two_values_and_another_level():
    # One degree of freedom is Cauchy: t = tan(pi (P - 1/2)). For P = 0.75 that is 1: half width s / sqrt(2) = 1.
    found = summary.t_interval([1.0, 3.0], level=0.5)
    assert (found.low, found.high) == pytest.approx((1.0, 3.0))


def test_differences_are_paired():
    # The seeds differ far more than the routers, which cancels: differences 0.2 and 0.1, mean 0.15, s = 0.1 / sqrt(2),
    # t = tan(0.475 pi) = 12.7062, half width t * 0.05 = 0.63531.
    found = summary.compare([0.9, 0.3], [0.7, 0.2])
    assert found.mean.mean == pytest.approx(0.6)
    assert found.difference.mean == pytest.approx(0.15)
    assert found.difference.half_width == pytest.approx(math.tan(0.475 * math.pi) * 0.05)
    # Ratios 9/7 and 3/2.
    assert found.ratio is not None
    assert found.ratio.mean == pytest.approx((9 / 7 + 3 / 2) / 2)
    shuffled = summary.compare([0.9, 0.3], [0.2, 0.7])
    assert shuffled.difference.mean == pytest.approx(0.15)
    assert shuffled.difference.half_width > 5


def test_no_ratio_to_zero():
    assert summary.compare([1.0, 2.0], [0.0, 1.0]).ratio is None


def test_what_an_interval_excludes():
    assert Interval(0.2, 0.1, 0.3).excludes(0.0)
    assert Interval(-0.2, -0.3, -0.1).excludes(0.0)
    assert not Interval(0.2, -0.1, 0.5).excludes(0.0)
    assert Interval(1.2, 1.1, 1.3).excludes(1.0)
    assert not Interval(0.2, 0.2, 0.2).excludes(0.0)  # three equal differences prove no certainty


@pytest.mark.parametrize(
    ("values", "message"),
    [([1.0], "values: expected two or more numbers"), ([1.0, math.nan], "values: expected finite numbers")],
)
def test_bad_values(values, message):
    with pytest.raises(ValueError, match=message):
        summary.t_interval(values)


def test_pairs_need_the_same_seeds():
    with pytest.raises(ValueError, match=r"values: expected shape \[3\]; received \[2\]"):
        summary.compare([1.0, 2.0], [1.0, 2.0, 3.0])


def test_measures_of_a_run():
    assert summary.measures_of(sample.result("mixing", 0, clean=0.8, entropy=0.5, collapsed=0.25)) == {
        "score/clean": 0.8,
        "score/o": 0.5,
        "entropy/block_1": 0.5,
        "effective_neighbours/block_1": 2.0,
        "dropped/block_1": 0.0,
        "load_cv/block_1": pytest.approx(1.0),
        "collapsed/block_1": 0.25,
        "fluctuation/block_1": 0.1,
    }


def test_means_over_the_layers_that_all_have():
    result = sample.result("mixing", 0, entropy=0.5, fluctuation=0.1, collapsed=0.25)
    (first,) = result.last.routing.values()
    second = dataclasses.replace(first, entropy=1.5, collapsed=None)
    last = dataclasses.replace(result.last, routing={"block_1": first, "block_3": second})
    result = dataclasses.replace(result, last=last, fluctuation={"block_1": 0.1, "block_3": 0.2})
    found = summary.measures_of(result)
    assert found["entropy/mean of layers"] == 1.0
    assert found["fluctuation/mean of layers"] == pytest.approx(0.15)
    assert {name for name in found if name.startswith("collapsed/")} == {"collapsed/block_1"}
    assert not {"score/mean of layers", "metric/mean of layers"} & set(found)


def test_summary_leaves_out_what_one_side_lacks():
    measures = {"plain": [{"a": 1.0, "b": 1.0}, {"a": 2.0, "b": 2.0}], "other": [{"a": 2.0}, {"a": 4.0}]}
    found = summary.summarize(measures, "plain")
    assert set(found["plain"]) == {"a", "b"}
    assert set(found["other"]) == {"a"}
    assert found["plain"]["a"].difference == PairedInterval(0.0, 0.0, 0.0)
    assert found["other"]["a"].ratio == PairedInterval(2.0, 2.0, 2.0)


def test_overhead():
    cost = {"plain": {"step": 100.0}, "other": {"step": 125.0}}
    assert summary.overhead(cost, "plain") == {"plain": {"step": 0.0}, "other": {"step": 0.25}}
