import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from vmoe_inform.routing.assignment import balanced_assignment

EXAMPLES = settings(max_examples=25, deadline=None, derandomize=True)
SEEDS = st.integers(0, 2**32 - 1)
FINEST = 1e-6  # random scores have one best assignment at this tolerance, so that indices can be compared
CASES = {
    "divisible": (24, 4, FINEST),
    "not divisible": (23, 4, FINEST),
    "usual tolerance": (23, 4, 1e-3),
    "fewer tokens than experts": (3, 5, 1e-3),
    "one token": (1, 4, 1e-3),
    "one expert": (6, 1, 1e-3),
}

# Compiled once for each shape and tolerance.
assign = functools.partial(jax.jit, static_argnames="tolerance")(balanced_assignment)


def best_total(scores):
    places = np.repeat(np.asarray(scores, np.float64), math.ceil(scores.shape[0] / scores.shape[1]), axis=1)
    tokens, chosen = linear_sum_assignment(places, maximize=True)
    return places[tokens, chosen].sum()


def total(scores, indices):
    return np.take_along_axis(np.asarray(scores, np.float64), np.asarray(indices)[:, None], axis=1).sum()


def assert_balanced_and_best(scores, indices, tolerance):
    num_tokens, num_experts = scores.shape
    assert indices.dtype == jnp.int32
    assert indices.shape == (num_tokens,)
    counts = np.bincount(indices, minlength=num_experts)
    assert len(counts) == num_experts
    assert counts.max() <= math.ceil(num_tokens / num_experts)
    doubles = np.asarray(scores, np.float64)
    largest_difference = (doubles.max(axis=1) - doubles.min(axis=1)).max()
    assert total(scores, indices) >= best_total(scores) - num_tokens * tolerance * largest_difference


