"""Slots that choose tokens and soft slots against loops, what plans tell of themselves, choices that do not exist."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmoe_inform import dispatch

from . import slow
from .test_dispatchers import assert_trees_close, expert_function

EXPERTS, WIDTH = 3, 4


def normal(rng, *shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def make_parameters(rng):
    return {"kernel": normal(rng, EXPERTS, WIDTH, WIDTH), "bias": normal(rng, EXPERTS, WIDTH)}


def outputs_and_gradients(plan_of, inputs, cotangent, **how):
    """Of sum(outputs * cotangent), with respect to all inputs: ``tokens``, ``parameters`` and what the plan is of."""

    @jax.jit
    def both(inputs):
        def loss(inputs):
            experts = expert_function(inputs["parameters"])
            outputs = dispatch.carry_out(inputs["tokens"], plan_of(inputs), experts, **how)
            return jnp.sum(outputs.astype(jnp.float32) * cotangent), outputs

        gradients, outputs = jax.grad(loss, has_aux=True)(inputs)
        return outputs, gradients

    return both(inputs)


def told(plan_of, *inputs):
    """Load, dropped choices, and choices of a plan, compiled together."""

    def tell(*inputs):
        plan = plan_of(*inputs)
        return plan.load, plan.dropped, plan.choices

    return jax.jit(tell)(*inputs)


def float64(tree):
    return jax.tree.map(lambda array: np.asarray(array, np.float64), tree)


def make_slots():
    """Two groups of six tokens, three slots for each of three experts, some of them empty."""
    rng = np.random.default_rng(0)
    inputs = {
        "tokens": normal(rng, 2, 6, WIDTH),
        "slot_weights": jnp.asarray(rng.random((2, EXPERTS, 3)), jnp.float32),
        "parameters": make_parameters(rng),
    }
    chosen = np.argsort(rng.random((2, EXPERTS, 6)), axis=-1)[..., :3].astype(np.int32)
    filled = rng.random((2, EXPERTS, 3)) < 0.8
    filled[1, 2] = False  # an expert without any token
    return inputs, chosen, filled, normal(rng, 2, 6, WIDTH)


def test_slots_that_choose_tokens_equal_a_loop():
    inputs, chosen, filled, cotangent = make_slots()

    def plan_of(inputs):
        return dispatch.SlotChoice(jnp.array(chosen), inputs["slot_weights"], jnp.array(filled), size=6, k=2)

    load, _, _ = told(plan_of, inputs)
    experts_of_token = np.sum(load, axis=-1)
    assert {0, 1, 2} <= set(experts_of_token.ravel().tolist())  # in none, in one, in several
    outputs, gradients = outputs_and_gradients(plan_of, inputs, cotangent)
    expected = slow.slots(float64(inputs), chosen, filled, float64(cotangent))
    assert_trees_close((outputs, gradients), expected, 1e-5)
    # Exactly nothing for a token in no slot, and from a slot without a token.
    np.testing.assert_array_equal(outputs[experts_of_token == 0], 0.0)
    np.testing.assert_array_equal(gradients["tokens"][experts_of_token == 0], 0.0)
    np.testing.assert_array_equal(gradients["slot_weights"][~filled], 0.0)


def test_empty_slots_give_experts_rows_of_zeros():
    inputs, chosen, filled, _ = make_slots()
    plan = dispatch.SlotChoice(jnp.array(chosen), inputs["slot_weights"], jnp.array(filled), size=6, k=2)
    seen = []
    dispatch.carry_out(inputs["tokens"], plan, lambda rows: seen.append(rows) or rows)
    rows, tokens = np.asarray(seen[0]), np.asarray(inputs["tokens"])
    for g, e, c in np.ndindex(filled.shape):
        wanted = tokens[g, chosen[g, e, c]] if filled[g, e, c] else np.zeros(WIDTH)
        np.testing.assert_array_equal(rows[e, g, c], wanted)


def make_soft():
    """Four images of five tokens in two groups, two slots for each of three experts; shares that need not sum to 1."""
    rng = np.random.default_rng(1)
    inputs = {
        "tokens": normal(rng, 2, 10, WIDTH),
        "into": jnp.asarray(rng.random((4, 5, EXPERTS, 2)), jnp.float32),
        "out_of": jnp.asarray(rng.random((4, 5, EXPERTS, 2)), jnp.float32),
        "parameters": make_parameters(rng),
    }
    return inputs, normal(rng, 2, 10, WIDTH)


def soft_plan_of(inputs):
    return dispatch.SoftSlots(inputs["into"], inputs["out_of"], groups=2, k=2)


def test_soft_slots_equal_a_loop():
    inputs, cotangent = make_soft()
    by_image = {**float64(inputs), "tokens": float64(inputs["tokens"]).reshape(4, 5, WIDTH)}
    outputs, gradients = slow.soft(by_image, float64(cotangent).reshape(4, 5, WIDTH))
    gradients["tokens"] = gradients["tokens"].reshape(2, 10, WIDTH)
    found = outputs_and_gradients(soft_plan_of, inputs, cotangent)
    assert_trees_close(found, (outputs.reshape(2, 10, WIDTH), gradients), 1e-5)


def test_soft_slots_do_not_mix_the_images_of_a_group():
    inputs, _ = make_soft()
    changed = {**inputs, "tokens": inputs["tokens"].at[0, 5:].set(3.0)}  # the second image of the first group
    experts = expert_function(inputs["parameters"])
    before, after = (dispatch.carry_out(i["tokens"], soft_plan_of(i), experts) for i in (inputs, changed))
    np.testing.assert_array_equal(before[0, :5], after[0, :5])
    np.testing.assert_array_equal(before[1], after[1])
    assert np.abs(before[0, 5:] - after[0, 5:]).min() > 0


@pytest.mark.parametrize("kind", ["slots", "soft"])
def test_bfloat16_tokens_give_bfloat16_outputs_and_gradients(kind):
    if kind == "slots":
        inputs, chosen, filled, cotangent = make_slots()
        plan_of = lambda i: dispatch.SlotChoice(jnp.array(chosen), i["slot_weights"], jnp.array(filled), size=6, k=2)
    else:
        inputs, cotangent = make_soft()
        plan_of = soft_plan_of
    half = {**inputs, "tokens": inputs["tokens"].astype(jnp.bfloat16)}
    outputs, gradients = jax.eval_shape(lambda i: outputs_and_gradients(plan_of, i, cotangent), half)
    assert outputs.dtype == gradients.pop("tokens").dtype == jnp.bfloat16
    assert {a.dtype for a in jax.tree.leaves(gradients)} == {jnp.dtype(jnp.float32)}


# What a plan tells of itself.


def test_what_slots_tell_worked_by_hand():
    # Expert 0 holds tokens 0 and 2, the latter with a weight of 0; expert 1 token 0 and an empty slot whose index
    # happens to be 1. As a choice, 2 stands for no expert.
    tokens, weights = np.array([[[0, 2], [0, 1]]]), np.array([[[0.5, 0.0], [0.75, 0.2]]], np.float32)
    filled = np.array([[[True, True], [True, False]]])
    load, dropped, (weights, indices) = told(
        functools.partial(dispatch.SlotChoice, size=3, k=2), tokens, weights, filled
    )
    assert load.tolist() == [[[1, 1], [0, 0], [1, 0]]]
    assert dropped.tolist() == [[0, 1, 0]]
    np.testing.assert_allclose(weights, [[[0.75, 0.5], [0, 0], [0, 0]]])
    assert indices.tolist() == [[[1, 0], [2, 2], [0, 2]]]


def test_what_soft_slots_tell_worked_by_hand():
    # One group of two images of one token: shares of two experts with two slots each.
    out_of = jnp.array([[[[0.1, 0.2], [0.3, 0.4]]], [[[0.5, 0.25], [0.25, 0.0]]]])
    plan = dispatch.SoftSlots(into=jnp.ones((2, 1, 2, 2)), out_of=out_of, groups=1, k=1)
    np.testing.assert_allclose(plan.load, [[[0.3, 0.7], [0.75, 0.25]]], rtol=1e-6)
    assert plan.dropped.tolist() == [[0, 0]]
    shares, indices = plan.choices
    np.testing.assert_allclose(shares, [[[0.7], [0.75]]], rtol=1e-6)
    assert indices.tolist() == [[[1], [0]]]


def test_what_an_assignment_tells_worked_by_hand():
    # One slot each for three experts; 3 is a choice that does not exist. Token 0 gets expert 0, so that token 1 does
    # not; both get their second choice: of two choices, token 1 has lost one.
    weights, indices = jnp.array([[[0.7, 0.3, 0.0], [0.6, 0.4, 0.0]]]), jnp.array([[[0, 1, 3], [0, 2, 3]]])
    plan = dispatch.assign_slots(weights, indices, num_experts=3, capacity=1)
    assert plan.kept.tolist() == [[[True, True, False], [False, True, False]]]
    assert plan.load.tolist() == [[[0.5, 0.5, 0], [0.5, 0, 0.5]]]
    assert plan.dropped.tolist() == [[0, 0.5]]
    np.testing.assert_array_equal(plan.choices[0], weights)
    np.testing.assert_array_equal(plan.choices[1], indices)


# Choices that do not exist.


def make_choices():
    """Two groups of seven tokens that choose two of three experts, with three slots each."""
    rng = np.random.default_rng(2)
    inputs = {
        "tokens": normal(rng, 2, 7, WIDTH),
        "weights": jnp.asarray(rng.random((2, 7, 2)), jnp.float32),
        "parameters": make_parameters(rng),
    }
    return inputs, np.argsort(rng.random((2, 7, EXPERTS)), axis=-1)[..., :2].astype(np.int32), normal(rng, 2, 7, WIDTH)


def assigned(inputs, indices, priority):
    return dispatch.assign_slots(
        inputs["weights"], jnp.array(indices), num_experts=EXPERTS, capacity=3, priority=priority
    )


def with_a_choice_that_does_not_exist(inputs, indices, column):
    """Expert E in that column, and a weight for it that must not count."""
    weights = np.insert(inputs["weights"], column, 0.5, axis=-1)
    return {**inputs, "weights": weights}, np.insert(indices, column, EXPERTS, axis=-1)


@functools.cache
def outputs_and_gradients_of_choices():
    inputs, indices, cotangent = make_choices()
    plan_of = lambda i: assigned(i, indices, inputs["weights"][..., 0])
    return outputs_and_gradients(plan_of, inputs, cotangent, dispatcher="reference")


@pytest.mark.parametrize("name", dispatch.DISPATCHERS)
def test_dispatchers_pass_over_a_choice_that_does_not_exist(name):
    inputs, indices, cotangent = make_choices()
    longer, new_indices = with_a_choice_that_does_not_exist(inputs, indices, 2)
    plan_of = lambda i: assigned(i, new_indices, inputs["weights"][..., 0])
    found = outputs_and_gradients(plan_of, longer, cotangent, dispatcher=name)
    to_weights = found[1]["weights"]
    np.testing.assert_array_equal(to_weights[..., 2], 0.0)
    found[1]["weights"] = to_weights[..., :2]
    assert_trees_close(found, outputs_and_gradients_of_choices(), 1e-5)


@pytest.mark.parametrize("column", [0, 1])
def test_a_choice_that_does_not_exist_takes_no_slot_and_is_not_dropped(column):
    inputs, indices, _ = make_choices()
    longer, new_indices = with_a_choice_that_does_not_exist(inputs, indices, column)

    @jax.jit
    def plan_of(inputs, indices, priority):
        plan = assigned(inputs, indices, priority)
        return plan.dropped, plan.load, plan.positions, plan.kept

    priority = inputs["weights"][..., 0]
    dropped, load, positions, _ = plan_of(inputs, indices, priority)
    new_dropped, new_load, new_positions, new_kept = plan_of(longer, new_indices, priority)
    assert {0.0, 0.5} <= set(dropped.ravel().tolist())
    np.testing.assert_array_equal(new_dropped, dropped)
    np.testing.assert_array_equal(new_load, load)
    np.testing.assert_array_equal(np.delete(new_positions, column, axis=-1), positions)
    assert not new_kept[..., column].any()


def test_an_unknown_dispatcher():
    plan = dispatch.assign_slots(jnp.ones((1, 2, 1)), jnp.zeros((1, 2, 1), jnp.int32), num_experts=2, capacity=2)
    known = ", ".join(sorted(dispatch.DISPATCHERS))
    assert "gather" in known
    with pytest.raises(ValueError, match=f"dispatcher: expected one of {known}; received 'telepathy'"):
        dispatch.carry_out(jnp.ones((1, 2, WIDTH)), plan, lambda rows: rows, dispatcher="telepathy")
