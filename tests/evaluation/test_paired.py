"""Differences of two models on the same records."""

import math

import numpy as np
import pytest
import scipy.stats

from vmoe_inform.evaluation import paired
from vmoe_inform.evaluation.paired import Contributions
from vmoe_inform.evaluation.results import Scale

RANDOM = np.random.default_rng(0)
NATS = Scale("nats", less_is_better=True)
PERPLEXITY = Scale("perplexity", less_is_better=True)


def contributions(values, *, scale=NATS, weights=None, index=None):
    values = np.asarray(values)
    weights = np.ones(len(values)) if weights is None else np.asarray(weights)
    return Contributions(np.arange(len(values)) if index is None else index, values, weights, scale)


def right(values):
    return contributions(np.asarray(values, bool), scale=Scale("share", less_is_better=False))


def test_mcnemar_counts_how_often_a_fair_coin_falls_so_unevenly():
    assert paired.mcnemar(0, 0) == 1.0
    assert paired.mcnemar(4, 4) == 1.0
    assert paired.mcnemar(1, 8) == pytest.approx(2 * (1 + 9) / 2**9)  # 0 or 1 of 9 heads, and as many tails
    assert paired.mcnemar(8, 1) == paired.mcnemar(1, 8)


def test_interval_of_shares():
    # Without any record that differs both shares are 1/102, and 1.959964 sqrt((2/102) / 102) = 0.027175.
    low, high = paired.interval_of_shares(0, 0, 100)
    assert (low, high) == (pytest.approx(-0.027175, abs=1e-6), pytest.approx(0.027175, abs=1e-6))
    low, high = paired.interval_of_shares(30, 10, 100)
    assert low < 0.2 < high
    assert [-high, -low] == pytest.approx(paired.interval_of_shares(10, 30, 100))
    # 3/4 and 1/4: 0.5 - 1.959964 sqrt((1 - 0.5^2) / 4); above it would reach beyond 1.
    assert paired.interval_of_shares(2, 0, 2) == (pytest.approx(-0.348689, abs=1e-6), 1.0)


def test_interval_of_shares_covers_the_truth():
    """Of 2,000 draws of 60 records, of which the second model gains 15 % and loses 5 %."""
    draws = RANDOM.multinomial(60, [0.15, 0.05, 0.8], size=2000)
    intervals = np.array([paired.interval_of_shares(gained, lost, 60) for gained, lost, _ in draws.tolist()])
    covered = ((intervals[:, 0] <= 0.1) & (intervals[:, 1] >= 0.1)).mean()
    assert 0.94 < covered < 0.98


def test_shares_say_which_records_changed():
    found = paired.difference(right([1, 1, 0, 0, 1]), right([1, 0, 1, 1, 1]))
    assert (found.count, found.gained, found.lost) == (5, 2, 1)
    assert (found.before, found.after, found.value) == (0.6, 0.8, pytest.approx(0.2))
    assert found.p_value == 1.0  # two of three
    assert (found.unit, found.less_is_better) == ("share", False)


def test_means_have_the_interval_of_the_paired_t_test():
    before, after = RANDOM.normal(size=40), RANDOM.normal(0.3, size=40)
    found = paired.difference(contributions(before), contributions(after))
    expected = scipy.stats.ttest_rel(after, before)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert (found.gained, found.lost) == (None, None)
    assert found.less_is_better


def test_equal_answers_have_no_difference():
    values = RANDOM.normal(size=9)
    found = paired.difference(contributions(values), contributions(values))
    assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_zeros_and_ones_of_another_unit_are_no_share():
    found = paired.difference(contributions([0.0, 1.0, 1.0]), contributions([1.0, 1.0, 1.0]))
    assert found.gained is None


@pytest.mark.parametrize("scale", [NATS, PERPLEXITY], ids=str)
def test_influences_are_what_a_record_more_would_change(scale):
    values, weights = RANDOM.uniform(1, 9, size=12), RANDOM.uniform(1, 4, size=12)
    found = contributions(values, weights=weights, scale=scale)
    for record in (0, 7):
        more = np.ones(12)
        more[record] += 1e-6
        changed = contributions(more * values, weights=more * weights, scale=scale)
        assert found.influences[record] == pytest.approx((changed.value - found.value) / 1e-6, rel=1e-4)


