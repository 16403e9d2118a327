import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmoe_inform.routing import steps

from .compiled import routing


def test_counts_worked_by_hand():
    # Tokens hold {0, 1}, {1, 2}, {0, 1}: expert 1 is in all three, 0 and 1 meet twice, 1 and 2 once.
    indices = jnp.array([[0, 1], [2, 1], [1, 0]])
    counts = jnp.array([[2, 2, 0], [2, 3, 1], [0, 1, 1]], jnp.float32)
    np.testing.assert_array_equal(routing.coselection_counts(indices, 3), counts)
    np.testing.assert_array_equal(routing.coselection_counts(indices, 3, diagonal=False), counts * (1 - np.eye(3)))


def test_one_step_worked_by_hand():
    # Row 0 of the counts has sum 4, row 1 sum 2, row 2 none. 0.9 A + 0.1 rows: the old state weighs 0.9.
    counts = jnp.array([[1.0, 3.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    old = jnp.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
    expected = [[0.025, 0.975, 0.0], [0.1, 0.0, 0.0], [0.45, 0.45, 0.0]]
    np.testing.assert_allclose(routing.update_adjacency(old, counts), expected, rtol=1e-6)


def test_informed_worked_by_hand():
    # p[0] = 0.2 + 0.5 * 0.3 = 0.35; row 1 is empty and keeps r[1]; p[2] = r[0].
    adjacency = jnp.array([[1.0, 0.5, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    informed = routing.expert_informed(jnp.array([[0.2, 0.3, 0.5]]), adjacency)
    np.testing.assert_allclose(informed, [[0.35, 0.3, 0.2]], rtol=1e-6)


def test_an_adjacency_of_zeros_or_the_identity_changes_nothing():
    r = jax.nn.softmax(jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 4)), jnp.float32))
    np.testing.assert_array_equal(routing.expert_informed(r, jnp.zeros((4, 4))), r)
    np.testing.assert_array_equal(routing.expert_informed(r, jnp.eye(4)), r)


def test_permuting_experts_permutes_the_adjacency():
    rng = np.random.default_rng(1)
    indices = np.argsort(rng.random((30, 5)), axis=-1)[:, :2]
    order = rng.permutation(5)  # expert e is renamed order[e]
    before = routing.update_adjacency(jnp.zeros((5, 5)), routing.coselection_counts(jnp.array(indices), 5))
    after = routing.update_adjacency(jnp.zeros((5, 5)), routing.coselection_counts(jnp.array(order[indices]), 5))
    np.testing.assert_allclose(after[np.ix_(order, order)], before, rtol=1e-6)


def test_no_gradient_flows_through_the_state():
    r, a = jnp.full((3, 2), 0.5), jnp.array([[0.3, 0.7], [0.5, 0.5]])
    assert not np.any(jax.grad(lambda a: jnp.sum(routing.expert_informed(r, a) ** 2))(a))
    assert not np.any(jax.grad(lambda a: jnp.sum(routing.update_adjacency(a, a) ** 2))(a))


doubly = jax.jit(lambda counts: routing.normalize_adjacency(counts, normalization="doubly_stochastic"))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 1000), min_size=36, max_size=36))
def test_doubly_stochastic_for_positive_counts(counts):
    matrix = np.reshape(counts, (6, 6)).astype(np.float32)
    matrix = matrix + matrix.T  # co-selection is symmetric
    result = doubly(matrix)
    np.testing.assert_allclose(jnp.sum(result, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(jnp.sum(result, axis=0), 1.0, rtol=1e-3)
    # Scaling rows and columns keeps every cross ratio of the counts.
    ratio = lambda m: m[0, 0] * m[1, 1] / (m[0, 1] * m[1, 0])
    np.testing.assert_allclose(ratio(np.float64(result)), ratio(np.float64(matrix)), rtol=1e-3)


def test_doubly_stochastic_columns_are_only_near_where_the_zeros_allow_no_such_matrix():
    # [[x, 1 - x], [1, 0]] is the form after a round. A round takes its columns (x + 1, 1 - x) to x / (2 x + 1), that is
    # 1/x to 1/x + 2; from x = 1/3 after the first round to 1/129 after the 64th. The columns sum to 1 +- x.
    result = doubly(jnp.array([[1.0, 1.0], [1.0, 0.0]]))
    np.testing.assert_allclose(jnp.sum(result, axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(jnp.sum(result, axis=0), [1 + 1 / 129, 1 - 1 / 129], rtol=1e-5)


def test_symmetric_worked_by_hand():
    # Sums of rows and columns 4, 9 and 1: 2 / sqrt(4 * 4), 2 / sqrt(4 * 9), 6 / 9, 1 / sqrt(9 * 1).
    counts = jnp.array([[2.0, 2.0, 0.0], [2.0, 6.0, 1.0], [0.0, 1.0, 0.0]])
    expected = [[1 / 2, 1 / 3, 0], [1 / 3, 2 / 3, 1 / 3], [0, 1 / 3, 0]]
    result = routing.normalize_adjacency(counts, normalization="symmetric")
    np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_the_symmetric_normalization_never_lengthens_a_vector():
    rng = np.random.default_rng(5)
    for diagonal in (True, False):
        chosen = np.argsort(rng.random((50, 6)), axis=-1)[:, :2]
        counts = routing.coselection_counts(jnp.asarray(chosen), 6, diagonal=diagonal)
        values = np.linalg.eigvalsh(np.float64(routing.normalize_adjacency(counts, normalization="symmetric")))
        assert np.abs(values).max() == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (0.0, [[0.53, 0.47]]),  # 0.55 * 0.8 + 0.45 * 0.2 and 0.45 * 0.8 + 0.55 * 0.2
        (0.5, [[0.44, 0.11]]),  # the diagonal only: 0.55 * 0.8 and 0.55 * 0.2
        (0.6, [[0.8, 0.2]]),  # nothing is left, and empty rows act as the identity
    ],
)
def test_symphony_starts_at_its_initial_value_and_leaves_out_what_is_below_the_threshold(threshold, expected):
    step = steps.INFORM_STEPS["symphony"]
    options = {**step.option_defaults, "initial_value": 0.5, "threshold": threshold}
    sizes = steps.LayerSizes(hidden_size=4, num_experts=2, num_selected_experts=1, num_tokens=3, raw_input_size=0)
    state = step.initial_state(jax.random.key(0), sizes, **options)
    np.testing.assert_array_equal(state, np.full((2, 2), 0.5))
    # With one expert a token the normalized counts are the identity: 0.9 * 0.5 + 0.1 and 0.9 * 0.5. The threshold
    # takes nothing from the state itself.
    context = steps.StepContext(tokens=jnp.zeros((1, 3, 4)), parameters={}, state=state)
    counts = step.observe(context, jnp.array([[[0], [0], [1]]]), **options)
    state = step.update_state(state, counts, {}, duration=steps.Duration(1), **options)
    np.testing.assert_allclose(state, [[0.55, 0.45], [0.45, 0.55]], rtol=1e-6)
    context = steps.StepContext(tokens=jnp.zeros((1, 1, 4)), parameters={}, state=state)
    informed = step.function(jnp.array([[[0.8, 0.2]]]), context, **options)
    np.testing.assert_allclose(informed, [expected], rtol=1e-6)


@pytest.mark.parametrize("normalization", ["row", "column", "symmetric", "doubly_stochastic"])
def test_experts_without_a_count_stay_zero(normalization):
    counts = jnp.array([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    expected = np.array([[2 / 3, 1 / 3, 0], [1 / 3, 2 / 3, 0], [0, 0, 0]])
    np.testing.assert_allclose(routing.normalize_adjacency(counts, normalization=normalization), expected, rtol=1e-6)
    zeros = routing.normalize_adjacency(jnp.zeros((3, 3)), normalization=normalization)
    np.testing.assert_array_equal(zeros, np.zeros((3, 3)))


# Oja's update: the row of an expert learns when that expert fires.


def random_choices(tokens=60):
    """[tokens, 2] of five experts, some much more often than others, and expert 4 never."""
    rng = np.random.default_rng(2)
    return np.argsort(-np.log(rng.random((tokens, 4))) / [8.0, 4.0, 2.0, 1.0], axis=-1)[:, :2]


def random_rows():
    return jnp.asarray(np.random.default_rng(3).dirichlet(np.ones(5), size=5), jnp.float32)


oja = jax.jit(routing.update_adjacency_oja, static_argnames="decay")


def test_one_step_of_oja_worked_by_hand():
    # Expert 0 is in 3 tokens, expert 1 in 1, the mean is 2: u = 3/2 and 1/2. Decay 0.25: what is kept of row 0 is
    # 0.25^1.5 = 1/8, of row 1 0.25^0.5 = 1/2. Normalized counts: (3/4, 1/4) and (1/2, 1/2).
    counts = jnp.array([[3.0, 1.0], [1.0, 1.0]])
    old = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    expected = [[7 / 8 * 3 / 4, 1 / 8 + 7 / 8 / 4], [1 / 2 + 1 / 4, 1 / 4]]
    np.testing.assert_allclose(routing.update_adjacency_oja(old, counts, decay=0.25), expected, rtol=1e-6)


def test_oja_is_the_moving_average_where_all_experts_fire_alike():
    # A ring: token t holds t and t + 1, so that each expert is in two tokens.
    ring = jnp.stack([jnp.arange(5), (jnp.arange(5) + 1) % 5], axis=-1)
    counts = routing.coselection_counts(ring, 5)
    old = random_rows()
    np.testing.assert_allclose(
        routing.update_adjacency_oja(old, counts, decay=0.8),
        routing.update_adjacency(old, counts, decay=0.8),
        rtol=1e-5,
    )


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_oja_keeps_the_row_of_an_expert_that_nobody_chooses(decay):
    counts = routing.coselection_counts(jnp.array(random_choices()), 5)
    old = random_rows()
    new = oja(old, counts, decay=decay)
    np.testing.assert_array_equal(new[4], old[4])
    assert np.abs(new[:4] - old[:4]).max(axis=-1).min() > 1e-3
    # Where the moving average lets it fade.
    np.testing.assert_allclose(routing.update_adjacency(old, counts, decay=decay)[4], decay * old[4], rtol=1e-6)


def test_oja_without_any_count_keeps_everything():
    np.testing.assert_array_equal(oja(random_rows(), jnp.zeros((5, 5)), decay=0.5), random_rows())


def test_a_small_step_of_oja_is_his_rule_summed_over_the_tokens():
    # dA_j = sum_t z_j (x - z_j A_j) with x = z / K, over the mean number of tokens of an expert.
    choices, old = random_choices(), np.asarray(random_rows(), np.float64)
    increments, fires = np.zeros((5, 5)), np.zeros(5)
    for chosen in choices:
        z = np.isin(np.arange(5), chosen).astype(float)
        fires += z
        for j in range(5):
            increments[j] += z[j] * (z / 2 - z[j] * old[j])
    new = oja(jnp.asarray(old, jnp.float32), routing.coselection_counts(jnp.array(choices), 5), decay=0.999)
    # The second order is u^2 0.001 / 2, at most 0.3 % of the first; the step is 0.001, of which float32 has 1e-4.
    np.testing.assert_allclose((new - old) / 0.001, increments / fires.mean(), rtol=0.01, atol=2e-4)


def test_oja_settles_at_the_conditional_probability():
    choices = random_choices()
    counts = routing.coselection_counts(jnp.array(choices), 5)
    settled = jax.lax.fori_loop(0, 200, lambda _, a: oja(a, counts, decay=0.7), jnp.zeros((5, 5)))
    # p(k | j): of a random token that holds j, a random one of its experts.
    for j in range(4):
        holding = choices[(choices == j).any(axis=-1)]
        np.testing.assert_allclose(settled[j], [np.mean(holding == k) for k in range(5)], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(settled[4], 0.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3, 1.0]))
def test_rows_of_oja_never_sum_to_more_than_one(seed, decay):
    rng = np.random.default_rng(seed)
    old = rng.dirichlet(np.ones(5), size=5) * rng.integers(0, 2, (5, 1))  # full rows and empty ones
    choices = np.argsort(rng.random((7, 5)) * [1, 2, 4, 8, 16], axis=-1)[:, :2]
    new = oja(jnp.asarray(old, jnp.float32), routing.coselection_counts(jnp.array(choices), 5), decay=decay)
    assert np.min(new) >= 0
    assert np.max(jnp.sum(new, axis=-1)) <= 1 + 1e-5
    np.testing.assert_allclose(jnp.sum(new, axis=-1)[old.sum(axis=-1) > 0], 1.0, rtol=1e-5)


# The layer before: which expert follows which.


def test_transitions_worked_by_hand():
    # Two images of two tokens; before -> after: {0, 1} -> {2, 0}, {0, 1} -> {2, 1}, {2, 0} -> {1, 2}, and {1} -> {0}
    # with a second choice, 3, that does not exist on either side.
    before = jnp.array([[[0, 1], [1, 0]], [[2, 0], [1, 3]]])
    after = jnp.array([[[2, 0], [2, 1]], [[1, 2], [0, 3]]])
    # From 0: tokens 1, 2, 3 go to 2, three times, to 1 twice, to 0 once. From 1: tokens 1, 2, 4. From 2: token 3.
    expected = [[1, 2, 3], [2, 1, 2], [0, 1, 1]]
    np.testing.assert_array_equal(routing.transition_counts(before, after, 3), expected)
    np.testing.assert_array_equal(routing.transition_counts(after, before, 3), np.transpose(expected))


def test_transition_informed_worked_by_hand():
    # A'q = 0.5 (0, 1, 0) + 0.25 (0.5, 0, 0.5) + 0.25 (0, 0, 0) = (0.125, 0.5, 0.125): m = 0.75. With share 0.4,
    # p = (1 - 0.3) r + 0.4 A'q.
    adjacency = jnp.array([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.0, 0.0, 0.0]])
    r, q = jnp.array([[0.1, 0.2, 0.7]]), jnp.array([[0.5, 0.25, 0.25]])
    informed = routing.transition_informed(r, q, adjacency, share=0.4)
    np.testing.assert_allclose(informed, [[0.07 + 0.05, 0.14 + 0.2, 0.49 + 0.05]], rtol=1e-6)


def make_transition():
    rng = np.random.default_rng(4)
    return [jnp.asarray(rng.dirichlet(np.ones(5), size=shape), jnp.float32) for shape in ((2, 3), (2, 3), 5)]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_transition_informed_probabilities_sum_to_one(share):
    r, q, adjacency = make_transition()
    partly = adjacency.at[1:3].set(0.0)
    for matrix in (adjacency, partly):
        informed = routing.transition_informed(r, q, matrix, share=share)
        np.testing.assert_allclose(jnp.sum(informed, axis=-1), 1.0, rtol=1e-5)
        assert np.min(informed) >= 0


def test_transition_informed_where_nothing_is_known_keeps_the_probabilities():
    r, _, adjacency = make_transition()
    np.testing.assert_array_equal(routing.transition_informed(r, r, jnp.zeros((5, 5)), share=1.0), r)
    np.testing.assert_array_equal(routing.transition_informed(r, r, adjacency, share=0.0), r)
    # Nothing is known of expert 1, and the first token came from there alone.
    q = jnp.tile(jnp.eye(5)[None, jnp.array([1, 0, 2])], (2, 1, 1))
    informed = routing.transition_informed(r, q, adjacency.at[1].set(0.0))
    np.testing.assert_array_equal(informed[:, 0], r[:, 0])
    assert np.abs(informed[:, 1:] - r[:, 1:]).max(axis=-1).min() > 1e-3


def test_transition_informed_by_the_layer_before_alone():
    r, q, adjacency = make_transition()
    informed = routing.transition_informed(r, q, adjacency, share=1.0)
    np.testing.assert_allclose(informed, np.asarray(q) @ np.asarray(adjacency), rtol=1e-5)
    np.testing.assert_allclose(routing.transition_informed(r[::-1], q, adjacency, share=1.0), informed, rtol=1e-5)


def test_no_gradient_flows_through_the_transitions():
    r, q, adjacency = make_transition()
    loss = lambda *arrays: jnp.sum(routing.transition_informed(*arrays) ** 2)
    to_r, to_q, to_adjacency = jax.grad(loss, argnums=(0, 1, 2))(r, q, adjacency)
    assert np.any(to_r)
    assert np.any(to_q)
    assert not np.any(to_adjacency)
    assert not np.any(jax.grad(lambda a: jnp.sum(oja(a, a, decay=0.5) ** 2))(adjacency))


def test_across_layers_learns_which_expert_follows_which():
    # Tokens of expert j before go to expert follows[j] here, in every one of 40 training steps.
    step, follows = steps.INFORM_STEPS["symphony_across_layers"], np.array([2, 0, 3, 1])
    options = {**step.option_defaults, "decay": 0.9, "share": 0.5}
    sizes = steps.LayerSizes(hidden_size=4, num_experts=4, num_selected_experts=1, num_tokens=6, raw_input_size=0)
    rng = np.random.default_rng(5)

    def context(state, probabilities, indices):
        previous = steps.PreviousLayer(jnp.asarray(probabilities, jnp.float32), jnp.asarray(indices, jnp.int32))
        return steps.StepContext(jnp.zeros((2, 6, 4)), {}, state=state, previous=previous)

    @jax.jit
    def update(state, before):
        seen = context(state, jnp.zeros((2, 6, 4)), before)
        counts = step.observe(seen, jnp.array(follows)[before], **options)
        return step.update_state(state, counts, {}, **options)

    state = step.initial_state(jax.random.key(0), sizes, **options)
    for _ in range(40):
        # Each expert is there, so that its row is seen in every step.
        before = np.stack([rng.permutation([0, 1, 2, 3, *rng.integers(0, 4, 2)]) for _ in range(2)])
        state = update(state, before[..., None])
    known = 1 - 0.9**40
    np.testing.assert_allclose(state, known * np.eye(4)[follows], rtol=1e-4, atol=1e-6)

    # q has 0.85 on one expert and 0.05 on the others, r is uniform: p = (1 - known / 2) / 4 + known / 2 * q, moved.
    came_from = rng.integers(0, 4, (2, 6))
    q = np.where(np.arange(4) == came_from[..., None], 0.85, 0.05)
    uniform = jnp.full((2, 6, 4), 0.25)
    informed = step.function(uniform, context(state, q, came_from[..., None]), **options)
    np.testing.assert_array_equal(jnp.argmax(informed, axis=-1), follows[came_from])
    np.testing.assert_allclose(jnp.max(informed, axis=-1), (1 - known / 2) / 4 + known / 2 * 0.85, rtol=1e-4)


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: routing.normalize_adjacency(jnp.ones((2, 2)), normalization="rows"),
            "normalization: expected one of 'row', 'column', 'symmetric', 'doubly_stochastic'; received 'rows'",
        ),
        (lambda: routing.normalize_adjacency(jnp.ones((2, 3))), r"counts: expected shape \[3, 3\]; received \[2, 3\]"),
        (
            lambda: routing.update_adjacency(jnp.ones((2, 2)), jnp.ones((3, 3))),
            r"counts: expected shape \[2, 2\]; received \[3, 3\]",
        ),
        (
            lambda: routing.update_adjacency(jnp.ones((2, 2)), jnp.ones((2, 2)), decay=1.5),
            "decay: expected a number >= 0 and <= 1; received 1.5",
        ),
        (
            lambda: routing.update_adjacency_oja(jnp.ones((2, 2)), jnp.ones((2, 2)), decay=-0.1),
            "decay: expected a number >= 0 and <= 1; received -0.1",
        ),
        (
            lambda: routing.update_adjacency_oja(jnp.ones((2, 2)), jnp.ones((3, 3))),
            r"counts: expected shape \[2, 2\]; received \[3, 3\]",
        ),
        (
            lambda: routing.transition_counts(jnp.zeros((4, 1), jnp.int32), jnp.zeros((3, 1), jnp.int32), 2),
            r"after: expected shape \[4\]; received \[3\]",
        ),
        (
            lambda: routing.transition_informed(jnp.ones((4, 3)), jnp.ones((4, 2)), jnp.ones((3, 3))),
            r"previous: expected shape \[4, 3\]; received \[4, 2\]",
        ),
        (
            lambda: routing.transition_informed(jnp.ones((4, 3)), jnp.ones((4, 3)), jnp.ones((2, 2))),
            r"adjacency: expected shape \[3, 3\]; received \[2, 2\]",
        ),
        (
            lambda: routing.transition_informed(jnp.ones((4, 3)), jnp.ones((4, 3)), jnp.ones((3, 3)), share=1.1),
            "share: expected a number >= 0 and <= 1; received 1.1",
        ),
        (
            lambda: routing.expert_informed(jnp.ones((4, 3)), jnp.ones((2, 2))),
            r"adjacency: expected shape \[3, 3\]; received \[2, 2\]",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
