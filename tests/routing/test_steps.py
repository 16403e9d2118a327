"""The contract of every registered step, with its default options and with each other value of a named option."""

import collections
import dataclasses
import types
from typing import Any, Literal, Union, get_args, get_origin

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from vmoe_inform import checks, routing
from vmoe_inform import config as config_lib
from vmoe_inform.dispatch import carry_out
from vmoe_inform.routing import steps

B, N, D, H, F, E, K = 2, 5, 4, 2, 2, 6, 2
GROUPS, PER_GROUP = 2, 2  # groups, and images of a group
VALUES = 3  # numbers in the pixels of one patch
SIZES = steps.LayerSizes(hidden_size=D, num_experts=E, num_selected_experts=K, num_tokens=N, patch_values=VALUES)
REGISTRIES = {"score": steps.SCORE_STEPS, "inform": steps.INFORM_STEPS, "select": steps.SELECT_STEPS}


def named_values(hint: Any) -> list[Any]:
    """The values of an option that can be listed: booleans and literals, also inside a union."""
    if get_origin(hint) in (Union, types.UnionType):
        return [value for part in get_args(hint) for value in named_values(part)]
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [False, True] if hint is bool else []


def fits(step, options, k):
    """Whether the step accepts these options for a layer of that K."""
    try:
        step.check(dataclasses.replace(SIZES, num_selected_experts=k), **options)
    except checks.InputError:
        return False
    return True


