import dataclasses

import pytest

from tests.report.sample_results import results
from vmoe_inform.evaluation.headlines import headline, suites_of, wilson_interval
from vmoe_inform.evaluation.results import SuiteResult


def test_wilson_interval_by_hand():
    # 90 of 100, z = 2: z^2/n = 0.04; centre (0.9 + 0.02) / 1.04 = 0.884615,
    # half sqrt(0.04 * 0.09 + 0.04^2 / 4) / 1.04 = sqrt(0.0036 + 0.0004) / 1.04 = 0.0632456 / 1.04 = 0.060813
    assert wilson_interval(0.9, 100, deviations=2.0) == pytest.approx((0.823802, 0.945428), abs=1e-6)


def test_wilson_interval_at_the_ends_is_not_empty():
    # p = 1: (1 + z^2/2n +- z^2/2n) / (1 + z^2/n), so from 1 / (1 + 4/12) = 0.75 to 1
    assert wilson_interval(1.0, 12, deviations=2.0) == pytest.approx((0.75, 1.0))
    assert wilson_interval(0.0, 12, deviations=2.0) == pytest.approx((0.0, 0.25))


@pytest.mark.parametrize(
    ("share", "count", "field"), [(1.1, 10, "share"), (float("nan"), 10, "share"), (0.5, 0, "count")]
)
def test_wilson_interval_checks_its_arguments(share, count, field):
    with pytest.raises(ValueError, match=f"{field}: expected"):
        wilson_interval(share, count)


def test_headline_takes_each_suites_own_metric():
    suites = results()["attention_vmoe"].suites
    assert {name: headline(result).value for name, result in suites.items()} == {
        "clean": 0.9,
        "c": 0.6,
        "r": 0.5,
        "o": 0.75,
    }


def test_interval_follows_the_suites_own_standard_error():
    # An error of 0.05 at a share of 0.6 is that of 0.6 * 0.4 / 0.05^2 = 96 independent draws, not of the 200 images.
    result = results()["attention_vmoe"].suites["c"]
    found = headline(dataclasses.replace(result, standard_errors={"mean_top1": 0.05}))
    assert found.count == 200
    assert (found.low, found.high) == pytest.approx(wilson_interval(0.6, 96))
    without = headline(result)
    assert (without.low, without.high) == wilson_interval(0.6, 200)


def test_a_perfect_score_has_an_interval_although_its_standard_error_is_zero():
    found = headline(SuiteResult(360, {"top1": 1.0}, standard_errors={"top1": 0.0}))
    assert (found.low, found.high) == wilson_interval(1.0, 360)
    assert found.low < 0.995


def test_suites_come_in_a_fixed_order_and_new_ones_last():
    found = results()
    more = dict.fromkeys(("new", "fgsm", "a"), SuiteResult(1, {"top1": 1.0}))
    found["vmoe"] = dataclasses.replace(found["vmoe"], suites={**more, **found["vmoe"].suites})
    assert suites_of(found) == ["clean", "c", "r", "a", "o", "fgsm", "new"]
