import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmoe_inform.routing import steps

from .compiled import routing


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


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


# Not all choices exist yet: K grows.


@pytest.mark.parametrize("renormalize", [True, False, "one"])
def test_active_choices_are_those_of_a_smaller_k(renormalize):
    probabilities = jax.nn.softmax(normal(0, 3, 7, 5))
    grown = jax.jit(lambda active: routing.top_experts(probabilities, 3, renormalize=renormalize, active=active))
    for active in (2, 3):
        weights, indices = grown(active)
        wanted = routing.top_experts(probabilities, active, renormalize=renormalize)
        np.testing.assert_allclose(weights[..., :active], wanted[0], rtol=1e-6)
        np.testing.assert_array_equal(indices[..., :active], wanted[1])
        np.testing.assert_array_equal(weights[..., active:], 0.0)
        np.testing.assert_array_equal(indices[..., active:], 5)


def test_the_only_active_choice_has_the_weight_of_a_sum_of_one():
    # K is 3 here, and renormalised weights sum to 1 whatever exists.
    weights, indices = routing.top_experts(jnp.array([[0.2, 0.5, 0.3]]), 3, active=jnp.array(1))
    assert weights.tolist() == [[1, 0, 0]]
    assert indices.tolist() == [[1, 3, 3]]
    # A row of zeros is shared evenly by the choices that exist.
    weights, _ = routing.top_experts(jnp.zeros((1, 4)), 3, active=jnp.array(2))
    assert weights.tolist() == [[0.5, 0.5, 0]]


def test_choices_that_do_not_exist_get_no_gradient():
    weigh = lambda p: routing.top_experts(p, 3, active=jnp.array(2))[0][0, 0]
    # a / (a + b) of the two largest: b / (a + b)^2 and -a / (a + b)^2.
    gradient = jax.grad(weigh)(jnp.array([[0.5, 0.3, 0.2]]))
    np.testing.assert_allclose(gradient, [[0.3 / 0.64, -0.5 / 0.64, 0.0]], rtol=1e-5)


# Experts choose tokens.


def test_expert_choice_worked_by_hand():
    probabilities = jnp.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    weights, tokens = routing.expert_choice(probabilities, 2)
    assert tokens.tolist() == [[0, 1], [2, 1]]
    np.testing.assert_allclose(weights, [[0.9, 0.6], [0.8, 0.4]])
    # Token 0 is filler: expert 0 takes it last, although it wants it most, and expert 1 the same two as before.
    weights, tokens = routing.expert_choice(probabilities, 2, real=jnp.array([False, True, True]))
    assert tokens.tolist() == [[1, 2], [2, 1]]
    np.testing.assert_allclose(weights, [[0.6, 0.2], [0.8, 0.4]])


def test_every_expert_is_full_of_its_best_tokens():
    probabilities = jax.nn.softmax(normal(1, 2, 9, 4))
    weights, tokens = routing.expert_choice(probabilities, 3)
    assert weights.shape == tokens.shape == (2, 4, 3)
    wanted = np.swapaxes(np.asarray(probabilities), 1, 2)
    np.testing.assert_array_equal(tokens, np.argsort(-wanted, axis=-1)[..., :3])
    np.testing.assert_array_equal(weights, -np.sort(-wanted, axis=-1)[..., :3])


# The registered steps.


def step_of(name, *, k=1, capacity=8, num_sequences=1, train=False, **options):
    """A registered step, compiled: (logits, probabilities, **arrays of the context) -> plan."""
    step = steps.SELECT_STEPS[name]

    @jax.jit
    def select(logits, probabilities=None, **arrays):
        context = steps.SelectContext(k, capacity, logits, num_sequences, train, **arrays)
        probabilities = jax.nn.softmax(logits) if probabilities is None else probabilities
        return step.function(probabilities, context, **{**step.option_defaults, **options})

    return select


