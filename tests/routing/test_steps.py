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

from vmoe_inform import checks, routing
from vmoe_inform.dispatch import carry_out
from vmoe_inform.routing import contract, steps

SIZES = contract.SIZES
N, D, E, K = SIZES.num_tokens, SIZES.hidden_size, SIZES.num_experts, SIZES.num_selected_experts
H = 2  # heads of the made-up attention
NO_CHOICES = jnp.zeros((2, N, K), jnp.int32)  # of two images, for steps that do not look at them
GROUPS, PER_GROUP = 2, 2  # groups, and images of a group
REGISTRIES = {
    "score": steps.SCORE_STEPS,
    "inform": steps.INFORM_STEPS,
    "select": steps.SELECT_STEPS,
    "loss": steps.LOSS_STEPS,
}


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


def combinations(step):
    """Options of a step in which each named value of each option occurs: the r-th of all options, from 0 again."""
    values = {
        option: list(dict.fromkeys([step.option_defaults[option], *named_values(hint)]))
        for option, hint in step.option_types.items()
    }
    for place in range(1, max(map(len, values.values()), default=0)):
        yield {option: some[place % len(some)] for option, some in values.items()}


def settings(kind: str) -> list[Any]:
    found = []
    for name in REGISTRIES[kind]:
        step = REGISTRIES[kind][name]
        assert fits(step, step.option_defaults, K) or fits(step, step.option_defaults, 1)
        found.append(pytest.param(step, {**step.option_defaults}, id=name))
        for options in combinations(step):
            changed = {option: value for option, value in options.items() if value != step.option_defaults[option]}
            together = fits(step, options, K) or fits(step, options, 1)
            for some in [changed] if together else [{option: changed[option]} for option in changed]:
                options = {**step.option_defaults, **some}
                if fits(step, options, K) or fits(step, options, 1):
                    words = "-".join(f"{option}={value}" for option, value in some.items())
                    found.append(pytest.param(step, options, id=f"{name}-{words}"))
    return found


def with_state(found):
    """The others have plans alone, which test_select_steps tries."""
    return [p for p in found if p.values[0].initial_state is not None]


@pytest.mark.parametrize(
    ("step", "options"), [*settings("score"), *settings("inform"), *settings("loss"), *with_state(settings("select"))]
)
def test_contract(step, options):
    found = contract.check(step.name, **options)
    assert "says of a text with padding what it says of the text alone" in found
    if "in a causal model gives nothing of later tokens, bit for bit, and has no gradient by them" in found:
        assert "says of a text token by token what it says of the whole text" in found


def test_what_steps_name_exists():
    for step in (steps.SCORE_STEPS[name] for name in steps.SCORE_STEPS):
        assert step.selects is None or set(step.selects) <= set(steps.SELECT_STEPS)
    for step in (steps.SELECT_STEPS[name] for name in steps.SELECT_STEPS):
        assert step.scores is None or set(step.scores) <= set(steps.SCORE_STEPS)


def made(function, **declared):
    return steps.InformStep("made", function, **declared)


def mean(probabilities, context):
    return jnp.broadcast_to(jnp.mean(probabilities, axis=1, keepdims=True), probabilities.shape)


def with_loss(probabilities, context, *, more_weight: float = 1.0):
    return probabilities