def test_a_perplexity_is_of_all_tokens_together():
    before = contributions([2.0, 6.0], weights=[1, 3], scale=PERPLEXITY)
    after = contributions([1.0, 3.0], weights=[1, 3], scale=PERPLEXITY)
    found = paired.difference(before, after)
    assert (found.before, found.after) == pytest.approx((math.exp(2), math.exp(1)))
    assert found.unit == "perplexity"


def test_records_are_matched_by_their_numbers():
    before, after = RANDOM.normal(size=30), RANDOM.normal(size=30)
    order, own = RANDOM.permutation(30), np.arange(2, 30)  # the first two could not be read
    shuffled = contributions(after[order], index=order)
    found = paired.difference(contributions(before[2:], index=own), shuffled)
    assert found == paired.difference(contributions(before[2:]), contributions(after[2:]))
    assert found.count == 28


def test_one_record_says_nothing():
    with pytest.raises(ValueError, match="records that both models answered: expected two or more; received 1"):
        paired.difference(contributions([1.0, 2.0]), contributions([1.0, 2.0], index=np.array([1, 2])))


# -------------------------------------------------------------------------------------------------------- the bootstrap


def mean_of(name):
    return lambda scores: float(scores[name]["nll"].mean())


def of_sets(**values):
    return {name: {"nll": np.asarray(own), "skipped": np.asarray(0)} for name, own in values.items()}


def test_the_bootstrap_agrees_with_students_t_where_both_can_be_had():
    before, after = RANDOM.normal(size=200), RANDOM.normal(0.5, size=200)
    found = paired.bootstrap(of_sets(a=before), of_sets(a=after), mean_of("a"), groups=[["a"]], scale=NATS)
    expected = paired.difference(contributions(before), contributions(after))
    assert (found.before, found.after, found.count) == (expected.before, expected.after, 200)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.02)
    assert found.p_value is None


def test_the_bootstrap_draws_the_same_records_for_both_models():
    """What is hard about a record cancels: the interval is that of the small difference alone."""
    hard = RANDOM.normal(scale=100, size=50)
    found = paired.bootstrap(of_sets(a=hard), of_sets(a=hard + 1), mean_of("a"), groups=[["a"]])
    assert (found.low, found.high) == pytest.approx((1, 1))


def test_the_bootstrap_draws_sets_of_the_same_records_together():
    def ratio(scores):
        return mean_of("b")(scores) - mean_of("a")(scores)

    hard = RANDOM.normal(scale=100, size=50)
    before, after = of_sets(a=hard, b=hard), of_sets(a=hard, b=hard + 1)
    together = paired.bootstrap(before, after, ratio, groups=[["a", "b"]])
    assert (together.low, together.high) == pytest.approx((1, 1))
    other = of_sets(a=-hard, b=hard)  # two models that disagree about each record
    apart = paired.bootstrap(before, other, ratio, groups=[["a"], ["b"]])
    assert apart.high - apart.low > 10
    assert apart.count == 100


def test_the_bootstrap_keeps_to_the_records_that_both_have():
    before = {"a": {"nll": np.arange(4.0), "index": np.array([5, 1, 2, 9])}}
    after = {"a": {"nll": np.array([12.0, 11.0, 14.0]), "index": np.array([2, 1, 7])}}
    found = paired.bootstrap(before, after, mean_of("a"), groups=[["a"]])
    assert (found.before, found.after, found.count) == (1.5, 11.5, 2)  # of the records 1 and 2
    with pytest.raises(ValueError, match="expected two or more; received 0"):
        paired.bootstrap(before, of_sets(a=[1.0]), mean_of("a"), groups=[["a"]])


def test_numbers_of_a_whole_set_are_not_drawn():
    """Whatever they are: arrays are of records, and one of another length would be guessed at."""
    values = {"nll": np.arange(3.0), "skipped": np.asarray(3), "limit": np.asarray(2.0)}

    def metric(scores):
        assert (scores["a"]["skipped"], scores["a"]["limit"]) == (3, 2.0)
        return mean_of("a")(scores)

    assert paired.bootstrap({"a": values}, {"a": values}, metric, groups=[["a"]]).count == 3
    histogram = {"a": {**values, "histogram": np.arange(2)}}
    with pytest.raises(ValueError, match=r"scores of a set: expected arrays of one length, .*'histogram': 2"):
        paired.bootstrap(histogram, histogram, metric, groups=[["a"]])