def test_the_score_steps_own_gates_are_the_weights_of_the_chosen():
    logits, gates = normal(2, 2, 6, 4), normal(3, 2, 6, 4)
    select = step_of("top_experts", k=3)
    plan = select(logits, gates=gates)
    order = np.argsort(-np.asarray(logits), axis=-1)[..., :3]
    np.testing.assert_array_equal(plan.indices, order)
    np.testing.assert_array_equal(plan.weights, np.take_along_axis(np.asarray(gates), order, axis=-1))
    growing = select(logits, gates=gates, active=jnp.array(2))
    np.testing.assert_array_equal(growing.weights[..., :2], plan.weights[..., :2])
    np.testing.assert_array_equal(growing.weights[..., 2], 0.0)
    assert growing.kept[..., :2].all()
    assert not growing.kept[..., 2].any()


def test_gates_learn_and_probabilities_do_not_where_there_are_gates():
    logits, gates = normal(2, 1, 6, 4), normal(3, 1, 6, 4)

    def loss(logits, gates):
        context = steps.SelectContext(k=2, capacity=8, logits=logits, gates=gates)
        return jnp.sum(steps.SELECT_STEPS["top_experts"].function(jax.nn.softmax(logits), context).weights)

    to_logits, to_gates = jax.jit(jax.grad(loss, argnums=(0, 1)))(logits, gates)
    assert not np.any(to_logits)
    assert np.sum(to_gates, axis=-1).tolist() == [[2.0] * 6]  # 1 for each of the chosen


# Two groups of ten tokens, four experts.
SIZE, EXPERTS = 10, 4


@functools.cache
def balanced(train, gate="sigmoid"):
    return step_of("balanced_assignment", capacity=SIZE, train=train, gate=gate)


def crowded():
    """Logits of two groups in which nearly all tokens want expert 2, and which tokens are real."""
    logits, real = np.array(normal(4, 2, SIZE, EXPERTS)), np.ones((2, SIZE), bool)
    logits[..., 2] += 4
    real[1, 7:] = False
    return logits, real


def test_the_balanced_step_fills_experts_alike_in_training():
    logits, real = crowded()
    plan = balanced(train=True)(logits, real=real)
    wanted = np.bincount(np.argmax(logits[0], axis=-1), minlength=EXPERTS)
    assert wanted.max() > 3
    # ceil(10 / 4) = 3 at most, and ceil(7 / 4) = 2 of the seven real tokens of the second group.
    for g, most in ((0, 3), (1, 2)):
        counts = np.bincount(np.asarray(plan.indices)[g, real[g], 0], minlength=EXPERTS)
        assert counts.sum() == np.sum(real[g])
        assert counts.max() == most
    np.testing.assert_array_equal(plan.kept[..., 0], real)


def test_the_balanced_step_takes_the_best_expert_in_evaluation():
    logits, real = crowded()
    # Inform steps may have moved the probabilities away from the logits: the probabilities decide.
    probabilities = jax.nn.softmax(normal(5, 2, SIZE, EXPERTS))
    plan = balanced(train=False)(logits, probabilities, real=real)
    np.testing.assert_array_equal(plan.indices[..., 0], np.argmax(probabilities, axis=-1))
    assert np.any(plan.indices[..., 0] != np.argmax(logits, axis=-1))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("gate", ["sigmoid", "probability"])
def test_the_weight_of_the_balanced_step_is_the_sigmoid_of_the_chosen_logit(train, gate):
    logits, real = crowded()
    probabilities = jax.nn.softmax(normal(5, 2, SIZE, EXPERTS))
    plan = balanced(train, gate)(logits, probabilities, real=real)
    gates = np.asarray(probabilities) if gate == "probability" else 1 / (1 + np.exp(-np.float64(logits)))
    wanted = np.take_along_axis(gates, np.asarray(plan.indices), axis=-1)
    np.testing.assert_allclose(plan.weights, wanted, rtol=1e-5)


