"""The contract of every registered step, with its default options and with each other value of a named option."""

import collections
import types
from typing import Any, Literal, Union, get_args, get_origin

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from vmoe_inform import checks, routing
from vmoe_inform.routing import steps

B, N, D, H, F, E, K = 2, 5, 4, 2, 2, 6, 2
SIZES = steps.LayerSizes(hidden_size=D, num_experts=E)
REGISTRIES = {"score": steps.SCORE_STEPS, "inform": steps.INFORM_STEPS, "select": steps.SELECT_STEPS}


def named_values(hint: Any) -> list[Any]:
    """The values of an option that can be listed: booleans and literals, also inside a union."""
    if get_origin(hint) in (Union, types.UnionType):
        return [value for part in get_args(hint) for value in named_values(part)]
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [False, True] if hint is bool else []


def settings(kind: str) -> list[Any]:
    found = []
    for name in REGISTRIES[kind]:
        step = REGISTRIES[kind][name]
        found.append(pytest.param(step, {**step.option_defaults}, id=name))
        for option, hint in step.option_types.items():
            found += [
                pytest.param(step, {**step.option_defaults, option: value}, id=f"{name}-{option}={value}")
                for value in named_values(hint)
                if value != step.option_defaults[option]
            ]
    return found


def make_parameters(step, options):
    declared = step.parameters(SIZES, **options)
    keys = jax.random.split(jax.random.key(0), max(len(declared), 1))
    made = {
        name: p.initializer(key, p.shape, jnp.float32) for key, (name, p) in zip(keys, declared.items(), strict=False)
    }
    assert all(made[name].shape == p.shape for name, p in declared.items())
    return made


def make_inputs(seed, step, options):
    """Everything the layer may hand to an inform step, as a tree to differentiate: probabilities, tokens, ..."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    attention = steps.AttentionRecord(normal(B, H, N, F), normal(B, H, N, F), normal(B, H, N, D), normal(B, N, D))
    state = step.initial_state(SIZES, **options) if step.has_state else None
    return {
        "probabilities": jax.nn.softmax(normal(B, N, E)),
        "tokens": normal(B, N, D),
        "parameters": make_parameters(step, options),
        "attention": attention if step.needs_attention else None,
        "state": state if state is None else state + jnp.asarray(rng.random(state.shape), state.dtype),
    }


def context(inputs):
    return steps.InformContext(inputs["tokens"], inputs["parameters"], inputs["attention"], inputs["state"])


def assert_contract(function, first, second):
    """jit equals eager, one compilation for two calls, the same bits for the same input, finite gradients, float32."""
    traces = []

    @jax.jit
    def both(tree):
        traces.append(None)
        loss = lambda tree: sum(
            jnp.sum(leaf**2) for leaf in jax.tree.leaves(function(tree)) if jnp.issubdtype(leaf.dtype, jnp.floating)
        )
        return function(tree), jax.grad(loss)(tree)

    result, gradients = both(first)
    again, _ = both(first)
    both(second)
    assert len(traces) == 1
    assert all(leaf.dtype in (jnp.float32, jnp.int32) for leaf in jax.tree.leaves(result))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((result, gradients)))
    for one, two, eager in zip(*map(jax.tree.leaves, (result, again, function(first))), strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_allclose(one, eager, rtol=1e-5, atol=1e-6)
    assert_float32_products(both, first)
    return result


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from equations(inner)


def assert_float32_products(function, tree):
    """A router's matrix products are float32 at the highest precision, also on an accelerator (decision 6)."""
    for equation in equations(jax.make_jaxpr(function)(tree).jaxpr):
        if equation.primitive.name == "dot_general":
            assert set(equation.params["precision"]) == {jax.lax.Precision.HIGHEST}
            assert all(variable.aval.dtype == jnp.float32 for variable in equation.invars)


@pytest.mark.parametrize(("step", "options"), settings("score"))
def test_score_steps(step, options):
    parameters = make_parameters(step, options)
    trees = [
        {"tokens": jax.random.normal(jax.random.key(seed), (B, N, D)), "parameters": parameters} for seed in (1, 2)
    ]
    logits = assert_contract(lambda tree: step.function(tree["tokens"], tree["parameters"], **options), *trees)
    assert logits.shape == (B, N, E)


@pytest.mark.parametrize(("step", "options"), settings("inform"))
def test_inform_steps(step, options):
    trees = [make_inputs(seed, step, options) for seed in (1, 2)]
    informed = assert_contract(lambda tree: step.function(tree["probabilities"], context(tree), **options), *trees)
    assert informed.shape == (B, N, E)
    assert np.min(informed) >= 0