KINDS = {
    "normal": lambda rng, s, e: rng.normal(size=(s, e)),
    "skewed": lambda rng, s, e: rng.normal(size=(s, e)) + 6 * (np.arange(e) == e - 1),
    "two popular experts": lambda rng, s, e: 0.1 * rng.normal(size=(s, e)) + 5 * (np.arange(e) < 2),
    "tied": lambda rng, s, e: rng.integers(0, 3, (s, e)),
    "all equal": lambda rng, s, e: np.full((s, e), rng.normal()),
    "identical tokens": lambda rng, s, e: np.tile(rng.normal(size=(1, e)), (s, 1)),
    "three sorts of tokens": lambda rng, s, e: rng.normal(size=(3, e))[rng.integers(0, 3, s)],
    "one direction": lambda rng, s, e: rng.normal(size=(s, 1)) * rng.normal(size=(1, e)),
    "blocks": lambda rng, s, e: rng.normal(size=(s, e)) + 30 * (np.arange(s)[:, None] % 3 == np.arange(e) % 3),
    "small": lambda rng, s, e: 1e-4 * rng.normal(size=(s, e)),
    "large": lambda rng, s, e: 1e4 * rng.normal(size=(s, e)),
    "tiny": lambda rng, s, e: 1e-30 * rng.normal(size=(s, e)),
    "largest of float32": lambda rng, s, e: 3.4e38 * rng.choice([-1.0, 1.0], (s, e)),
    "one huge gap": lambda rng, s, e: rng.normal(size=(s, e)) - 1e6 * (np.arange(s * e) == 0).reshape(s, e),
    "heavy tails": lambda rng, s, e: rng.standard_cauchy((s, e)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_total_is_within_the_bound_of_the_best(kind, case):
    *shape, tolerance = CASES[case]
    for seed in range(5):
        scores = np.asarray(KINDS[kind](np.random.default_rng(seed), *shape), np.float32)
        assert_balanced_and_best(scores, assign(jnp.asarray(scores), tolerance=tolerance), tolerance)


@EXAMPLES
@given(st.lists(st.floats(-20, 20, width=32), min_size=15, max_size=15))
def test_total_is_within_the_bound_of_the_best_for_any_scores(scores):
    scores = np.array(scores, np.float32).reshape(3, 5)
    assert_balanced_and_best(scores, assign(jnp.asarray(scores)), 1e-3)


def test_every_expert_gets_the_same_number_when_experts_divide_tokens():
    scores = jnp.asarray(np.random.default_rng(0).normal(size=(24, 4)) + np.array([9.0, 0, 0, 0]), jnp.float32)
    assert np.bincount(scores.argmax(axis=-1)).tolist() == [24]
    assert np.bincount(assign(scores, tolerance=FINEST)).tolist() == [6, 6, 6, 6]


def test_worked_by_hand():
    # All prefer expert 0, by 1, 4, 3 and 2: the two that lose least by leaving it are the first and the last.
    scores = jnp.array([[1.0, 0.0], [5.0, 1.0], [0.0, -3.0], [9.0, 7.0]])
    assert balanced_assignment(scores).tolist() == [1, 0, 0, 1]


def test_a_place_that_is_left_over_goes_to_the_expert_that_is_wanted_least():
    # Three tokens for 2 x 2 places. Leaving a place of the popular expert 0 empty would cost at least 3 more.
    scores = jnp.array([[3.0, 0.0], [3.0, 1.0], [3.0, -2.0], [0.0, 0.0]])
    assert assign(scores, real=jnp.arange(4) < 3).tolist() == [0, 1, 0, 0]


def test_no_difference_above_the_tolerance_is_given_away():
    # The last token makes the range 1. The others prefer their expert by 0.2: if that were rounded to nothing, any
    # balanced assignment would do, in which those that come first would not be where they want to be.
    wanted = np.repeat([0, 1, 2, 3], 6)
    scores = np.where(np.arange(4) == wanted[:, None], 0.2, 0.0)
    scores[-1] *= 5
    indices = assign(jnp.asarray(scores, jnp.float32), tolerance=0.1)
    assert indices.tolist() == wanted.tolist()


def test_a_move_over_several_experts_is_found():
    # Expert 0 has a token too many. Straight to expert 2, which has room, would cost 10; by way of expert 1 costs 2.
    scores = jnp.array([[10.0, 9.0, 0.0, -9.0, -9.0], [10.0, 5.0, 0.0, -9.0, -9.0], [0.0, 10.0, 9.0, -9.0, -9.0]])
    assert assign(scores).tolist() == [1, 0, 2]


def test_large_group_is_balanced_and_best():
    rng = np.random.default_rng(0)
    scores = np.asarray(rng.normal(size=(403, 8)) + 3 * rng.normal(size=8), np.float32)
    assert_balanced_and_best(scores, assign(jnp.asarray(scores), tolerance=1e-5), 1e-5)


@EXAMPLES
@given(SEEDS)
def test_permuting_tokens_and_experts_permutes_the_assignment(seed):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(23, 4)).astype(np.float32)
    tokens, experts = rng.permutation(23), rng.permutation(4)
    indices = np.asarray(assign(jnp.asarray(scores), tolerance=FINEST))
    permuted = assign(jnp.asarray(scores[tokens][:, experts]), tolerance=FINEST)
    np.testing.assert_array_equal(experts[permuted], indices[tokens])


@EXAMPLES
@given(SEEDS)
def test_a_constant_added_to_a_token_changes_nothing(seed):
    # Multiples of 1/64 up to 128 stay exact when integers up to 2^12 are added, so that only the constant differs.
    rng = np.random.default_rng(seed)
    scores = (rng.integers(-4096, 4096, (23, 4)) / 64 + np.array([64, 0, 0, 0])).astype(np.float32)
    constants = rng.integers(-4096, 4096, (23, 1)).astype(np.float32)
    indices = assign(jnp.asarray(scores))
    np.testing.assert_array_equal(assign(jnp.asarray(scores + constants)), indices)
    assert np.any(np.argmax(scores, axis=-1) != indices)


def test_logits_and_log_probabilities_give_the_same():
    logits = jnp.asarray(np.random.default_rng(1).normal(size=(24, 4)) + np.array([3.0, 0, 0, 0]), jnp.float32)
    np.testing.assert_array_equal(
        assign(jax.nn.log_softmax(logits), tolerance=FINEST), assign(logits, tolerance=FINEST)
    )


def test_the_scale_of_the_scores_changes_nothing():
    scores = np.random.default_rng(2).normal(size=(24, 4)).astype(np.float32)
    indices = assign(jnp.asarray(scores), tolerance=FINEST)
    for scale in (2.0**-60, 2.0**14, 2.0**100):  # powers of two: exact
        scaled = jnp.asarray(scores * np.float32(scale))
        np.testing.assert_array_equal(assign(scaled, tolerance=FINEST), indices)


def test_batch_axes_equal_a_loop_also_under_jit():
    rng = np.random.default_rng(3)
    # Groups that need many rounds stand next to groups that need none.
    scores = (rng.normal(size=(2, 3, 24, 4)) + 4 * rng.normal(size=(2, 3, 1, 4))).astype(np.float32)
    scores[0, 1] = np.tile(np.eye(4), (6, 1))
    scores[1, 2] = 0.0
    real = rng.random((2, 3, 24)) < 0.7
    real[0, 2] = False
    batched = jax.jit(lambda s, r: balanced_assignment(s, tolerance=FINEST, real=r))(scores, real)
    for i, j in np.ndindex(2, 3):
        single = assign(jnp.asarray(scores[i, j]), tolerance=FINEST, real=jnp.asarray(real[i, j]))
        np.testing.assert_array_equal(batched[i, j], single)
        # A second time gives the same, ties included.
        again = assign(jnp.asarray(scores[i, j]), tolerance=FINEST, real=jnp.asarray(real[i, j]))
        np.testing.assert_array_equal(again, single)


def test_bfloat16_scores_are_assigned_as_what_they_are():
    scores = jnp.asarray(np.random.default_rng(4).normal(size=(24, 4)), jnp.bfloat16)
    indices = assign(scores, tolerance=FINEST)
    assert_balanced_and_best(np.asarray(scores.astype(jnp.float32)), indices, FINEST)


@EXAMPLES
@given(SEEDS, st.integers(0, 23))
def test_real_tokens_are_assigned_as_if_filler_were_not_there(seed, num_real):
    rng = np.random.default_rng(seed)
    scores = (rng.normal(size=(23, 4)) + 2 * rng.normal(size=4)).astype(np.float32)
    real = rng.permutation(np.arange(23) < num_real)
    scores[~real] *= 1e6  # if filler counted, it would be for most of the total and of the range
    indices = np.asarray(assign(jnp.asarray(scores), tolerance=FINEST, real=jnp.asarray(real)))
    np.testing.assert_array_equal(indices[~real], scores[~real].argmax(axis=-1))
    if num_real:
        assert_balanced_and_best(scores[real], indices[real], FINEST)


def test_no_gradient_flows_through_the_assignment():
    scores = jnp.asarray(np.random.default_rng(5).normal(size=(24, 4)), jnp.float32)
    chosen = lambda s: jnp.take_along_axis(s, balanced_assignment(s, tolerance=FINEST)[:, None], axis=-1)
    gradient = jax.jit(jax.grad(lambda s: jnp.sum(chosen(s))))(scores)
    np.testing.assert_array_equal(gradient, jax.nn.one_hot(assign(scores, tolerance=FINEST), 4))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_diverged_router_still_gets_a_balanced_assignment(bad):
    scores = np.random.default_rng(6).normal(size=(24, 4)).astype(np.float32)
    for which in (np.s_[3, 1], np.s_[3], np.s_[:, 2], np.s_[:]):
        broken = scores.copy()
        broken[which] = bad
        indices = assign(jnp.asarray(broken), tolerance=FINEST)
        assert np.bincount(indices).tolist() == [6, 6, 6, 6]


def test_a_group_without_tokens():
    assert balanced_assignment(jnp.zeros((2, 0, 4))).shape == (2, 0)


@pytest.mark.parametrize("tolerance", [0.0, 1.0, -1e-3, 1e-7, 2.0, math.nan, math.inf])
def test_bad_tolerance(tolerance):
    with pytest.raises(ValueError, match=rf"tolerance: expected a number >= 1e-06 and < 1 .*; received {tolerance}"):
        balanced_assignment(jnp.zeros((4, 2)), tolerance=tolerance)


def test_integers_that_could_overflow_are_refused():
    with pytest.raises(ValueError, match=r"tolerance: expected a number >= 1\.52\d*e-05 and < 1 \(for 1024 experts\)"):
        balanced_assignment(jnp.zeros((4, 1024)), tolerance=1.5e-5)


@pytest.mark.usefixtures("shapes_unchecked")
def test_bad_shapes():
    with pytest.raises(ValueError, match=r"scores: expected shape \[\.\.\., S, E\]; received \[4\]"):
        balanced_assignment(jnp.zeros(4))
    with pytest.raises(ValueError, match=r"scores: expected at least one expert in the last axis; received \[4, 0\]"):
        balanced_assignment(jnp.zeros((4, 0)))
    with pytest.raises(ValueError, match=r"real: expected shape \[2, 4\]; received \[4\]"):
        balanced_assignment(jnp.zeros((2, 4, 3)), real=jnp.ones(4, bool))
