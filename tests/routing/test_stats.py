import jax.numpy as jnp
import numpy as np
import pytest

from .compiled import routing


def test_entropy_and_effective_neighbours():
    rows = jnp.array([[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25], [0.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(routing.effective_neighbours(rows), [1.0, 2.0, 4.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose(routing.routing_entropy(rows), np.log([1.0, 2.0, 4.0, 1.0]), atol=1e-6)
    # Symphony's rows need not sum to 1: they are scaled first.
    np.testing.assert_allclose(routing.routing_entropy(3 * rows), routing.routing_entropy(rows), atol=1e-6)


def test_fluctuation_counts_changed_sets_not_changed_orders():
    # Of four tokens one changed order only, one changed an expert.
    before = jnp.array([[0, 1], [2, 3], [1, 2], [4, 0]])
    after = jnp.array([[1, 0], [2, 4], [1, 2], [4, 0]])
    assert routing.fluctuation_rate(before, after) == 0.25


def test_sequences_collapse_where_all_real_tokens_have_one_first_expert():
    indices = jnp.array([[[2, 0], [2, 1], [2, 0]], [[2, 0], [2, 0], [0, 2]], [[1, 0], [0, 2], [0, 1]]])
    assert routing.collapsed_sequences(indices).tolist() == [True, False, False]
    real = jnp.array([[False, False, False], [True, True, False], [False, True, True]])
    assert routing.collapsed_sequences(indices, real).tolist() == [True, True, True]
    assert routing.collapsed_sequences(indices, real.at[1].set(True)).tolist() == [True, False, True]


def test_expert_load():
    np.testing.assert_array_equal(routing.expert_load(jnp.array([[0, 1], [0, 2]]), 4), [0.5, 0.25, 0.25, 0.0])


def test_margin():
    probabilities = jnp.array([[0.5, 0.125, 0.375]])
    np.testing.assert_array_equal(routing.topk_margin(probabilities, 1), [0.125])
    np.testing.assert_array_equal(routing.topk_margin(probabilities, 2), [0.25])
    np.testing.assert_array_equal(routing.topk_margin(probabilities, 3), [np.inf])  # nothing else to choose


def test_spectral_gap():
    # [[1 - a, a], [b, 1 - b]] has eigenvalues 1 and 1 - a - b.
    np.testing.assert_allclose(routing.spectral_gap(jnp.array([[0.8, 0.2], [0.3, 0.7]])), 0.5, rtol=1e-5)
    np.testing.assert_allclose(routing.spectral_gap(jnp.eye(3)), 0.0, atol=1e-6)  # experts that never meet
    np.testing.assert_allclose(routing.spectral_gap(jnp.full((3, 3), 1 / 3)), 1.0, atol=1e-6)
    # A cycle of three turns by 120 degrees: complex eigenvalues, all of magnitude 1.
    np.testing.assert_allclose(routing.spectral_gap(jnp.roll(jnp.eye(3), 1, axis=0)), 0.0, atol=1e-6)
    assert routing.spectral_gap(jnp.ones((1, 1))) == 1.0


@pytest.mark.usefixtures("shapes_unchecked")
def test_bad_input():
    with pytest.raises(ValueError, match=r"indices_after: expected shape \[4, 2\]; received \[3, 2\]"):
        routing.fluctuation_rate(jnp.zeros((4, 2), jnp.int32), jnp.zeros((3, 2), jnp.int32))
    with pytest.raises(ValueError, match=r"adjacency: expected shape \[3, 3\]; received \[2, 3\]"):
        routing.spectral_gap(jnp.ones((2, 3)))
