"""StableMoE: the light router by hand, and the two stages of the step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmoe_inform import config as config_lib
from vmoe_inform.routing import steps

from .. import tiny
from .compiled import routing

SIZES = steps.LayerSizes(hidden_size=4, num_experts=3, num_selected_experts=1, num_tokens=5, raw_input_size=2)
STEP = steps.SCORE_STEPS["distilled"]
OPTIONS = {**STEP.option_defaults, "switch_step": 3, "width": 6}
LIGHT = ("embedding", "position", "centroids")


def test_light_scores_worked_by_hand():
    # tanh(ln 2) = (4 - 1) / (4 + 1) = 0.6 and tanh(-ln 3) = (1 - 9) / (1 + 9) = -0.8. The first token's features are
    # (tanh(2 ln 2 - ln 2), tanh(-ln 3)), the second's (tanh(ln 2), tanh(0)): its position alone.
    log_2, log_3 = np.log(2.0), np.log(3.0)
    patches = jnp.array([[2.0, 1.0], [0.0, 0.0]])
    embedding = jnp.array([[log_2, 0.0], [0.0, -log_3]])
    position = jnp.array([[-log_2, 0.0], [log_2, 0.0]])
    centroids = jnp.array([[1.0, 0.0], [0.0, 1.0], [10.0, 5.0]])
    logits = routing.light_scores(patches, embedding, position, centroids)
    np.testing.assert_allclose(logits, [[0.6, -0.8, 2.0], [0.6, 0.0, 6.0]], rtol=1e-6, atol=1e-7)


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((5, 3), (5, 6), (3, 6)), r"embedding: expected shape \[2, W\]; received \[5, 3\]"),
        (((2, 6), (4, 6), (3, 6)), r"position: expected shape \[5, 6\]; received \[4, 6\]"),
        (((2, 6), (5, 6), (3, 5)), r"centroids: expected shape \[E, 6\]; received \[3, 5\]"),
    ],
)
def test_light_scores_of_shapes_that_do_not_fit(shapes, message):
    with pytest.raises(ValueError, match=message):
        routing.light_scores(jnp.ones((7, 5, 2)), *(jnp.ones(shape) for shape in shapes))


def normal(rng, *shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def make_parameters(seed):
    """Different ones at each step of a training, as an optimizer would leave them."""
    rng = np.random.default_rng(seed)
    return {name: normal(rng, *p.shape) for name, p in STEP.parameters(SIZES, **OPTIONS).items()}


def make_context(parameters, state):
    rng = np.random.default_rng(99)
    return steps.StepContext(normal(rng, 2, 5, 4), parameters, state=state, raw_inputs=normal(rng, 2, 5, 2))


@pytest.fixture(scope="module")
def training():
    """The contexts of six training steps: the parameters change in each, the state as the step updates it."""
    contexts, state = [], STEP.initial_state(jax.random.key(0), SIZES, **OPTIONS)
    for number in range(6):
        contexts.append(make_context(make_parameters(number), state))
        state = STEP.update_state(state, jnp.zeros(()), contexts[-1].parameters, **OPTIONS)
    return contexts


def test_the_learned_scores_decide_until_the_switch_and_a_frozen_copy_from_then_on(training):
    logits = [STEP.function(context, **OPTIONS) for context in training]
    for step in (0, 1, 2):
        learned = routing.linear_scores(training[step].tokens, training[step].parameters["kernel"])
        np.testing.assert_allclose(logits[step], learned, rtol=1e-6, atol=1e-6)  # one program, and its operations
    # The light router of the last step before the switch, whatever happens to the parameters afterwards.
    last = training[2].parameters
    light = routing.light_scores(training[2].raw_inputs, *(last[name] for name in LIGHT))
    for step in (3, 4, 5):
        np.testing.assert_allclose(logits[step], light, rtol=1e-6, atol=1e-6)


def test_the_state_counts_steps_and_changes_at_the_switch_only(training):
    assert [int(context.state["step"]) for context in training] == [0, 1, 2, 3, 4, 5]
    for name in LIGHT:
        for step, context in enumerate(training):
            wanted = np.zeros_like(context.state[name]) if step < 3 else training[2].parameters[name]
            np.testing.assert_array_equal(context.state[name], wanted)


def test_gates_are_the_sigmoids_of_the_learned_scores_in_both_stages(training):
    for step in (0, 5):
        tokens, kernel = (
            np.asarray(a, np.float64) for a in (training[step].tokens, training[step].parameters["kernel"])
        )
        np.testing.assert_allclose(STEP.gates(training[step], **OPTIONS), 1 / (1 + np.exp(-tokens @ kernel)), rtol=1e-5)


def test_the_distillation_loss_is_the_cross_entropy_to_the_learned_choice(training):
    context = training[1]
    parameters = (context.parameters[name] for name in LIGHT)
    light = np.asarray(routing.light_scores(context.raw_inputs, *parameters), np.float64)
    wanted = np.zeros(2)
    for b, n in np.ndindex(2, 5):
        choice = np.argmax(context.tokens[b, n] @ context.parameters["kernel"])
        wanted[b] += (np.log(np.sum(np.exp(light[b, n]))) - light[b, n, choice]) / 5
    losses = STEP.losses(context, **OPTIONS)
    assert list(losses) == ["distillation"]
    np.testing.assert_allclose(losses["distillation"], wanted, rtol=1e-5)


def gradients(function, context):
    """Largest gradient of each parameter."""
    of = lambda parameters: jnp.sum(function(make_context(parameters, context.state)) ** 2)
    return {name: float(np.abs(g).max()) for name, g in jax.jit(jax.grad(of))(context.parameters).items()}


def test_distillation_teaches_the_light_router_only_and_ends_at_the_switch(training):
    distillation = lambda context: STEP.losses(context, **OPTIONS)["distillation"]
    before = gradients(distillation, training[2])
    assert before.pop("kernel") == 0
    assert min(before.values()) > 0
    assert set(gradients(distillation, training[3]).values()) == {0.0}
    assert distillation(training[3]).tolist() == [0, 0]


def test_after_the_switch_the_layer_goes_on_to_learn_through_its_gates_alone(training):
    assert set(gradients(lambda context: STEP.function(context, **OPTIONS), training[3]).values()) == {0.0}
    through_gates = gradients(lambda context: STEP.gates(context, **OPTIONS), training[3])
    assert through_gates.pop("kernel") > 0
    assert set(through_gates.values()) == {0.0}


def test_the_switch_comes_before_the_end_of_the_training():
    config = config_lib.parse(tiny.config_dict("stablemoe"))  # the switch is at step 10
    config_lib.check_duration(config, steps.Duration(11))
    message = r"model\.router\.options\.distilled\.switch_step: expected less than the 10 training steps; received 10"
    with pytest.raises(ValueError, match=message):
        config_lib.check_duration(config, steps.Duration(10))
    with pytest.raises(ValueError, match="less than the 10 training steps; received 10"):
        config_lib.parse(tiny.config_dict("stablemoe", train__steps=10))


def test_the_light_router_of_words_sees_nothing_but_the_word():
    step = steps.SCORE_STEPS["distilled"]
    sizes = dataclasses.replace(SIZES, vocabulary_size=7)
    declared = step.parameters(sizes, **step.option_defaults)
    assert declared["embedding"].shape == (7, 50)
    assert "position" not in declared
    state = {name: jnp.ones(declared[name].shape) for name in ("embedding", "centroids")}
    state["embedding"] = state["embedding"].at[2].set(-1.0)
    state["step"] = jnp.asarray(1000)
    context = steps.StepContext(
        jnp.zeros((1, 5, 4)), {"kernel": jnp.zeros((4, 3))}, state, raw_inputs=jnp.array([[2, 1, 2, 0, 1]])
    )
    logits = step.function(context, **step.option_defaults)
    np.testing.assert_array_equal(logits[0, :, 0], 50.0 * np.array([-1, 1, -1, 1, 1]))
