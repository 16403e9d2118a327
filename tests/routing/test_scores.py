import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmoe_inform import config as config_lib
from vmoe_inform.routing import steps

from .. import tiny
from .compiled import routing

SIZES = steps.LayerSizes(hidden_size=4, num_experts=6, num_selected_experts=2, num_tokens=5, raw_input_size=3)


def test_linear_scores_worked_by_hand():
    # [1, 2] @ [[1, 0, -1], [0.5, 1, 2]] = [1 + 1, 0 + 2, -1 + 4]; plus the bias [0, 10, 0]
    kernel = jnp.array([[1.0, 0.0, -1.0], [0.5, 1.0, 2.0]])
    tokens = jnp.array([[1.0, 2.0]])
    np.testing.assert_array_equal(routing.linear_scores(tokens, kernel), [[2.0, 2.0, 3.0]])
    np.testing.assert_array_equal(
        routing.linear_scores(tokens, kernel, jnp.array([0.0, 10.0, 0.0])), [[2.0, 12.0, 3.0]]
    )


def test_cosine_scores_worked_by_hand():
    # The projection takes (3, 4, 9) to (3, 4), of length 5: cosines 3/5 and -4/5 to the axes; divided by 0.5.
    projection = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    experts = jnp.array([[7.0, 0.0], [0.0, -0.1]])
    logits = routing.cosine_scores(jnp.array([[3.0, 4.0, 9.0], [0.0, 0.0, 9.0]]), projection, experts, 0.5)
    # The second token is projected to zero: it has no direction, all its logits are 0.
    np.testing.assert_allclose(logits, [[1.2, -1.6], [0.0, 0.0]], rtol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1e-25, 1e4, 1e30])
def test_cosine_scores_do_not_depend_on_the_length_of_tokens(scale):
    rng = np.random.default_rng(0)
    tokens, projection, experts = (jnp.array(rng.normal(size=s), jnp.float32) for s in ((5, 4), (4, 3), (6, 3)))
    score = lambda u: routing.cosine_scores(u, projection, experts, 0.3)
    wanted = score(tokens) if scale else jnp.zeros((5, 6))
    np.testing.assert_allclose(score(tokens * scale), wanted, rtol=1e-4, atol=1e-5)
    assert np.isfinite(jax.grad(lambda u: score(u).sum())(tokens * scale)).all()


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def make_step(name, **options):
    """A registered score step with its options filled in, and parameters for it: random, scalars as they start."""
    step = steps.SCORE_STEPS[name]
    options = {**step.option_defaults, **options}
    declared = step.parameters(SIZES, **options)
    start = lambda p: normal(1, *p.shape) if p.shape else p.initializer(jax.random.key(0), (), jnp.float32)
    function = jax.jit(lambda tokens, parameters: step.function(steps.StepContext(tokens, parameters), **options))
    return function, {key: start(p) for key, p in declared.items()}


cosine_scores = jax.jit(routing.cosine_scores)


def test_the_temperature_of_the_cosine_step_is_learned_from_where_the_option_starts_it():
    function, parameters = make_step("cosine", temperature=0.2)
    tokens = normal(0, 2, 5, 4)
    wanted = cosine_scores(tokens, parameters["projection"], parameters["expert_embeddings"], 0.2)
    np.testing.assert_allclose(function(tokens, parameters), wanted, rtol=1e-5)
    # d (cos / exp(l)) / d l = -cos / exp(l): minus the logits.
    gradient = jax.grad(lambda p: jnp.sum(function(tokens, p)))(parameters)
    np.testing.assert_allclose(gradient["log_temperature"], -jnp.sum(wanted), rtol=1e-4)


@pytest.mark.parametrize("log_temperature", [-80.0, -1.0, 80.0])
def test_the_temperature_of_the_cosine_step_is_positive_whatever_its_parameter(log_temperature):
    function, parameters = make_step("cosine")
    tokens = normal(0, 2, 5, 4)
    cosines = cosine_scores(tokens, parameters["projection"], parameters["expert_embeddings"], 1.0)
    logits = function(tokens, {**parameters, "log_temperature": jnp.array(log_temperature)})
    assert np.isfinite(logits).all()
    assert {-1.0, 1.0} == set(np.sign(cosines).ravel().tolist())
    np.testing.assert_array_equal(np.sign(logits), np.sign(cosines))


