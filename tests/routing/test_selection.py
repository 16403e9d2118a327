import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmoe_inform import routing


def test_worked_by_hand():
    # The two largest of .1 .4 .2 .3 are experts 1 and 3; renormalised 4/7 and 3/7.
    probabilities = jnp.array([[0.1, 0.4, 0.2, 0.3]])
    weights, indices = routing.top_experts(probabilities, 2)
    assert indices.tolist() == [[1, 3]]
    np.testing.assert_allclose(weights, [[4 / 7, 3 / 7]], rtol=1e-6)
    np.testing.assert_allclose(routing.top_experts(probabilities, 2, renormalize=False)[0], [[0.4, 0.3]], rtol=1e-6)


def test_a_single_expert_keeps_its_probability_so_that_the_router_learns():
    probabilities = jnp.array([[0.1, 0.9]])
    np.testing.assert_allclose(routing.top_experts(probabilities, 1)[0], [[0.9]])
    np.testing.assert_array_equal(routing.top_experts(probabilities, 1, renormalize="one")[0], [[1.0]])
    weight = lambda logits, how: routing.top_experts(jax.nn.softmax(logits), 1, renormalize=how)[0].sum()
    assert np.abs(jax.grad(weight)(jnp.array([[0.0, 1.0]]), True)).max() > 0.1
    np.testing.assert_array_equal(jax.grad(weight)(jnp.array([[0.0, 1.0]]), "one"), 0.0)


def test_equal_probabilities_take_the_lower_index():
    assert routing.top_experts(jnp.full((3, 4), 0.25), 2)[1].tolist() == [[0, 1]] * 3


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-20, 20, width=32), min_size=6, max_size=6, unique=True), st.sampled_from([2, 4, 6]))
def test_softmax_before_or_after_the_choice_is_the_same_once_renormalised(logits, k):
    logits = jnp.array([logits], jnp.float32)
    weights, indices = routing.top_experts(jax.nn.softmax(logits), k)
    chosen = jnp.take_along_axis(logits, indices, axis=-1)
    np.testing.assert_allclose(weights, jax.nn.softmax(chosen), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(jnp.sum(weights, axis=-1), 1.0, rtol=1e-6)


@pytest.mark.parametrize("row", [[0.0, 0.0, 0.0], [1e-38, 1e-38, 0.0], [1e30, 1e30, 0.0]])
def test_renormalising_rows_that_are_far_from_a_distribution(row):
    weigh = lambda p: routing.top_experts(p, 2)[0]
    np.testing.assert_allclose(weigh(jnp.array([row])), [[0.5, 0.5]], rtol=1e-6)
    assert np.isfinite(jax.grad(lambda p: weigh(p)[0, 0])(jnp.array([row]))).all()


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize("k", [0, 4, 1.0, True])
def test_bad_k(k):
    for call in (routing.top_experts, routing.topk_margin):
        with pytest.raises(ValueError, match=rf"k: expected an integer from 1 to 3 \(experts\); received {k}"):
            call(jnp.ones((2, 3)) / 3, k)


@pytest.mark.usefixtures("shapes_unchecked")
def test_bad_renormalize():
    with pytest.raises(ValueError, match="renormalize: expected true, false or 'one'; received 'two'"):
        routing.top_experts(jnp.ones((2, 3)) / 3, 2, renormalize="two")
