import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmoe_inform import dispatch
from vmoe_inform.dispatch import capacity


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((50, 8, 2, 1.05), 16),  # 50 * 2 * 1.05 / 8 = 13.125 -> 14 -> 16, a multiple of 4
        ((50, 8, 2, 1.05, 1), 14),
        ((64, 8, 1, 1.0), 8),  # 8 exactly
        ((8 * 197, 256, 2, 1.05), 16),  # 12.93 -> 13 -> 16: a quarter more, which a larger group need not pay
        ((8 * 197, 256, 2, 1.05, 1), 13),
        ((32 * 197, 256, 2, 1.05), 52),  # 51.71
        ((100, 2, 1, 1.1, 1), 56),  # in binary 100 * 1.1 is more than 110: the original rounds up, and so do we
        ((16, 8, 1, 0.1, 1), 1),  # 0.2 -> 1
        ((10, 4, 2, 100.0, 1), 10),  # 500, of which a group of 10 tokens can fill 10
        ((10, 4, 2, 100.0, 4), 12),
        ((1, 1, 1, 1.0), 4),
        ((10, 4, 2, None, 1), 10),  # room for all
        ((10, 4, 2, None, 4), 12),
    ],
)
def test_expert_capacity(arguments, expected):
    assert dispatch.expert_capacity(*arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4, 2, 1.0), "group_size: expected an integer >= 1; received 0"),
        ((4, 0, 2, 1.0), "num_experts: expected an integer >= 1; received 0"),
        ((4, 4, 0, 1.0), "num_selected_experts: expected an integer >= 1; received 0"),
        ((4, 4, 2, 0.0), "factor: expected a number > 0 .*; received 0.0"),
        ((4, 4, 2, float("inf")), "factor: expected a number > 0 .*; received inf"),
        ((4, 4, 2, 1.0, 0), "multiple_of: expected an integer >= 1; received 0"),
    ],
)
def test_bad_capacity(arguments, message):
    with pytest.raises(ValueError, match=message):
        dispatch.expert_capacity(*arguments)


@pytest.mark.usefixtures("shapes_unchecked")
def test_bad_assignment():
    weights, indices = jnp.ones((1, 4, 2)), jnp.zeros((1, 4, 2), jnp.int32)
    with pytest.raises(ValueError, match="capacity: expected an integer >= 1; received 0"):
        dispatch.assign_slots(weights, indices, num_experts=2, capacity=0)
    with pytest.raises(ValueError, match="num_experts: expected an integer >= 1; received 0"):
        dispatch.assign_slots(weights, indices, num_experts=0, capacity=1)
    with pytest.raises(ValueError, match=r"weights: expected shape \[1, 4, 2\]; received \[1, 4, 1\]"):
        dispatch.assign_slots(weights[..., :1], indices, num_experts=2, capacity=1)


def slow_positions(weights, indices, num_experts, batch_priority):
    """Every expert counts who came before: first choices first, then by priority or place in the group."""
    positions = np.zeros(indices.shape, int)
    for g, group in enumerate(indices):
        order = range(len(group))
        if batch_priority:
            order = sorted(order, key=lambda token: -weights[g, token, 0])  # stable: the earlier token first
        taken = [0] * num_experts
        for choice in range(indices.shape[-1]):
            for token in order:
                expert = group[token, choice]
                positions[g, token, choice] = taken[expert]
                taken[expert] += 1
    return positions


def test_worked_by_hand():
    # Tokens choose (0, 1), (0, 1), (1, 0). First choices: expert 0 gets tokens 0, 1 in slots 0, 1, expert 1 token 2 in
    # slot 0. Second choices: expert 1 gets tokens 0, 1 in slots 1, 2, expert 0 token 2 in slot 2.
    indices = jnp.array([[[0, 1], [0, 1], [1, 0]]])
    weights = jnp.array([[[0.6, 0.4], [0.9, 0.1], [0.7, 0.3]]])
    plain = dispatch.assign_slots(weights, indices, num_experts=2, capacity=2)
    assert plain.positions.tolist() == [[[0, 1], [1, 2], [0, 2]]]
    assert plain.kept.tolist() == [[[True, True], [True, False], [True, False]]]
    # With priority, token 1 comes before token 0 everywhere.
    first = dispatch.assign_slots(weights, indices, num_experts=2, capacity=2, priority=weights[..., 0])
    assert first.positions.tolist() == [[[1, 2], [0, 1], [0, 2]]]