@pytest.mark.parametrize(("width", "expected"), [(None, 8), (5, 5)])
def test_the_width_of_the_cosine_step(width, expected):
    declared = steps.SCORE_STEPS["cosine"].parameters(SIZES, width=width, temperature=0.3)
    assert declared["projection"].shape == (4, expected)
    many = dataclasses.replace(SIZES, num_experts=33)  # half of them, rounded up
    declared = steps.SCORE_STEPS["cosine"].parameters(many, width=None, temperature=0.3)
    assert declared["expert_embeddings"].shape == (33, 17)


def test_one_soft_slot_for_each_expert_is_the_cosine_router():
    function, parameters = make_step("soft_slots", slots_per_expert=1)
    tokens = normal(0, 2, 5, 4)
    found = function(tokens, {**parameters, "scale": jnp.array(2.5)})
    wanted = cosine_scores(tokens, jnp.eye(4), parameters["slots"][:, 0], 1 / 2.5)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_soft_slots_do_not_depend_on_the_length_of_tokens_or_slots():
    tokens, slots = normal(0, 5, 4), normal(1, 6, 3, 4)
    score = jax.jit(routing.soft_slot_scores)
    scores = score(tokens, slots, 2.0)
    lengths = jnp.linspace(0.1, 50.0, 5)[:, None]
    np.testing.assert_allclose(score(lengths * tokens, 7 * slots, 2.0), scores, rtol=1e-5, atol=1e-6)
    assert np.abs(scores).max() <= 2.0 * (1 + 1e-6)


@pytest.mark.parametrize(("slots_per_expert", "expected"), [(None, 1), (3, 3)])
def test_soft_slots_are_as_many_as_tokens_unless_told(slots_per_expert, expected):
    of = lambda sizes: (
        steps.SCORE_STEPS["soft_slots"].parameters(sizes, slots_per_expert=slots_per_expert)["slots"].shape
    )
    assert of(SIZES) == (6, expected, 4)
    assert of(dataclasses.replace(SIZES, num_tokens=13))[1] == (3 if slots_per_expert is None else slots_per_expert)


@pytest.mark.parametrize(("num_ids", "num_experts", "k"), [(50, 8, 3), (5, 6, 6), (1, 1, 1)])
def test_a_balanced_table(num_ids, num_experts, k):
    table = np.asarray(routing.balanced_table(jax.random.key(3), num_ids, num_experts, k))
    assert table.shape == (num_ids, k)
    assert all(len(set(row)) == k and set(row) <= set(range(num_experts)) for row in table.tolist())
    for column in table.T:
        counts = np.bincount(column, minlength=num_experts)
        assert counts.max() - counts.min() <= 1


def test_a_balanced_table_is_random_and_comes_from_its_key():
    one, again, other = (routing.balanced_table(jax.random.key(s), 50, 8, 3) for s in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.any(one != other)
    assert len({tuple(row) for row in one.tolist()}) > 1


@pytest.mark.parametrize("k", [0, 5])
def test_a_balanced_table_of_more_experts_than_there_are(k):
    with pytest.raises(ValueError, match=rf"k: expected an integer from 1 to 4 \(experts\); received {k}"):
        routing.balanced_table(jax.random.key(0), 10, 4, k)


def test_the_experts_of_a_position_share_its_probability_alike():
    step = steps.SCORE_STEPS["hash"]
    state = step.initial_state(jax.random.key(0), SIZES, ids="position")
    logits = step.function(steps.StepContext(normal(0, 3, 5, 4), {}, state=state))
    probabilities = np.asarray(jax.nn.softmax(logits))
    assert set(probabilities.ravel().tolist()) == {0.0, 0.5}
    np.testing.assert_array_equal(probabilities.sum(-1), 1.0)
    # The same for each image, whatever its tokens; 5 positions x 2 experts over 6 experts.
    np.testing.assert_array_equal(probabilities, np.broadcast_to(probabilities[:1], probabilities.shape))
    assert set(np.sum(probabilities[0] > 0, axis=0).tolist()) <= {0, 1, 2}


def test_hash_scores_worked_by_hand():
    probabilities = jax.nn.softmax(routing.hash_scores(jnp.array([[0, 2], [1, 0]]), 3))
    np.testing.assert_array_equal(probabilities, [[0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])


# K that grows.


@pytest.mark.parametrize(
    ("progress", "active"),
    # Four values of K in half of the training: an eighth of it each.
    [(0.0, 1), (0.124, 1), (0.126, 2), (0.249, 2), (0.251, 3), (0.374, 3), (0.376, 4), (0.5, 4), (0.501, 4), (1.0, 4)],
)
def test_k_grows_in_equal_times(progress, active):
    assert int(steps.Growth(1, 4, 0.5).active(progress)) == active


def test_k_that_grows_over_the_whole_training_never_exceeds_its_end():
    progress = (np.arange(1000) + 0.5) / 1000
    ks = jax.vmap(steps.Growth(2, 6, 1.0).active)(jnp.asarray(progress, jnp.float32))
    assert np.bincount(ks).tolist() == [0, 0, 200, 200, 200, 200, 200]
    assert int(steps.Growth(2, 6, 1.0).active(1.0)) == 6
    assert int(steps.Growth(3, 3, 0.1).active(0.0)) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k_start": 1, "k_end": 5}, r"k_end: expected at most model\.moe\.num_experts = 4; received 5"),
        ({"k_start": 4, "k_end": 3}, "k_start: expected at most the K at the end, 3; received 4"),
        ({"k_start": 3, "k_end": None}, "k_start: expected at most the K at the end, 2; received 3"),
        ({"k_start": None, "k_end": 2}, "k_end: expected None when k_start is None .*; received 2"),
        ({"k_start": 0}, "k_start: expected int >= 1 and <= 1048576 or None; received 0"),
        ({"growth_share": 0.0}, "growth_share: expected float >= 1e-06 and <= 1; received 0.0"),
    ],
)
def test_a_k_that_cannot_grow_so(options, message):
    config = tiny.config_dict("smoe_dropout", model__moe__num_selected_experts=2)
    config_lib.parse_model(config.model)
    config.model.router.options.frozen.update(options)
    with pytest.raises(ValueError, match=r"^model\.router\.options\.frozen\." + message):
        config_lib.parse_model(config.model)


