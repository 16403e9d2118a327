"""Nothing of a token depends on later ones in a causal model, for every preset and dispatcher, bit for bit."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform.config import causality, presets
from vmoe_inform.dispatch import DISPATCHERS
from vmoe_inform.nn import models, step_trials
from vmoe_inform.nn.step_variables import OBSERVED
from vmoe_inform.routing import scores, selection, steps

B, N, V, FIRST = 2, 12, 10, 7  # tokens from the place FIRST on are replaced
CAUSAL = (*(name for name in presets.ROUTERS if name not in ("base", "expert_choice", "soft")), *tiny.INFORMED)
CAUSAL += ("adaptive_clusters_smoe_top2", "eigenbasis_smoe_top2")
HEADS = ("running", "posterior")  # besides the default, prefix
ESTIMATED = "attention_smoe_top2@attention.sigma=estimated@attention.center=true"
INFORMED_BY_HEADS = tuple(f"{ESTIMATED}@attention.heads={heads}" for heads in HEADS)
# Together they have every step; their products, and the other dispatchers with each, are tried by the slow tests.
STEPS = ("similarity_xmoe", "attention_smoe_top2", INFORMED_BY_HEADS[0], "stablemoe")
LEAKS = {  # with what a causal model refuses
    "expert_choice": {},
    "soft": {},
    "similarity_smoe_top2": {},
    "attention_smoe_top2": {},
    "smoe_top2": {"moe__capacity_factor_evaluation": 1.0, "moe__capacity_multiple_of": 1},
}


def model_of(router, **fields):
    """One block of width 16, or two where the router needs them, with two sequences in a group."""
    config = config_lib.default("tokens")
    model = config.model
    model.hidden_size, model.mlp_size, model.num_heads, model.num_tokens, model.vocabulary_size = 16, 8, 2, N, V
    model.moe.num_experts, model.moe.group_size_sequences = 4, 2
    needs_two = any(word in router for word in ("across_layers", "alternate", "clusters", "glam"))
    model.num_layers = 2 if needs_two else 1
    presets.set_router(config, router)
    for name, value in fields.items():
        *groups, field = name.split("__")
        functools.reduce(lambda group, key: group[key], groups, model)[field] = value
    return models.from_config(model)


def texts(seed=0):
    """Tokens, and others that differ from the place FIRST on; the words there occur nowhere before it."""
    random = np.random.default_rng(seed)
    tokens = np.concatenate([random.integers(0, V // 2, (B, FIRST)), random.integers(V // 2, V, (B, N - FIRST))], 1)
    others = tokens.copy()
    others[:, FIRST:] = V // 2 + (tokens[:, FIRST:] + 1) % (V // 2)
    return jnp.asarray(tokens, jnp.int32), jnp.asarray(others, jnp.int32)


def trained(variables):
    """States as training may leave them, where they are of its choices."""
    random = np.random.default_rng(1)

    def moved(leaf):
        if leaf.dtype != jnp.float32 or leaf.ndim != 2 or leaf.shape[0] != leaf.shape[1]:
            return leaf
        return jnp.asarray(random.random(leaf.shape), leaf.dtype)

    return {**variables, "routing": jax.tree.map(moved, variables["routing"])} if "routing" in variables else variables


def predictor(model):
    return jax.jit(lambda variables, tokens: model.apply(variables, tokens)[0])


def routers(*parameters, quick):
    """All causal routers with each of the parameters; all but the quick ones are slow together."""
    return [
        pytest.param(router, *others, marks=() if (router, *others) in quick else pytest.mark.slow)
        for router in (*CAUSAL, *INFORMED_BY_HEADS)
        for others in itertools.product(*parameters)
    ]


QUICK = [*((router, "gather") for router in STEPS), *(("smoe_dropout", dispatcher) for dispatcher in DISPATCHERS)]


@pytest.mark.parametrize(("router", "dispatcher"), routers(DISPATCHERS, quick=QUICK))
def test_later_tokens_change_no_logit(router, dispatcher):
    model = model_of(router, moe__dispatch=dispatcher)
    variables, predict = trained(tiny.variables(model)), predictor(model)
    tokens, others = texts()
    before, after = predict(variables, tokens), predict(variables, others)
    np.testing.assert_array_equal(before[:, :FIRST], after[:, :FIRST])
    assert not np.array_equal(before[:, FIRST:], after[:, FIRST:])
    # Nor does the other sequence of the group. It moves slots, over which einsum then sums in another order.
    rounding = 1e-5 if dispatcher == "einsum" else 0.0
    other = predict(variables, tokens.at[1].set(others[1, ::-1]))
    np.testing.assert_allclose(before[0], other[0], rtol=rounding, atol=rounding)


@pytest.mark.parametrize(
    "router",
    [pytest.param(name, marks=() if name in ("soft", "similarity_smoe_top2") else pytest.mark.slow) for name in LEAKS],
)
def test_what_looks_ahead_is_seen(router):
    model = model_of(router, allow_future=True, **LEAKS[router])
    variables, predict = tiny.variables(model), predictor(model)
    before, after = (predict(variables, text) for text in texts())
    assert not np.array_equal(before[:, :FIRST], after[:, :FIRST])
    # A choice of experts that looks ahead makes perplexities meaningless; sums of the papers do not.
    assert bool(causality.future_choices(model.config)) == (router in ("expert_choice", "soft", "smoe_top2"))


def trained_on_earlier_tokens(model):
    """A training step whose loss is of the tokens before FIRST, on a text and on the same with other later tokens.

    Gives the gradient by the embeddings [V, D], of which those from V // 2 on are of later tokens only; the logits
    before FIRST with either text; and the share of choices that each layer drops.
    """
    variables = trained(tiny.variables(model))

    @jax.jit
    def descend(params, tokens):
        def loss(params):
            (logits, aux), _ = model.apply(
                {**variables, "params": params},
                tokens,
                train=True,
                progress=jnp.float32(1.0),
                rngs={"routing": jax.random.key(0)},
                mutable=OBSERVED,
            )
            dropped = [layer["dropped"] for layer in aux["moe"].values()]
            return jnp.sum(jnp.sin(logits[:, :FIRST])), (logits[:, :FIRST], dropped)

        return jax.grad(loss, has_aux=True)(params)

    (gradients, (before, dropped)), (_, (after, _)) = (descend(variables["params"], text) for text in texts())
    return gradients["vocabulary"]["embedding"], before, after, dropped


@pytest.mark.parametrize(("router", "dispatcher"), routers(DISPATCHERS, quick=[("similarity_xmoe", "gather")]))
def test_training_has_no_gradient_by_later_tokens_and_their_choices_take_no_slot(router, dispatcher):
    """With slots for half of the choices."""
    model = model_of(router, moe__dispatch=dispatcher, moe__capacity_factor=0.5, moe__capacity_multiple_of=1)
    by_words, before, after, dropped = trained_on_earlier_tokens(model)
    assert all(share > 0 for share in dropped)
    np.testing.assert_array_equal(before, after)
    assert not np.any(by_words[V // 2 :])
    assert np.any(by_words[: V // 2])


@pytest.mark.parametrize(
    "router",
    [
        pytest.param(name, marks=() if name == "base" else pytest.mark.slow)
        for name in ("base", "expert_choice", "soft", "similarity_smoe_top2", "attention_smoe_top2")
    ],
)
def test_training_that_looks_ahead_is_seen(router):
    """``base`` and expert choice look ahead in what they choose, ``base`` in training only. It has no gradient."""
    by_words, before, after, _ = trained_on_earlier_tokens(model_of(router, allow_future=True))
    assert not np.array_equal(before, after)
    assert np.any(by_words[V // 2 :]) == (router not in ("base", "expert_choice"))


def test_every_registered_step_is_in_a_router_that_is_tried_here():
    """Leaks are looked for in every preset, and together these have every step."""
    tried = {*CAUSAL, *LEAKS, *REFUSED}
    assert set(presets.ROUTERS) <= tried
    found = {step for router in tried for step in model_of(router, allow_future=True).config.router.step_names}
    of_losses = {name for name, step in steps.all_steps().items() if isinstance(step, steps.LossStep)}
    assert set(steps.all_steps()) - of_losses <= found


@pytest.mark.parametrize(
    "router",
    [
        "attention_smoe_top2",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("similarity_smoe_top2", *INFORMED_BY_HEADS, "hash")),
    ],
)
def test_the_attention_of_the_papers_programs_looks_at_nothing_later_either(router):
    model = model_of(router, attention_style="previous", attention_span=5, block="post_ln_double")
    variables, predict = trained(tiny.variables(model)), predictor(model)
    before, after = (predict(variables, text) for text in texts())
    np.testing.assert_array_equal(before[:, :FIRST], after[:, :FIRST])
    assert not np.array_equal(before, after)


@pytest.mark.parametrize(
    "router", [pytest.param("similarity_smoe_top2", marks=pytest.mark.slow), "attention_smoe_top2"]
)
def test_padding_changes_nothing(router):
    model = model_of(router, num_classes=3)
    variables = trained(tiny.variables(model))
    real = jnp.broadcast_to(jnp.arange(N)[None] < FIRST, (B, N))
    predict = jax.jit(lambda tokens: model.apply(variables, tokens, token_mask=real)[0])
    before, after = (predict(text) for text in texts())
    np.testing.assert_array_equal(before, after)


REFUSED = {
    "base": r"model.router.select: expected steps that do not look at later tokens.*; received 'balanced_assignment'",
    "expert_choice": r"model.router.select: expected .*model.allow_future = True\); received 'expert_choice'",
    "soft": r"model.router.select: expected .*; received 'soft'",
    "attention_vmoe@attention.heads=lowest_entropy": r"options.attention.heads: expected 'prefix', .*'lowest_entropy'",
}


@pytest.mark.parametrize("router", REFUSED)
def test_what_looks_ahead_is_refused(router):
    with pytest.raises(ValueError, match=REFUSED[router]):
        model_of(router)
    assert model_of(router, allow_future=True)


def test_capacities_and_priorities_that_look_ahead_are_refused():
    with pytest.raises(ValueError, match=r"moe.batch_priority: expected false in a causal model .*; received True"):
        model_of("smoe_top2", moe__batch_priority=True)
    with pytest.raises(ValueError, match=r"capacity_factor_evaluation: expected None .* in a causal model .* 4.0"):
        model_of("smoe_top2", moe__capacity_factor_evaluation=4.0)


def test_a_step_that_mixes_tokens_says_that_it_heeds_the_mask(monkeypatch):
    """One written for images, which says nothing of it, is refused."""
    similarity = steps.INFORM_STEPS["similarity"]
    monkeypatch.setitem(steps.INFORM_STEPS._entries, "similarity", dataclasses.replace(similarity, looks_ahead=None))
    with pytest.raises(ValueError, match=r"model.router.inform: expected steps that do not look .*'similarity'"):
        model_of("similarity_smoe_top2")


def test_a_step_that_knows_of_later_tokens_or_padding_is_refused_for_text(monkeypatch):
    """Which it does not say, as it has no graph; the trial is on made-up inputs."""
    linear = steps.SCORE_STEPS["linear"]

    model, classifier = model_of("smoe_top2"), model_of("smoe_top2", causal=False, num_classes=3)
    step_trials.check_trained(model.config)
    step_trials.check_trained(classifier.config)
    monkeypatch.setitem(steps.SCORE_STEPS._entries, "linear", dataclasses.replace(linear, function=mixing))
    with pytest.raises(ValueError, match=r"step linear: expected nothing of later tokens .*; received 'a change'"):
        step_trials.check_trained(model.config)
    with pytest.raises(ValueError, match=r"step linear: expected nothing of padding behind a text .*'a difference'"):
        step_trials.check_trained(classifier.config)


def test_a_select_step_that_knows_of_later_tokens_or_padding_is_refused_for_text(monkeypatch):
    top = steps.SELECT_STEPS["top_experts"]

    def relative(probabilities, context, *, renormalize: bool = True):
        """By how much more probable an expert is than on average, which a balanced choice would be."""
        return selection.top_experts_step(probabilities / jnp.mean(probabilities, axis=1, keepdims=True), context)

    model, classifier = model_of("smoe_top2"), model_of("smoe_top2", causal=False, num_classes=3)
    monkeypatch.setitem(steps.SELECT_STEPS._entries, "top_experts", dataclasses.replace(top, function=relative))
    with pytest.raises(ValueError, match=r"step top_experts: expected nothing of later tokens .*; received 'a change'"):
        step_trials.check_trained(model.config)
    with pytest.raises(ValueError, match=r"step top_experts: expected nothing of padding behind a text .*difference'"):
        step_trials.check_trained(classifier.config)
    with pytest.raises(ValueError, match=r"step top_experts: expected the same of a text token by token .*difference'"):
        step_trials.check_reads(model.config)


def mixing(context, *, bias: bool = False):
    """A linear step that adds the mean over all tokens, and does not say so."""
    tokens = context.tokens + jnp.mean(context.tokens, axis=1, keepdims=True)
    return scores.linear_step(dataclasses.replace(context, tokens=tokens), bias=bias)


def test_options_that_are_others_for_text_by_default():
    """Also where a config leaves them out."""
    router = {"score": "hash", "inform": "attention"}
    options = config_lib.parse_model({"inputs": "tokens", "router": router}).router.options
    assert options["hash"]["ids"] == "vocabulary"
    assert options["attention"]["heads"] == "prefix"


@pytest.mark.slow
@pytest.mark.parametrize(("router", "allow_future"), [("attention_smoe_top2", False), ("soft", True)])
def test_random_words_cannot_be_learned_without_looking_ahead(router, allow_future):
    """Every batch is new, so that nothing but a look at the next word takes the loss below ln V."""
    model = model_of(router, allow_future=allow_future, hidden_size=32, mlp_size=64)
    variables, optimizer, steps = tiny.variables(model), optax.adam(3e-3), 600
    rest = {name: tree for name, tree in variables.items() if name != "params"}

    def loss(params, tokens):
        logits, _ = model.apply({"params": params, **rest}, tokens[:, :-1], train=True)
        nats = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
        return jnp.mean(nats[:, :-1])  # behind the last input there is nothing to look at

    def step(carry, key):
        params, state = carry
        tokens = jax.random.randint(key, (32, N + 1), 0, V)
        value, gradients = jax.value_and_grad(loss)(params, tokens)
        updates, state = optimizer.update(gradients, state)
        return (optax.apply_updates(params, updates), state), value

    start = (variables["params"], optimizer.init(variables["params"]))
    _, losses = jax.jit(lambda: jax.lax.scan(step, start, jax.random.split(jax.random.key(0), steps)))()
    reached = float(np.mean(losses[-50:]))
    if allow_future:
        assert reached < 0.9 * np.log(V)
    else:
        assert 0.995 * np.log(V) < reached < 1.05 * np.log(V)