expert_choice_of_four = step_of("expert_choice", k=2, capacity=4)


@pytest.mark.parametrize("num_real", [0, 2, 4])
def test_expert_choice_gives_filler_no_slot(num_real):
    # The filler tokens, the last of the group, are what every expert would want most.
    real = np.arange(6)[None] < num_real
    logits = normal(6, 1, 6, 3) + np.where(real[..., None], 0, np.float32([0.0, 5.0, 9.0]))
    plan = expert_choice_of_four(logits, jax.nn.sigmoid(logits), real=real)
    tokens, filled = np.asarray(plan.tokens), np.asarray(plan.filled)
    for e in range(3):  # all real ones fit in: none is left out either
        assert sorted(tokens[0, e, filled[0, e]].tolist()) == list(range(num_real))
    np.testing.assert_array_equal(plan.load[0, num_real:], 0.0)
    np.testing.assert_array_equal(plan.dropped[0, num_real:], 1.0)


def test_expert_choice_with_more_slots_than_tokens_takes_every_token():
    probabilities = jax.nn.softmax(normal(7, 2, 6, 3))
    plan = step_of("expert_choice", k=2, capacity=8)(probabilities, probabilities)
    assert plan.tokens.shape == (2, 3, 6)
    assert plan.filled.all()
    np.testing.assert_array_equal(plan.load, 1.0)
    # All experts took all tokens, so that each token's choices are its top K.
    wanted = routing.top_experts(probabilities, 2, renormalize=False)
    np.testing.assert_allclose(plan.choices[0], wanted[0], rtol=1e-6)
    np.testing.assert_array_equal(plan.choices[1], wanted[1])


def test_soft_shares_sum_to_one_over_the_tokens_of_an_image_and_over_the_slots():
    slot_logits = normal(8, 2, 10, 3, 2)  # two groups of two images of five tokens; three experts with two slots
    logits = jax.nn.logsumexp(slot_logits, axis=-1)
    plan = step_of("soft", num_sequences=2)(logits, slot_logits=slot_logits)
    assert plan.into.shape == plan.out_of.shape == (4, 5, 3, 2)
    np.testing.assert_allclose(jnp.sum(plan.into, axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(jnp.sum(plan.out_of, axis=(2, 3)), 1.0, rtol=1e-6)
    # By the definition, for one token and one slot: tokens 5 to 9 of group 1 are image 3.
    exponentials = np.exp(np.asarray(slot_logits, np.float64))
    np.testing.assert_allclose(plan.into[3, 4, 2, 1], exponentials[1, 9, 2, 1] / exponentials[1, 5:, 2, 1].sum(), 1e-5)
    np.testing.assert_allclose(plan.out_of[3, 4, 2, 1], exponentials[1, 9, 2, 1] / exponentials[1, 9].sum(), 1e-5)
    # An expert's share of a token is its probability.
    np.testing.assert_allclose(plan.load, jax.nn.softmax(logits), rtol=1e-5)


def test_soft_without_slot_logits_has_one_slot_for_each_expert():
    logits = normal(9, 1, 10, 3)
    soft = step_of("soft", num_sequences=2)
    one, two = soft(logits), soft(logits, slot_logits=logits[..., None])
    assert one.into.shape == (2, 5, 3, 1)
    np.testing.assert_array_equal(one.into, two.into)
    np.testing.assert_array_equal(one.out_of, two.out_of)


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


@pytest.mark.usefixtures("shapes_unchecked")
def test_bad_expert_choice():
    for capacity in (0, 4):
        message = rf"capacity: expected an integer from 1 to 3 \(tokens\); received {capacity}"
        with pytest.raises(ValueError, match=message):
            routing.expert_choice(jnp.ones((3, 2)), capacity)
    with pytest.raises(ValueError, match=r"real: expected shape \[3\]; received \[2\]"):
        routing.expert_choice(jnp.ones((3, 2)), 1, real=jnp.ones(2, bool))