BROKEN = {
    r"float32\[2, 5, 6\]; received 'float32\[2, 5, 5\]'": made(lambda p, c: p[..., 1:]),
    r"float32, int32 or bool; received \['bfloat16'\]": made(lambda p, c: p.astype(jnp.bfloat16)),
    "probabilities >= 0": made(lambda p, c: -p),
    "finite values": made(lambda p, c: p / jnp.sum(p - p, axis=-1, keepdims=True)),
    "finite gradients": made(lambda p, c: p + jnp.sqrt(jnp.maximum(p - 2.0, 0.0))),
    "the same with and without jit": made(lambda p, c: p if isinstance(p, jax.core.Tracer) else 2 * p),
    "matrix products in float32 at the highest precision": made(lambda p, c: p @ jnp.eye(6)),
    "a graph, as tokens mix": made(mean),
    "rows that sum to 1": made(mean, graph=lambda c: jnp.ones((2, 5, 5))),
    "the weights that the function mixes tokens with": made(mean, graph=lambda c: jnp.tile(jnp.eye(5), (2, 1, 1))),
    "nothing rounded to bfloat16": made(lambda p, c: p * jnp.mean(c.tokens * c.tokens).astype(jnp.float32)),
    "the form of the state": made(
        lambda p, c: p, initial_state=lambda key, sizes: jnp.zeros(2), update_state=lambda s, o, p: jnp.ones(3)
    ),
    "sums: those of the parts": made(
        lambda p, c: p,
        initial_state=lambda key, sizes: jnp.zeros(()),
        observe=lambda c, indices: jnp.mean(indices == 0),
        update_state=lambda s, o, p: s + o,
    ),
    "to work in the first MoE layer too": made(lambda p, c: 0.5 * (p + c.previous.probabilities), needs_previous=True),
    "the names": made(with_loss, losses=lambda p, c, **options: {"less": jnp.sum(p, (1, 2))}, loss_names=("more",)),
    "a change of the state": made(
        lambda p, c: p, initial_state=lambda key, sizes: jnp.zeros(2), update_state=lambda s, o, p: s
    ),
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_step_that_breaks_the_contract_is_told_so(message, monkeypatch):
    monkeypatch.setitem(steps.INFORM_STEPS._entries, "made", BROKEN[message])
    with pytest.raises(ValueError, match=f"step made.*: expected .*{message}"):
        contract.check("made")


def running_mean(tokens):
    counts = jnp.arange(1, tokens.shape[1] + 1, dtype=jnp.float32)[None, :, None]
    return jnp.cumsum(tokens.astype(jnp.float32), axis=1) / counts


def by_running_mean(context):
    return running_mean(context.tokens)[..., :1] * jnp.arange(E, dtype=jnp.float32)[None, None]


def by_position(context):
    places = context.first + jnp.arange(context.tokens.shape[1])
    return jnp.broadcast_to(jax.nn.one_hot(places, E)[None], (*context.tokens.shape[:2], E))


def by_place_in_the_part(context):
    return by_position(dataclasses.replace(context, first=0))


def running_graph(context):
    places = context.tokens.shape[1]
    rows = jnp.tril(jnp.ones((places, places))) / jnp.arange(1.0, places + 1)[:, None]
    return jnp.broadcast_to(rows, (len(context.tokens), places, places))


READING = {
    by_running_mean: False,  # through the tokens, which no graph says
    by_place_in_the_part: False,
    by_position: True,
    lambda p, c: running_mean(p): True,  # as its graph says
}


@pytest.mark.parametrize("function", READING)
def test_a_step_that_cannot_read_token_by_token_is_told_so(function, monkeypatch):
    if function in (by_running_mean, by_place_in_the_part, by_position):
        monkeypatch.setitem(steps.SCORE_STEPS._entries, "made", steps.ScoreStep("made", function))
    else:
        monkeypatch.setitem(steps.INFORM_STEPS._entries, "made", made(function, graph=running_graph, looks_ahead=False))
    found = contract.check("made")
    assert ("says of a text token by token what it says of the whole text" in found) == READING[function]
    assert ("cannot read a text token by token, so that generation refuses it" in found) != READING[function]


def test_a_step_that_looks_at_padding_is_told_so(monkeypatch):
    def own_loss(p, c, **options):
        return {"more": jnp.mean(p[..., 0], axis=1)}

    broken = (
        made(mean, graph=lambda c: jnp.full((2, 5, 5), 0.2)),
        made(with_loss, losses=own_loss, loss_names=("more",)),
        made(
            lambda p, c: p,
            initial_state=lambda key, sizes: jnp.zeros(E),
            observe=lambda c, indices: jnp.sum(jax.nn.one_hot(jnp.minimum(indices, E - 1), E), axis=(0, 1, 2)),
            update_state=lambda s, o, p: s + o,
        ),
    )
    for step in broken:
        monkeypatch.setitem(steps.INFORM_STEPS._entries, "made", step)
        assert "is for images: padding behind a text changes what it says of the text" in contract.check("made")


def test_rows_of_a_graph_need_one():
    with pytest.raises(ValueError, match="inform step 'made': expected columns and rows together, and a graph"):
        made(mean, columns=lambda p, c: p, rows=lambda c, columns: columns)
    with pytest.raises(ValueError, match="inform step 'made': expected columns and rows together, and a graph"):
        made(mean, graph=running_graph, rows=lambda c, columns: columns)


def test_the_contract_of_an_unknown_step():
    with pytest.raises(ValueError, match=r"step: expected one of adaptive_clusters, .*, z; received 'colour'"):
        contract.check("colour")
    with pytest.raises(ValueError, match=r"option of symphony: expected one of .*threshold.*; received 'reach'"):
        contract.check("symphony", reach=1)
    with pytest.raises(ValueError, match=r"symphony.threshold: expected float .*; received -3.0"):
        contract.check("symphony", threshold=-3.0)


@pytest.mark.parametrize(
    "step", [r[name] for r in (steps.SCORE_STEPS, steps.INFORM_STEPS) for name in r], ids=lambda step: step.name
)
def test_states_that_are_random_come_from_the_key(step):
    if step.initial_state is not None:
        one, again, other = (step.initial_state(jax.random.key(s), SIZES, **step.option_defaults) for s in (0, 0, 1))
        chex.assert_trees_all_equal(one, again)
        if step.update_state is None:  # a state that never changes is there because it is random
            assert any(not np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, (one, other)), strict=True))