assign = jax.jit(
    lambda weights, indices, batch_priority, num_experts=4, capacity=3: (
        dispatch.assign_slots(
            weights,
            indices,
            num_experts=num_experts,
            capacity=capacity,
            priority=weights[..., 0] if batch_priority else None,
        ).positions
    ),
    static_argnums=(2, 3, 4),
)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.integers(1, 3))
def test_slots_equal_the_loop(seed, batch_priority, distinct_weights):
    rng = np.random.default_rng(seed)
    # Few distinct weights, so that ties occur; a skewed choice, so that experts overflow.
    weights = np.sort(rng.integers(1, 1 + distinct_weights, (2, 9, 3)), axis=-1)[..., ::-1].astype(np.float32)
    indices = np.argsort(rng.random((2, 9, 4)) * [1, 2, 3, 4], axis=-1)[..., :3].astype(np.int32)
    expected = slow_positions(weights, indices, 4, batch_priority)
    np.testing.assert_array_equal(assign(weights, indices, batch_priority), expected)


@pytest.mark.parametrize("batch_priority", [False, True])
def test_slots_of_many_experts_equal_the_loop(batch_priority):
    """Choices are sorted there, not counted in a table."""
    rng = np.random.default_rng(3)
    assert capacity._EXPERTS_TO_SORT <= 40
    weights = np.sort(rng.random((2, 50, 3)), axis=-1)[..., ::-1].astype(np.float32)
    indices = np.argsort(rng.random((2, 50, 40)) * np.arange(1, 41), axis=-1)[..., :3].astype(np.int32)
    expected = slow_positions(weights, indices, 40, batch_priority)
    np.testing.assert_array_equal(assign(weights, indices, batch_priority, 40, 6), expected)
    assert expected.max() >= 6  # some are dropped


@pytest.mark.parametrize("num_experts", [capacity._EXPERTS_TO_SORT - 1, capacity._EXPERTS_TO_SORT])
def test_earlier_choices_equal_a_count(num_experts):
    """In both forms, also of choices that do not exist (E), which count for nobody."""
    experts = np.random.default_rng(num_experts).integers(num_experts - 4, num_experts + 1, (3, 40)).astype(np.int32)
    expected = [[list(row[:place]).count(expert) for place, expert in enumerate(row)] for row in experts]
    exists = experts < num_experts
    found = capacity.earlier_choices(jnp.asarray(experts), num_experts)
    np.testing.assert_array_equal(np.asarray(found)[exists], np.asarray(expected)[exists])
    assert 0 < exists.sum() < exists.size


def test_filler_takes_no_slot():
    # Two experts with one slot each; token 0 is filler and would have been first at both.
    weights = jnp.array([[[0.9, 0.1], [0.6, 0.4], [0.7, 0.3]]])
    indices = jnp.array([[[0, 1], [0, 1], [1, 0]]])
    real = jnp.array([[False, True, True]])
    assignment = dispatch.assign_slots(weights, indices, num_experts=2, capacity=1, real=real)
    # First choices: token 1 gets expert 0, token 2 gets expert 1; nothing is left for second choices.
    assert assignment.kept.tolist() == [[[False, False], [True, False], [True, False]]]
    by_weight = dispatch.assign_slots(weights, indices, num_experts=2, capacity=1, real=real, priority=weights[..., 0])
    assert by_weight.kept.tolist() == assignment.kept.tolist()


def test_in_the_order_of_the_tokens_earlier_ones_are_served_first_place_by_place():
    """Two groups of two sequences of five tokens, with filler."""
    random = np.random.default_rng(4)
    indices = np.argsort(random.random((2, 10, 4)), axis=-1)[..., :2]
    real = np.ones((2, 10), bool)
    real[1, 5:] = False
    expected = np.full(indices.shape, 3)
    for group in range(2):
        taken = np.zeros(4, int)
        for place in range(5):
            for token in (place, place + 5):
                for choice in range(2):
                    if real[group, token]:
                        expert = indices[group, token, choice]
                        expected[group, token, choice] = taken[expert]
                        taken[expert] += 1
    given = {"num_experts": 4, "capacity": 3, "order": "tokens", "num_sequences": 2}
    weights = jnp.ones(indices.shape)
    found = dispatch.assign_slots(weights, jnp.asarray(indices), real=jnp.asarray(real), **given)
    np.testing.assert_array_equal(np.minimum(found.positions, 3), np.minimum(expected, 3))
    assert np.any(expected > 3)
    with pytest.raises(ValueError, match="priority: expected None where slots are handed out in the order of the tok"):
        dispatch.assign_slots(weights, jnp.asarray(indices), priority=jnp.ones((2, 10)), **given)
