"""Made-up inputs that steps are tried on, for contract.py, and how it says what does not hold."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vmoe_inform import checks
from vmoe_inform.axes import Array, Tree
from vmoe_inform.routing.steps import (
    SCORE_STEPS,
    AttentionRecord,
    ContextStep,
    Duration,
    InformStep,
    LayerSizes,
    LossContext,
    LossStep,
    Mask,
    PreviousLayer,
    ScoreStep,
    StepContext,
    VariableStep,
)

SIZES = LayerSizes(hidden_size=4, num_experts=6, num_selected_experts=2, num_tokens=5, raw_input_size=3, num_heads=2)
DURATION = Duration(100, lambda: 10)
IMAGES = 2
Inputs = dict[str, Any]
_WORDS = 7  # of a vocabulary


def of_text(sizes: LayerSizes) -> LayerSizes:
    """Sizes of a layer whose raw inputs are ids of words."""
    return sizes if sizes.vocabulary_size is not None else dataclasses.replace(sizes, vocabulary_size=_WORDS)


def make_inputs(seed: int, step: ContextStep, sizes: LayerSizes, options: dict[str, Any]) -> Inputs:
    """What the layer hands to a step, made up: ``learned``, which gradients pass, and the rest, ``fixed``."""
    random = np.random.default_rng(seed)
    tokens, experts = sizes.num_tokens, sizes.num_experts
    heads = sizes.num_heads
    head_width = sizes.hidden_size // heads

    def normal(*shape: int) -> Array:
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    queries, keys, values, attended = (normal(IMAGES, tokens, heads, head_width) for _ in range(4))
    weights = jax.nn.softmax(jnp.einsum("bihf,bjhf->bhij", queries, keys) / head_width**0.5)
    if sizes.causal:
        weights = jnp.tril(weights) / jnp.sum(jnp.tril(weights), axis=-1, keepdims=True)
    entropies = -jnp.sum(weights * jnp.log(jnp.where(weights > 0, weights, 1.0)), axis=-1)
    attention = AttentionRecord(
        queries,
        keys,
        values,
        attended,
        normal(heads, head_width, sizes.hidden_size),
        jnp.mean(entropies, axis=-1),
        jnp.swapaxes(entropies, 1, 2) if sizes.causal else None,
    )
    chosen = jnp.argsort(normal(IMAGES, tokens, experts), axis=-1)[..., : sizes.num_selected_experts]
    previous = PreviousLayer(jax.nn.softmax(normal(IMAGES, tokens, experts)), chosen.astype(jnp.int32))
    state = make_state(random, seed, step, sizes, options)
    return {
        "learned": {
            "probabilities": jax.nn.softmax(normal(IMAGES, tokens, experts)),
            "tokens": normal(IMAGES, tokens, sizes.hidden_size),
            "parameters": make_parameters(step, sizes, options),
            "attention": attention if step.needs_attention else None,
        },
        "fixed": {
            "state": state,
            "raw_inputs": _make_raw_inputs(random, sizes) if step.needs_raw_inputs else None,
            "previous": previous if step.needs_previous else None,
        },
    }


def _make_raw_inputs(random: np.random.Generator, sizes: LayerSizes) -> Array:
    shape = (IMAGES, sizes.num_tokens)
    if sizes.vocabulary_size is not None:
        return jnp.asarray(random.integers(sizes.vocabulary_size, size=shape), jnp.int32)
    return jnp.asarray(random.normal(size=(*shape, sizes.raw_input_size)), jnp.float32)


def context(inputs: Inputs, mask: Mask = None) -> StepContext:
    """The made-up inputs as a step takes them."""
    learned = inputs["learned"]
    return StepContext(
        learned["tokens"], learned["parameters"], attention=learned["attention"], mask=mask, **inputs["fixed"]
    )


def of_images(whole: StepContext, images: slice) -> StepContext:
    """The context of some images of the batch."""
    return _part(whole, (images,), (*_OF_TOKENS, "head_entropies"))


def of_tokens(whole: StepContext, tokens: slice) -> StepContext:
    """The context of some consecutive tokens of each sequence."""
    return dataclasses.replace(_part(whole, (slice(None), tokens), _OF_TOKENS), first=tokens.start or 0)


_OF_TOKENS = ("queries", "keys", "values", "attended", "token_entropies")  # of attention, with the axes [B, N, ...]


def _part(whole: StepContext, index: tuple[slice, ...], of_attention: Sequence[str]) -> StepContext:
    def part(tree: Tree) -> Tree:
        return jax.tree.map(lambda leaf: leaf[index], tree)

    attention = whole.attention
    if attention is not None:
        attention = dataclasses.replace(attention, **{name: part(getattr(attention, name)) for name in of_attention})
    return dataclasses.replace(
        whole,
        tokens=part(whole.tokens),
        attention=attention,
        raw_inputs=part(whole.raw_inputs),
        previous=part(whole.previous),
        real=part(whole.real),
    )


def said(step: ContextStep, probabilities: Array, here: StepContext, options: dict[str, Any]) -> Array:
    """All that a step says of each token [B, N, _]."""
    if isinstance(step, InformStep):
        return step.function(probabilities, here, **options)
    assert isinstance(step, ScoreStep)  # of the other registry
    functions = [step.function, *(part for part in (step.gates, step.slot_logits) if part is not None)]
    found = [function(here, **options) for function in functions]
    return jnp.concatenate([one.reshape(*one.shape[:2], -1) for one in found], axis=-1)


def make_loss_inputs(seed: int, step: LossStep, sizes: LayerSizes) -> Inputs:
    """What an auxiliary loss looks at, made up, as :func:`make_inputs` gives it; every image is a group."""
    random = np.random.default_rng(seed)
    logits, noise = random.normal(size=(2, IMAGES, sizes.num_tokens, sizes.num_experts)).astype(np.float32)
    indices = jax.lax.top_k(jnp.asarray(logits), sizes.num_selected_experts)[1]
    return {
        "learned": {"logits": jnp.asarray(logits), "parameters": _parameters_for(step, sizes)},
        "fixed": {"indices": indices, "noise": jnp.asarray(noise)},
    }


def _parameters_for(step: LossStep, sizes: LayerSizes) -> dict[str, Array]:
    """What a loss looks at, of the first score step that has it."""
    if not step.needs_parameters:
        return {}
    for score in (SCORE_STEPS[name] for name in SCORE_STEPS):
        made = make_parameters(score, sizes, dict(score.option_defaults))
        if set(step.needs_parameters) <= set(made):
            return {name: made[name] for name in step.needs_parameters}
    raise checks.error(f"step {step.name}: needs_parameters", "names that a score step has", step.needs_parameters)


def loss_context(inputs: Inputs) -> LossContext:
    """The made-up inputs as an auxiliary loss takes them, with noise of standard deviation 1."""
    logits = inputs["learned"]["logits"]
    noisy = logits + inputs["fixed"]["noise"]
    parameters = inputs["learned"]["parameters"]
    return LossContext(logits, jax.nn.softmax(logits), inputs["fixed"]["indices"], noisy, 1.0, parameters=parameters)


def make_state(
    random: np.random.Generator, seed: int, step: VariableStep, sizes: LayerSizes, options: dict[str, Any]
) -> Tree | None:
    """The state of a step as it may be after some training; None if it keeps none."""
    state = None
    if step.initial_state is not None and step.has_state(options):
        state = step.initial_state(jax.random.key(seed), sizes, **options)
    if step.updates_state(options):
        state = jax.tree.map(lambda leaf: leaf + jnp.asarray(0.1 * random.random(leaf.shape), leaf.dtype), state)
    return state


def make_parameters(step: VariableStep, sizes: LayerSizes, options: dict[str, Any]) -> dict[str, Array]:
    """The learned arrays of a step as they start."""
    declared = step.parameters(sizes, **options)
    keys = jax.random.split(jax.random.key(0), max(len(declared), 1))
    made: dict[str, Array] = {}
    for key, (name, parameter) in zip(keys, declared.items(), strict=False):
        made[name] = parameter.initializer(key, parameter.shape, jnp.float32)
        check_array(f"{step.name}.parameters[{name!r}]", made[name], parameter.shape)
    return made


def check_array(name: str, array: Array, shape: tuple[int, ...]) -> None:
    received = f"{array.dtype}{list(array.shape)}"
    expect(name, f"float32{list(shape)}", received, holds=array.shape == shape and array.dtype == jnp.float32)


def expect(name: str, expected: str, received: Any, *, holds: bool) -> None:
    if not holds:
        raise checks.error(f"step {name}", expected, received)