@pytest.mark.parametrize(
    ("step", "options", "k"),
    [pytest.param(*p.values, k, id=f"{p.id}-{k}") for p in settings("select") for k in (1, K) if fits(*p.values, k)],
)
@pytest.mark.parametrize("train", [False, True])
def test_select_steps(step, options, k, train):
    size = PER_GROUP * N
    sizes = dataclasses.replace(SIZES, num_selected_experts=k)
    state = step.initial_state(jax.random.key(0), sizes, **options) if step.initial_state else None
    kernel = jax.random.normal(jax.random.key(5), (E, D, D))

    def plan_of(tree):
        logits = tree["learned"]["logits"]
        here = steps.SelectContext(
            k=k, capacity=4, logits=logits, num_sequences=PER_GROUP, train=train, real=tree["fixed"]["real"]
        )
        score = steps.SCORE_STEPS["linear" if step.scores is None else step.scores[0]]
        return step.function(score.probabilities(logits), dataclasses.replace(here, state=state), **options)

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
    load, dropped, (weights, indices) = contract.check_function(step.name, seen, *trees)
    assert load.shape == (GROUPS, size, E)
    assert dropped.shape == (GROUPS, size)
    choices = E if step.preferences is None else k  # of no fixed number
    assert weights.shape == indices.shape == (GROUPS, size, choices)
    assert 0 <= np.min(dropped) <= np.max(dropped) <= 1
    assert np.min(load) >= 0
    assert 0 <= np.min(indices) <= np.max(indices) <= E
    assert np.min(weights) >= 0
    assert not np.any(np.asarray(weights)[np.asarray(indices) == E])
    for chosen in np.asarray(indices).reshape(-1, choices):
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
        steps.InformStep("mine", lambda p, context: p, update_state=lambda state, observed, parameters: state)


def test_only_a_step_that_needs_the_layer_before_skips_the_first():
    with pytest.raises(ValueError, match="'mine': expected needs_previous with skips_first_layer"):
        steps.InformStep("mine", lambda p, context: p, skips_first_layer=True)


def test_a_loss_says_what_its_weight_is():
    with pytest.raises(ValueError, match="loss step 'mine': expected an option weight"):
        steps.LossStep("mine", lambda context: context.logits)
    for kind in (steps.ScoreStep, steps.InformStep):
        with pytest.raises(ValueError, match="step 'mine': expected an option more_weight, of its loss 'more'"):
            kind("mine", lambda *given: given, losses=lambda *given: {}, loss_names=("more",))


def test_the_name_of_a_loss_is_taken_once():
    def score(context, *, z_weight: float = 1.0):
        raise AssertionError

    def distillation(context, *, weight: float = 1.0):
        raise AssertionError

    with pytest.raises(ValueError, match=r"step mine: expected a loss with a name that no other loss has; .*'z'"):
        steps.register_score("mine", losses=score, loss_names=("z",))(score)
    with pytest.raises(ValueError, match=r"step distillation: expected a loss with a name that no .*'distillation'"):
        steps.register_loss("distillation")(distillation)


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
    inputs = contract.make_inputs(4, step, SIZES, step.option_defaults)
    state = inputs["fixed"]["state"]
    sparse = jnp.where(state < 0.05, 0.0, state)
    assert 0 < np.sum(sparse == 0) < sparse.size
    probabilities = inputs["learned"]["probabilities"]
    np.testing.assert_array_equal(
        step.function(probabilities, contract.context(inputs), **{**step.option_defaults, "threshold": 0.05}),
        routing.expert_informed(probabilities, sparse),
    )


