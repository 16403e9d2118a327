"""Symphony as published and as coded: intervals, warm-up and mixing, against loops over the steps of a training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform.routing import contract, steps

from . import slow

E, N, K, STEPS = 4, 6, 2, 9
DURATION = steps.Duration(STEPS, lambda: 3)
SIZES = steps.LayerSizes(hidden_size=2, num_experts=E, num_selected_experts=K, num_tokens=N, raw_input_size=0)
SYMPHONY = steps.INFORM_STEPS["symphony"]
CODED = {"normalization": "symmetric", "update_every": "epoch", "identity_share": 0.9, "warmup_steps": 5}


def train(choices, **options):
    """The state before each step and after the last one; each batch comes in two parts."""
    options = {**SYMPHONY.option_defaults, **options}

    def step(state, indices):
        context = steps.StepContext(tokens=jnp.zeros((1, N, 2)), parameters={}, state=state)
        counts = [SYMPHONY.observe(context, part[None], **options) for part in (indices[:2], indices[2:])]
        return SYMPHONY.update_state(state, sum(counts), {}, duration=DURATION, **options), state

    last, before = jax.jit(jax.lax.scan, static_argnums=0)(
        step, SYMPHONY.initial_state(jax.random.key(0), SIZES, **options), choices
    )
    states = [jax.tree.map(lambda leaf, done=done: leaf[done], before) for done in range(len(choices))]
    return [*states, last], options


def informed(probabilities, state, options):
    context = steps.StepContext(tokens=jnp.zeros((1, N, 2)), parameters={}, state=state)
    return SYMPHONY.function(jnp.asarray(probabilities), context, **options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {}),
        ({"normalization": "symmetric", "identity_share": 0.25}, {"normalization": "symmetric", "alpha": 0.25}),
        ({"update_every": 2}, {"every": 2}),
        ({"warmup_share": 0.4}, {"warmup": 4}),  # 0.4 * 9 = 3.6 steps
        (CODED, {"normalization": "symmetric", "every": 3, "warmup": 5, "alpha": 0.9}),
    ],
    ids=["published", "symmetric", "interval", "warmup", "coded"],
)
def test_equals_the_loops(options, expected):
    rng = np.random.default_rng(0)
    choices = np.argsort(rng.random((STEPS, N, E)) + np.array([0.0, 0.0, 0.3, 0.6]), axis=-1)[..., :K]
    choices[:2] = [0, 1]  # experts 2 and 3 have no count at first
    states, options = train(jnp.asarray(choices), **options)
    settings = {"decay": 0.9, "normalization": "row", "every": 1, "warmup": 0, "alpha": 0.0} | expected
    probabilities = rng.dirichlet(np.ones(E), (1, N)).astype(np.float32)
    for state, matrix in zip(states, slow.symphony(choices, E, **settings), strict=True):
        np.testing.assert_allclose(SYMPHONY.adjacency(state, **options), matrix, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(
            informed(probabilities, state, options)[0], probabilities[0] @ matrix.T, rtol=1e-5, atol=1e-7
        )


def test_a_warm_up_leaves_probabilities_as_they_are_and_learns():
    choices = jnp.broadcast_to(jnp.arange(K), (3, N, K))
    states, options = train(choices, warmup_steps=3)
    r = jax.nn.softmax(jnp.asarray(np.random.default_rng(1).normal(size=(1, N, E)), jnp.float32))
    np.testing.assert_array_equal(informed(r, states[2], options), r)
    assert np.any(states[2]["adjacency"] > 0)
    assert np.any(informed(r, states[3], options) != r)


@pytest.mark.slow
def test_keeps_the_contract():
    assert contract.check("symphony", **CODED)


def config(**options):
    return config_lib.parse(
        tiny.config_dict("symphony_vmoe", **{f"model__router__options__symphony__{n}": v for n, v in options.items()})
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmup_steps": 20}, "warmup_steps: expected less than the 20 training steps; received 20"),
        ({"update_every": 21}, "update_every: expected at most the 20 training steps; received 21"),
        ({"warmup_steps": 2, "warmup_share": 0.1}, "warmup_share: expected 0 with warmup_steps = 2; received 0.1"),
        ({"warmup_share": 1.0}, "warmup_share: expected float >= 0 and < 1; received 1.0"),
        ({"update_every": 0}, "update_every: expected int >= 1 .*'epoch'; received 0"),
        ({"update_every": "day"}, "update_every: expected int >= 1 .*'epoch'; received 'day'"),
        ({"normalization": "sym"}, "normalization: expected .*'symmetric'.*; received 'sym'"),
    ],
)
def test_bad_options_are_one_line(options, message):
    with pytest.raises(ValueError, match=rf"^model\.router\.options\.symphony\.{message}"):
        config(**options)


def test_a_run_is_at_least_as_long_as_the_epoch_that_it_counts_by():
    found = config(update_every="epoch")
    config_lib.check_duration(found, steps.Duration(20, lambda: 20))
    with pytest.raises(ValueError, match=r"update_every: expected at most the 20 training steps \(an epoch has 21\)"):
        config_lib.check_duration(found, steps.Duration(20, lambda: 21))
    with pytest.raises(ValueError, match="duration: expected the steps of an epoch"):
        _ = steps.Duration(20).epoch_steps