@pytest.mark.parametrize(("step", "options"), settings("inform"))
def test_the_graph_of_an_inform_step_is_what_its_function_applies(step, options):
    inputs = make_inputs(3, step, options)
    if step.graph is None:
        # Then tokens do not mix: to change the last token's probabilities changes nothing for the others.
        changed = inputs["probabilities"].at[:, -1].set(jax.nn.one_hot(0, E))
        one, two = (step.function(p, context(inputs), **options) for p in (inputs["probabilities"], changed))
        np.testing.assert_array_equal(one[:, :-1], two[:, :-1])
        return
    graph = step.graph(context(inputs), **options)
    assert graph.shape == (B, N, N)
    assert graph.dtype == jnp.float32
    np.testing.assert_allclose(jnp.sum(graph, axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(
        routing.inform(inputs["probabilities"], graph),
        step.function(inputs["probabilities"], context(inputs), **options),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize(("step", "options"), [p for p in settings("inform") if p.values[0].has_state])
def test_states_keep_their_shape_and_type_over_updates(step, options):
    state = step.initial_state(SIZES, **options)
    indices = jax.lax.top_k(jax.random.normal(jax.random.key(0), (B, N, E)), K)[1]
    update = jax.jit(lambda state: step.update_state(state, indices, **options))
    updated = update(state)
    assert (updated.shape, updated.dtype) == (state.shape, state.dtype)
    assert np.isfinite(updated).all()
    assert not np.array_equal(updated, state)
    np.testing.assert_allclose(updated, step.update_state(state, indices, **options), rtol=1e-6)


@pytest.mark.parametrize(("step", "options"), settings("select"))
@pytest.mark.parametrize("k", [1, K])
def test_select_steps(step, options, k):
    trees = [jax.nn.softmax(jax.random.normal(jax.random.key(seed), (B, N, E))) for seed in (1, 2)]
    weights, indices = assert_contract(lambda tree: step.function(tree, k, **options), *trees)
    assert weights.shape == indices.shape == (B, N, k)
    assert np.min(indices) >= 0
    assert np.max(indices) < E
    assert np.min(weights) >= 0
    assert all(len(set(chosen)) == k for chosen in np.asarray(indices).reshape(-1, k))


def test_every_option_has_a_default_of_its_own_type_and_every_step_a_name_of_its_own():
    found = [registry[name] for registry in REGISTRIES.values() for name in registry]
    for step in found:
        assert step.function.__doc__
        for option, hint in step.option_types.items():
            default = step.option_defaults[option]
            assert checks.conform(f"{step.name}.{option}", default, hint) == default
    # A config keeps options by step name, whatever the kind of step; "none" is a config's word for no inform step.
    assert not [name for name, count in collections.Counter(step.name for step in found).items() if count > 1]
    assert "none" not in steps.INFORM_STEPS


def test_a_step_whose_option_lacks_a_default_or_type_is_refused():
    def without_default(tokens, parameters, *, bias: bool):
        raise AssertionError

    def without_type(tokens, parameters, *, bias=False):
        raise AssertionError

    for function in (without_default, without_type):
        with pytest.raises(ValueError, match="step 'mine', option 'bias': expected a type and a default"):
            steps.ScoreStep("mine", function)


def test_a_state_needs_both_its_start_and_its_update():
    with pytest.raises(ValueError, match="'mine': expected both initial_state and update_state"):
        steps.InformStep("mine", lambda p, context: p, initial_state=lambda sizes: jnp.zeros(()))


# What the options of the built-in steps mean.


def test_symphony_threshold_leaves_small_entries_out():
    step = steps.INFORM_STEPS["symphony"]
    inputs = make_inputs(4, step, step.option_defaults)
    sparse = jnp.where(inputs["state"] < 0.5, 0.0, inputs["state"])
    np.testing.assert_array_equal(
        step.function(inputs["probabilities"], context(inputs), **{**step.option_defaults, "threshold": 0.5}),
        routing.expert_informed(inputs["probabilities"], sparse),
    )


def test_attention_without_the_head_factor_uses_means_divided_by_the_heads():
    step = steps.INFORM_STEPS["attention"]
    inputs = make_inputs(5, step, step.option_defaults)
    record = inputs["attention"]
    np.testing.assert_allclose(
        step.function(inputs["probabilities"], context(inputs), **{**step.option_defaults, "head_factor": False}),
        routing.attention_informed(
            inputs["probabilities"], record.queries, record.keys, record.means / H, record.outputs
        ),
        rtol=1e-6,
    )


def test_a_learned_similarity_starts_as_the_fixed_one():
    step = steps.INFORM_STEPS["similarity"]
    learned = {**step.option_defaults, "learned_weight": True}
    inputs = make_inputs(6, step, learned)
    np.testing.assert_allclose(
        step.function(inputs["probabilities"], context(inputs), **learned),
        step.function(inputs["probabilities"], context(inputs), **step.option_defaults),
        rtol=1e-6,
    )
