import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmoe_inform import routing
from vmoe_inform.routing import steps


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
    sizes = steps.LayerSizes(hidden_size=4, num_experts=2, num_selected_experts=1, num_tokens=3, patch_values=0)
    state = step.initial_state(jax.random.key(0), sizes, **options)
    np.testing.assert_array_equal(state, np.full((2, 2), 0.5))
    # With one expert a token the normalized counts are the identity: 0.9 * 0.5 + 0.1 and 0.9 * 0.5. The threshold
    # takes nothing from the state itself.
    context = steps.StepContext(tokens=jnp.zeros((1, 3, 4)), parameters={}, state=state)
    state = step.update_state(context, jnp.array([[[0], [0], [1]]]), **options)
    np.testing.assert_allclose(state, [[0.55, 0.45], [0.45, 0.55]], rtol=1e-6)
    context = steps.StepContext(tokens=jnp.zeros((1, 1, 4)), parameters={}, state=state)
    informed = step.function(jnp.array([[[0.8, 0.2]]]), context, **options)
    np.testing.assert_allclose(informed, [expected], rtol=1e-6)


@pytest.mark.parametrize("normalization", ["row", "column", "doubly_stochastic"])
def test_experts_without_a_count_stay_zero(normalization):
    counts = jnp.array([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    expected = np.array([[2 / 3, 1 / 3, 0], [1 / 3, 2 / 3, 0], [0, 0, 0]])
    np.testing.assert_allclose(routing.normalize_adjacency(counts, normalization=normalization), expected, rtol=1e-6)
    zeros = routing.normalize_adjacency(jnp.zeros((3, 3)), normalization=normalization)
    np.testing.assert_array_equal(zeros, np.zeros((3, 3)))


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: routing.normalize_adjacency(jnp.ones((2, 2)), normalization="rows"),
            "normalization: expected one of 'row', 'column', 'doubly_stochastic'; received 'rows'",
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
            lambda: routing.expert_informed(jnp.ones((4, 3)), jnp.ones((2, 2))),
            r"adjacency: expected shape \[3, 3\]; received \[2, 2\]",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