def settings(kind: str) -> list[Any]:
    found = []
    for name in REGISTRIES[kind]:
        step = REGISTRIES[kind][name]
        assert fits(step, step.option_defaults, K) or fits(step, step.option_defaults, 1)
        found.append(pytest.param(step, {**step.option_defaults}, id=name))
        for option, hint in step.option_types.items():
            changed = [{**step.option_defaults, option: value} for value in named_values(hint)]
            found += [
                pytest.param(step, options, id=f"{name}-{option}={options[option]}")
                for options in changed
                if options != step.option_defaults and (fits(step, options, K) or fits(step, options, 1))
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


def head_entropies(queries, keys):
    attention = jax.nn.softmax(jnp.einsum("bihf,bjhf->bhij", queries, keys) / F**0.5)
    return jnp.mean(-jnp.sum(attention * jnp.log(attention), axis=-1), axis=-1)


def make_inputs(seed, step, options):
    """What the layer hands to a step: ``learned``, to be differentiated, and the rest, ``fixed``."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    queries, keys, values = normal(B, N, H, F), normal(B, N, H, F), normal(B, N, H, F)
    attention = steps.AttentionRecord(
        queries, keys, values, normal(B, N, H, F), normal(H, F, D), head_entropies(queries, keys)
    )
    previous = steps.PreviousLayer(
        jax.nn.softmax(normal(B, N, E)), jnp.argsort(normal(B, N, E), axis=-1)[..., :K].astype(jnp.int32)
    )
    state = step.initial_state(jax.random.key(seed), SIZES, **options) if step.has_state else None
    if step.updates_state:  # as it may be after some training
        state = jax.tree.map(lambda a: a + jnp.asarray(0.1 * rng.random(a.shape), a.dtype), state)
    learned = {"probabilities": jax.nn.softmax(normal(B, N, E)), "tokens": normal(B, N, D)}
    learned |= {"parameters": make_parameters(step, options), "attention": attention if step.needs_attention else None}
    return {
        "learned": learned,
        "fixed": {
            "state": state,
            "patches": normal(B, N, VALUES) if step.needs_patches else None,
            "previous": previous if step.needs_previous else None,
        },
    }


def context(inputs):
    learned = inputs["learned"]
    return steps.StepContext(
        learned["tokens"], learned["parameters"], attention=learned["attention"], **inputs["fixed"]
    )


def probabilities(inputs):
    return inputs["learned"]["probabilities"]


def floats(tree):
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]


def assert_contract(function, first, second):
    """jit equals eager, one compilation for two calls, the same bits for the same input, finite gradients, float32."""
    traces = []

    @jax.jit
    def both(tree):
        traces.append(None)
        loss = lambda learned: sum(jnp.sum(leaf**2) for leaf in floats(function({**tree, "learned": learned})))
        return function(tree), jax.grad(loss)(tree["learned"])

    result, gradients = both(first)
    again, _ = both(first)
    both(second)
    assert len(traces) == 1
    assert all(leaf.dtype in (jnp.float32, jnp.int32, jnp.bool_) for leaf in jax.tree.leaves(result))
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


def assert_float32_products(function, *arguments):
    """A router's matrix products are float32 at the highest precision, also on an accelerator (decision 6).

    Factors may be bfloat16 as they come from the model: their products are exact in float32.
    """
    for equation in equations(jax.make_jaxpr(function)(*arguments).jaxpr):
        if equation.primitive.name == "dot_general":
            assert set(equation.params["precision"]) == {jax.lax.Precision.HIGHEST}
            assert equation.outvars[0].aval.dtype == jnp.float32
            assert {variable.aval.dtype.name for variable in equation.invars} in ({"float32"}, {"bfloat16"})


@pytest.mark.parametrize(("step", "options"), settings("score"))
def test_score_steps(step, options):
    inputs = [make_inputs(seed, step, options) for seed in (1, 2)]
    logits = assert_contract(lambda tree: step.function(context(tree), **options), *inputs)
    assert logits.shape == (B, N, E)
    if step.gates is not None:
        gates = assert_contract(lambda tree: step.gates(context(tree), **options), *inputs)
        assert gates.shape == (B, N, E)
        assert np.min(gates) >= 0
    if step.slot_logits is not None:
        slot_logits = assert_contract(lambda tree: step.slot_logits(context(tree), **options), *inputs)
        assert slot_logits.shape[:-1] == (B, N, E)
        # The share of an expert among experts is that of its slots among slots.
        shares = jnp.sum(jax.nn.softmax(slot_logits, axis=(2, 3)), axis=-1)
        np.testing.assert_allclose(jax.nn.softmax(logits), shares, rtol=1e-5)
    if step.losses is not None:
        losses = assert_contract(lambda tree: step.losses(context(tree), **options), *inputs)
        assert set(losses) == set(step.loss_names)
        assert set(losses) <= {field.name for field in dataclasses.fields(config_lib.LossWeights)}
        assert all(value.shape == (B,) for value in losses.values())
    assert step.selects is None or set(step.selects) <= set(steps.SELECT_STEPS)


@pytest.mark.parametrize(("step", "options"), settings("inform"))
def test_inform_steps(step, options):
    inputs = [make_inputs(seed, step, options) for seed in (1, 2)]
    informed = assert_contract(lambda tree: step.function(probabilities(tree), context(tree), **options), *inputs)
    assert informed.shape == (B, N, E)
    assert np.min(informed) >= 0


@pytest.mark.parametrize(
    "step", [r[name] for r in (steps.SCORE_STEPS, steps.INFORM_STEPS) for name in r], ids=lambda step: step.name
)
def test_steps_in_a_bfloat16_model_round_nothing_more(step):
    """What the model hands over in bfloat16 gives what the same numbers in float32 give."""
    inputs = make_inputs(8, step, step.option_defaults)
    as_type = lambda dtype: lambda tree: jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(dtype), tree)

    def results(dtype):
        handed = {name: as_type(dtype)(inputs["learned"][name]) for name in ("tokens", "attention")}
        here = context({**inputs, "learned": {**inputs["learned"], **handed}})
        given = (probabilities(inputs),) if isinstance(step, steps.InformStep) else ()
        return step.function(*given, here, **step.option_defaults)

    in_bfloat16, in_float32 = jax.jit(lambda: (results(jnp.bfloat16), results(jnp.float32)))()
    assert in_bfloat16.dtype == jnp.float32
    np.testing.assert_allclose(in_bfloat16, in_float32, rtol=1e-5, atol=1e-6)
    assert_float32_products(lambda dtype=jnp.bfloat16: results(dtype))


@pytest.mark.parametrize(("step", "options"), settings("inform"))
def test_the_graph_of_an_inform_step_is_what_its_function_applies(step, options):
    inputs = make_inputs(3, step, options)
    if step.graph is None:
        # Then tokens do not mix: to change the last token's probabilities changes nothing for the others.
        changed = probabilities(inputs).at[:, -1].set(jax.nn.one_hot(0, E))
        one, two = (step.function(p, context(inputs), **options) for p in (probabilities(inputs), changed))
        np.testing.assert_array_equal(one[:, :-1], two[:, :-1])
        return
    graph = step.graph(context(inputs), **options)
    assert graph.shape == (B, N, N)
    assert graph.dtype == jnp.float32
    np.testing.assert_allclose(jnp.sum(graph, axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(
        routing.inform(probabilities(inputs), graph),
        step.function(probabilities(inputs), context(inputs), **options),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("step", "options"), [p for kind in ("score", "inform") for p in settings(kind) if p.values[0].updates_state]
)
def test_states_keep_their_shape_and_type_over_updates(step, options):
    state = step.initial_state(jax.random.key(0), SIZES, **options)
    inputs = make_inputs(7, step, options)
    indices = jax.lax.top_k(jax.random.normal(jax.random.key(0), (B, N, E)), K)[1]

    def update(state):
        return step.update_state(dataclasses.replace(context(inputs), state=state), indices, **options)

    updated = jax.jit(update)(state)
    chex.assert_trees_all_equal_shapes_and_dtypes(updated, state)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(updated))
    assert any(not np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, (updated, state)), strict=True))
    chex.assert_trees_all_close(updated, update(state), rtol=1e-6)


@pytest.mark.parametrize(
    "step", [r[name] for r in (steps.SCORE_STEPS, steps.INFORM_STEPS) for name in r], ids=lambda step: step.name
)
def test_states_that_are_random_come_from_the_key(step):
    if step.has_state:
        one, again, other = (step.initial_state(jax.random.key(s), SIZES, **step.option_defaults) for s in (0, 0, 1))
        chex.assert_trees_all_equal(one, again)
        if not step.updates_state:  # a state that never changes is there because it is random
            assert any(not np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, (one, other)), strict=True))


@pytest.mark.parametrize(
    ("step", "options", "k"),
    [pytest.param(*p.values, k, id=f"{p.id}-{k}") for p in settings("select") for k in (1, K) if fits(*p.values, k)],
)
@pytest.mark.parametrize("train", [False, True])
def test_select_steps(step, options, k, train):
    size = PER_GROUP * N
    kernel = jax.random.normal(jax.random.key(5), (E, D, D))

    def plan_of(tree):
        logits = tree["learned"]["logits"]
        here = steps.SelectContext(
            k=k, capacity=4, logits=logits, num_images=PER_GROUP, train=train, real=tree["fixed"]["real"]
        )
        return step.function(jax.nn.softmax(logits), here, **options)

    def seen(tree):
        plan = plan_of(tree)
        return plan.load, plan.dropped, plan.choices

    @jax.jit
    def move(tree):
        experts = lambda rows: jnp.einsum("egtd,edf->egtf", rows, kernel)
        return carry_out(tree["learned"]["tokens"], plan_of(tree), experts)

    # The second image of the second group is filler.
    real = jnp.ones((GROUPS, size), bool).at[1, N:].set(False)
    trees = [
        {
            "learned": {
                "logits": jax.random.normal(jax.random.key(seed), (GROUPS, size, E)),
                "tokens": jax.random.normal(jax.random.key(seed + 10), (GROUPS, size, D)),
            },
            "fixed": {"real": real},
        }
        for seed in (1, 2)
    ]
    load, dropped, (weights, indices) = assert_contract(seen, *trees)
    assert load.shape == (GROUPS, size, E)
    assert dropped.shape == (GROUPS, size)
    assert weights.shape == indices.shape == (GROUPS, size, k)
    assert 0 <= np.min(dropped) <= np.max(dropped) <= 1
    assert np.min(load) >= 0
    assert 0 <= np.min(indices) <= np.max(indices) <= E
    assert np.min(weights) >= 0
    assert not np.any(np.asarray(weights)[np.asarray(indices) == E])
    for chosen in np.asarray(indices).reshape(-1, k):
        assert len(set(chosen[chosen < E])) == np.sum(chosen < E)
    # What filler images hold changes nothing for the real ones.
    other = jax.tree.map(jnp.copy, trees[0])
    other["learned"] = {name: value.at[1, N:].set(3.0) for name, value in other["learned"].items()}
    before, after = (jnp.where(real[..., None], move(tree), 0) for tree in (trees[0], other))
    np.testing.assert_allclose(before, after, atol=1e-5)
    assert np.any(before != 0)


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
    def without_default(context, *, bias: bool):
        raise AssertionError

    def without_type(context, *, bias=False):
        raise AssertionError

    for function in (without_default, without_type):
        with pytest.raises(ValueError, match="step 'mine', option 'bias': expected a type and a default"):
            steps.ScoreStep("mine", function)


def test_an_update_needs_a_state_to_start_from():
    with pytest.raises(ValueError, match="'mine': expected an initial_state beside update_state"):
        steps.InformStep("mine", lambda p, context: p, update_state=lambda context, indices: context.state)


def test_a_name_is_taken_once_over_all_kinds_of_step():
    with pytest.raises(ValueError, match="step: expected a name that no score step has; received 'linear'"):
        steps.register_inform("linear")(lambda probabilities, context: probabilities)
    assert "linear" not in steps.INFORM_STEPS


def test_a_loss_has_a_name():
    with pytest.raises(ValueError, match="'mine': expected losses and loss_names, or neither"):
        steps.ScoreStep("mine", lambda context: context.tokens, losses=lambda context: {})


# What the options of the built-in steps mean.


def test_symphony_threshold_leaves_small_entries_out():
    step = steps.INFORM_STEPS["symphony"]
    inputs = make_inputs(4, step, step.option_defaults)
    state = inputs["fixed"]["state"]
    sparse = jnp.where(state < 0.05, 0.0, state)
    assert 0 < np.sum(sparse == 0) < sparse.size
    np.testing.assert_array_equal(
        step.function(probabilities(inputs), context(inputs), **{**step.option_defaults, "threshold": 0.05}),
        routing.expert_informed(probabilities(inputs), sparse),
    )


@pytest.mark.parametrize(("options"), [p.values[1] for p in settings("inform") if p.values[0].name == "attention"])
def test_attention_in_head_space_is_attention_with_means(options):
    step = steps.INFORM_STEPS["attention"]
    inputs = make_inputs(5, step, options)
    given = {name: options[name] for name in ("sigma", "heads")} | {
        "mask": None if options["mask"] == "none" else "causal"
    }

    def in_head_space(learned):
        return step.function(learned["probabilities"], context({**inputs, "learned": learned}), **options)

    def with_means(learned):
        """m_hj = H O_h' v_hj (Mutual-Inform SMoE, Eq. 1); the factor H can be left out."""
        record = learned["attention"]
        means = jnp.einsum("bnhf,hfd->bhnd", record.values, record.output_kernel)
        queries, keys = (jnp.swapaxes(array, 1, 2) for array in (record.queries, record.keys))
        means = H * means if options["head_factor"] else means
        outputs = jnp.einsum("bnhf,hfd->bnd", record.attended, record.output_kernel)
        return routing.attention_informed(learned["probabilities"], queries, keys, means, outputs, **given)

    @jax.jit
    def both(learned):
        """Values and gradients of either way."""
        pairs = []
        for function in (in_head_space, with_means):
            gradient = jax.grad(lambda a, f=function: jnp.sum(jnp.sin(f(a))))
            pairs.append((function(learned), gradient(learned)))
        return tuple(zip(*pairs, strict=True))

    values, gradients = both(inputs["learned"])
    np.testing.assert_allclose(*values, rtol=1e-5)
    chex.assert_trees_all_close(*gradients, rtol=1e-4, atol=1e-5)


def test_a_learned_similarity_starts_as_the_fixed_one():
    step = steps.INFORM_STEPS["similarity"]
    learned = {**step.option_defaults, "learned_weight": True}
    inputs = make_inputs(6, step, learned)
    np.testing.assert_allclose(
        step.function(probabilities(inputs), context(inputs), **learned),
        step.function(probabilities(inputs), context(inputs), **step.option_defaults),
        rtol=1e-6,
    )