def test_k_may_grow_beyond_the_k_of_evaluation():
    config = tiny.config_dict("smoe_dropout", model__moe__num_selected_experts=2)
    config.model.router.options.frozen.update({"k_start": 1, "k_end": 4})
    model = config_lib.parse_model(config.model)
    step = steps.SCORE_STEPS["frozen"]
    assert step.growth(model.layer_sizes, **config_lib.options_of(model.router, step)) == steps.Growth(1, 4, 1.0)


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: routing.linear_scores(jnp.ones((3, 4)), jnp.ones((5, 2))),
            r"kernel: expected shape \[4, E\]; received \[5, 2\]",
        ),
        (
            lambda: routing.linear_scores(jnp.ones((3, 4)), jnp.ones((4, 2)), jnp.ones(3)),
            r"bias: expected shape \[2\]; received \[3\]",
        ),
        (
            lambda: routing.cosine_scores(jnp.ones((3, 4)), jnp.ones((5, 2)), jnp.ones((6, 2)), 1.0),
            r"projection: expected shape \[4, d\]; received \[5, 2\]",
        ),
        (
            lambda: routing.cosine_scores(jnp.ones((3, 4)), jnp.ones((4, 2)), jnp.ones((6, 3)), 1.0),
            r"expert_embeddings: expected shape \[E, 2\]; received \[6, 3\]",
        ),
        (
            lambda: routing.cosine_scores(jnp.ones((3, 4)), jnp.ones((4, 2)), jnp.ones((6, 2)), 0.0),
            r"temperature: expected a number > 0 .*; received 0.0",
        ),
        (
            lambda: routing.soft_slot_scores(jnp.ones((3, 4)), jnp.ones((6, 2, 5)), 1.0),
            r"slots: expected shape \[E, P, 4\]; received \[6, 2, 5\]",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_every_word_has_the_experts_of_its_id():
    step = steps.SCORE_STEPS["hash"]
    sizes = dataclasses.replace(SIZES, vocabulary_size=12)
    state = step.initial_state(jax.random.key(0), sizes, ids="vocabulary")
    assert state.shape == (12, sizes.num_experts)
    np.testing.assert_array_equal(np.sum(state, axis=1), sizes.num_selected_experts)
    np.testing.assert_array_equal(np.sum(state, axis=0), 12 * sizes.num_selected_experts / sizes.num_experts)
    words = jnp.array([[3, 3, 11, 0, 3]])
    logits = step.function(steps.StepContext(jnp.zeros((1, 5, 4)), {}, state, raw_inputs=words), ids="vocabulary")
    np.testing.assert_array_equal(jax.nn.softmax(logits) > 0, state[words])
    with pytest.raises(ValueError, match=r"ids: expected 'position' .*; received 'vocabulary'"):
        step.check(SIZES, ids="vocabulary")