@pytest.mark.parametrize("mask", [None, "causal"])
@pytest.mark.parametrize("options", [p.values[1] for p in settings("inform") if p.values[0].name == "attention"])
def test_attention_in_head_space_is_attention_with_means(options, mask):
    step = steps.INFORM_STEPS["attention"]
    options = {**options, "sigma": "estimated" if options["heads"] == "prefix" else options["sigma"]}
    inputs = contract.make_inputs(5, step, dataclasses.replace(SIZES, causal=mask == "causal"), options)
    summed, estimated = options["heads"] == "posterior", options["sigma"] == "estimated"
    state = inputs["fixed"]["state"]

    def in_head_space(learned):
        context = contract.context({**inputs, "learned": learned}, mask)
        observed = step.observe(context, NO_CHOICES, **options) if estimated else {}
        return step.function(learned["probabilities"], context, **options), observed.get("distances", 0.0)

    def with_means(learned):
        """m_hj = H O_h' v_hj (Mutual-Inform SMoE, Eq. 1); the factor H can be left out."""
        record = learned["attention"]
        means = jnp.einsum("bnhf,hfd->bhnd", record.values, record.output_kernel)
        queries, keys = (jnp.swapaxes(array, 1, 2) for array in (record.queries, record.keys))
        means = H * means if options["head_factor"] else means
        outputs = jnp.einsum("bnhf,hfd->bnd", record.attended, record.output_kernel)
        if options["heads"] == "running":  # the other heads do not count
            head = int(np.argmin(np.asarray(state["entropies"] if estimated else state)))
            queries, keys, means = (array[:, head : head + 1] for array in (queries, keys, means))
        given = {
            "sigma": jnp.sqrt(state["variance"]) if estimated else options["sigma"],
            "heads": "posterior" if summed else "lowest_entropy",
            "normalize": options["normalize"],
            "center": options["center"],
            "mask": mask,
        }
        arrays = jax.lax.stop_gradient((queries, keys, means, outputs))
        distances = jnp.sum(routing.posterior_distances(*arrays, **given)) if estimated else 0.0
        return routing.attention_informed(learned["probabilities"], queries, keys, means, outputs, **given), distances

    @jax.jit
    def both(learned):
        """Values, distances and gradients of either way; none comes from the distances."""
        found = []
        for function in (in_head_space, with_means):
            gradient = jax.grad(lambda a, f=function: jnp.sum(jnp.sin(f(a)[0])) + f(a)[1])
            found.append((*function(learned), gradient(learned)))
        return tuple(zip(*found, strict=True))

    values, distances, gradients = both(inputs["learned"])
    np.testing.assert_allclose(*values, rtol=1e-5)
    np.testing.assert_allclose(*distances, rtol=1e-5)
    chex.assert_trees_all_close(*gradients, rtol=1e-4, atol=1e-5)


def test_an_estimated_sigma_is_an_average_whose_first_value_replaces_the_start():
    step = steps.INFORM_STEPS["attention"]
    options = {**step.option_defaults, "sigma": "estimated", "decay": 0.75}
    inputs = contract.make_inputs(6, step, SIZES, options)
    state = step.initial_state(jax.random.key(0), SIZES, **options)
    here = dataclasses.replace(contract.context(inputs), state=state)
    wide = {**step.option_defaults, "sigma": "sqrt_dim"}
    probabilities = inputs["learned"]["probabilities"]
    np.testing.assert_array_equal(
        step.function(probabilities, here, **options), step.function(probabilities, here, **wide)
    )
    for distances, expected in ((20.0, 2.0), (40.0, 0.75 * 2.0 + 0.25 * 4.0), (0.0, 0.75 * 2.5 + 0.25 * 1e-12)):
        state = step.update_state(state, {"distances": distances, "tokens": 10.0}, {}, **options)
        np.testing.assert_allclose(state["variance"], expected, rtol=1e-6)


def test_a_sigma_of_outputs_that_are_all_at_means_is_the_smallest():
    # One head, and all tokens alike: u_i = m_j.
    step, sizes = steps.INFORM_STEPS["attention"], dataclasses.replace(SIZES, num_heads=1)
    options = {**step.option_defaults, "sigma": "estimated", "decay": 0.0}
    inputs = contract.make_inputs(6, step, sizes, options)
    record = inputs["learned"]["attention"]

    @jax.jit
    def both(scale):
        same = jnp.full_like(record.values, scale)
        alike = dataclasses.replace(record, values=same, attended=same)
        here = contract.context({**inputs, "learned": {**inputs["learned"], "attention": alike}})
        state = step.update_state(here.state, step.observe(here, NO_CHOICES, **options), {}, **options)
        narrow = dataclasses.replace(here, state={"variance": jnp.float32(1e-12)})
        return state["variance"], step.function(inputs["learned"]["probabilities"], narrow, **options)

    for scale in (1.0, 1e4):
        variance, informed = both(scale)
        assert 1e-12 <= variance <= 1e-6 * scale**2  # no more than rounding
        np.testing.assert_allclose(jnp.sum(informed, axis=-1), 1.0, rtol=1e-5)


def test_a_learned_similarity_starts_as_the_fixed_one():
    step = steps.INFORM_STEPS["similarity"]
    learned = {**step.option_defaults, "learned_weight": True}
    inputs = contract.make_inputs(6, step, SIZES, learned)
    np.testing.assert_allclose(
        step.function(inputs["learned"]["probabilities"], contract.context(inputs), **learned),
        step.function(inputs["learned"]["probabilities"], contract.context(inputs), **step.option_defaults),
        rtol=1e-6,
    )
