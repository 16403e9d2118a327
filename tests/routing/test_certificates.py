"""Certificates hold: no perturbation below a radius changes a token's experts, and beyond the larger one some does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from .compiled import routing
from .strategies import few_examples, probabilities, symmetric_doubly_stochastic

E, WAYS = 5, 400


def stochastic(axis):
    """Rows or columns that sum to 1, zeros among them."""
    return probabilities((E, E)).map(lambda rows: rows if axis == 1 else np.ascontiguousarray(rows.T))


def anything():
    return arrays.arrays(np.float32, (E, E), elements=st.floats(0, 2, width=32), fill=st.nothing())


def choose(r, a, k):
    """The set of each row, in double precision: the certificate is of exact arithmetic, less what float32 rounds."""
    a = np.where(a.any(axis=1, keepdims=True), a, np.eye(E)).astype(np.float64)
    return np.sort(np.argsort(-(r.astype(np.float64) @ a.T), axis=-1, kind="stable")[:, :k], axis=-1)


@few_examples
@given(
    st.one_of(stochastic(1), stochastic(0), symmetric_doubly_stochastic(E), anything()),
    probabilities((1, E)),
    st.integers(1, E - 1),
    st.integers(0, 2**32 - 1),
)
def test_no_perturbation_below_a_radius_changes_the_experts(a, r, k, seed):
    by_margin, by_pairs = (f(r, a, k).item() for f in (routing.margin_radius, routing.pairwise_radius))
    assert by_margin * np.sqrt(2) <= by_pairs * (1 + 1e-5)
    assume(0 < by_pairs < 1e3)
    # Random ways, and those that bring each pair of experts together, for which there is nothing shorter.
    rows = np.where(a.any(axis=1, keepdims=True), a, np.eye(E)).astype(np.float64)
    pairs = (rows[:, None] - rows[None]).reshape(-1, E)
    ways = np.concatenate([np.random.default_rng(seed).normal(size=(WAYS, E)), pairs])
    ways -= ways.mean(axis=-1, keepdims=True)
    lengths = np.linalg.norm(ways, axis=-1, keepdims=True)
    ways = ways[lengths[:, 0] > 1e-6] / lengths[lengths[:, 0] > 1e-6]
    here = choose(r, a, k)
    for share in (0.3, 0.9999):
        assert np.all(choose(r + share * by_pairs * ways, a, k) == here)


def test_certified_tokens_keep_their_experts_in_the_float32_of_the_router():
    """Thousands of tokens, each moved to just within its radius, towards its nearest tie."""
    rng = np.random.default_rng(0)
    a = rng.dirichlet(np.full(E, 0.3), size=E).astype(np.float32)
    r = rng.dirichlet(np.ones(E), size=4000).astype(np.float32)
    radius = np.asarray(routing.pairwise_radius(r, a, 2))
    order = np.argsort(-(r @ a.T), axis=-1)
    apart = a.astype(np.float64)[order[:, :2]][:, :, None] - a.astype(np.float64)[order[:, 2:]][:, None]
    apart -= apart.mean(axis=-1, keepdims=True)
    apart = apart.reshape(len(r), -1, E)
    for pair in range(apart.shape[1]):
        way = apart[:, pair] / np.linalg.norm(apart[:, pair], axis=-1, keepdims=True)
        moved = (r - radius[:, None] * way).astype(np.float32)
        length = np.linalg.norm(moved.astype(np.float64) - r, axis=-1)
        certified = radius > length
        assert 0.2 < certified.mean() < 0.8  # rounding decides
        chosen = [np.sort(np.asarray(routing.top_experts(routing.expert_informed(x, a), 2)[1])) for x in (r, moved)]
        assert np.all((chosen[0] == chosen[1])[certified])


@few_examples
@given(st.one_of(stochastic(1), symmetric_doubly_stochastic(E)), probabilities((1, E)), st.integers(1, E - 1))
def test_beyond_the_radius_of_pairs_the_experts_change(a, r, k):
    radius = routing.pairwise_radius(r, a, k).item()
    assume(1e-3 < radius < 1e3)
    rows = np.where(a.any(axis=1, keepdims=True), a, np.eye(E)).astype(np.float64)
    pairs = (rows[:, None] - rows[None]).reshape(-1, E)
    ways = pairs - pairs.mean(axis=-1, keepdims=True)
    lengths = np.linalg.norm(ways, axis=-1)
    ways = ways[lengths > 1e-6] / lengths[lengths > 1e-6][:, None]
    assert np.any(choose(r + 1.01 * radius * ways, a, k) != choose(r, a, k))


def test_the_norm_is_the_papers_where_the_paper_defines_it_and_1_of_a_plain_router():
    assert routing.difference_norm(jnp.eye(E)).item() == pytest.approx(1.0)
    assert routing.difference_norm(jnp.zeros((E, E))).item() == pytest.approx(1.0)  # zero rows are identity rows
    # (1 - rho) / E + rho I is symmetric and doubly stochastic, with second eigenvalue rho.
    mixed = 0.7 / E + 0.3 * jnp.eye(E)
    assert routing.difference_norm(mixed).item() == pytest.approx(0.3)
    assert routing.difference_norm(mixed).item() == pytest.approx(1 - routing.spectral_gap(mixed).item(), abs=1e-5)


def test_rows_that_sum_to_1_may_lengthen_a_change():
    # Experts 0 and 1 take all of expert 0, experts 2 and 3 all of expert 1: the change (1, -1, 0, 0) becomes
    # (1, 1, -1, -1), sqrt(2) times as long. The eigenvalues are 1, 0, 0, 0: by those no change would matter at all.
    a = jnp.array([[1.0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0]])
    assert routing.difference_norm(a).item() == pytest.approx(np.sqrt(2))
    assert routing.spectral_gap(a).item() == pytest.approx(1.0, abs=1e-3)
    r = jnp.array([[0.5, 0.4, 0.1, 0.0]])
    # Margin of K = 2 is 0.1, by rho 0.1 / (2 sqrt(2)); rows 0 and 2 differ by (1, -1, 0, 0), of length sqrt(2).
    assert routing.margin_radius(r, a, 2).item() == pytest.approx(0.1 / (2 * np.sqrt(2)), rel=1e-3)
    assert routing.pairwise_radius(r, a, 2).item() == pytest.approx(0.1 / np.sqrt(2), rel=1e-3)
    moved = r + jnp.array([[-0.051, 0.051, 0.0, 0.0]])
    assert set(np.asarray(jax.lax.top_k(routing.expert_informed(moved, a), 2)[1][0])) == {2, 3}


def test_without_another_choice_nothing_can_change():
    r = jnp.full((1, E), 1 / E)
    for radius in (routing.margin_radius, routing.pairwise_radius):
        assert radius(r, jnp.eye(E), E).item() == np.inf
        assert radius(r, jnp.eye(E), 1).item() == 0.0  # a tie


@pytest.mark.usefixtures("shapes_unchecked")
def test_bad_input():
    with pytest.raises(ValueError, match=r"adjacency: expected shape \[3, 3\]; received \[2, 3\]"):
        routing.difference_norm(jnp.ones((2, 3)))
    with pytest.raises(ValueError, match="k: expected"):
        routing.margin_radius(jnp.ones((1, 3)) / 3, jnp.eye(3), 4)
