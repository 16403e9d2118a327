"""What score and inform steps keep to in a causal model, for contract.py: nothing of a token depends on later ones."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vmoe_inform import checks
from vmoe_inform.axes import Array, Tree
from vmoe_inform.routing import reading
from vmoe_inform.routing._trial import Inputs, context, expect, make_inputs, of_text, of_tokens, said
from vmoe_inform.routing.steps import ContextStep, InformStep, LayerSizes


def check_causal(step: ContextStep, sizes: LayerSizes, options: dict[str, Any]) -> tuple[str, ...]:
    """In a causal model nothing that the step gives for a token depends on later ones, unless it says so.

    Returns:
      what was found to hold.

    Raises:
      ValueError: it depends on them.
    """
    sizes = dataclasses.replace(sizes, causal=True)
    try:
        step.check(sizes, **options)
    except checks.InputError:
        return ("is refused in causal models with these options",)
    inputs, other = (make_inputs(seed, step, sizes, options) for seed in (3, 4))
    first = sizes.num_tokens // 2

    def earlier(learned: Tree, tree: Inputs) -> Array:
        """What the step gives for the tokens before the place ``first``."""
        here = context({**tree, "learned": learned}, "causal")
        return said(step, learned["probabilities"], here, options)[:, :first]

    @jax.jit
    def both(tree: Inputs) -> tuple[Array, Tree]:
        gradient = jax.grad(lambda learned: jnp.sum(jnp.sin(earlier(learned, tree))))
        return earlier(tree["learned"], tree), gradient(tree["learned"])

    changed = with_later(inputs, other, first)
    (before, gradients), (after, _) = both(inputs), both(changed)
    if step.may_look_ahead:
        return ("is refused in causal models: it says that it looks ahead, or that it mixes tokens",)
    same = np.array_equal(before, after)
    expect(step.name, "nothing of later tokens (context.mask), or looks_ahead=True", "a change", holds=same)
    zeros = jax.tree.map(jnp.zeros_like, gradients)
    of_later = with_later({"learned": zeros, "fixed": inputs["fixed"]}, {**inputs, "learned": gradients}, first)
    flat = all(not np.any(of_later["learned"][name]) for name in ("probabilities", "tokens"))
    expect(step.name, "no gradient by later tokens", "one", holds=flat)
    held = "in a causal model gives nothing of later tokens, bit for bit, and has no gradient by them"
    try:
        check_reading(step, sizes, options)
    except checks.InputError:
        return held, "cannot read a text token by token, so that generation refuses it"
    return held, "says of a text token by token what it says of the whole text"


def check_reading(step: ContextStep, sizes: LayerSizes, options: dict[str, Any]) -> None:
    """In a causal model a step says of a text in parts what it says of the whole text.

    Raises:
      ValueError: it does not, as it mixes tokens without a graph, or does not heed ``context.first``.
    """
    sizes = dataclasses.replace(of_text(sizes), causal=True)
    inputs = make_inputs(7, step, sizes, options)
    first = sizes.num_tokens // 2
    parts = (slice(0, first), slice(first, sizes.num_tokens))

    @jax.jit
    def both(inputs: Inputs) -> tuple[Array, Array]:
        whole, probabilities = context(inputs, "causal"), inputs["learned"]["probabilities"]
        read = [(probabilities[:, part], of_tokens(whole, part)) for part in parts]
        if isinstance(step, InformStep) and step.mixes_tokens:
            kept = [reading.columns(step, *part, options) for part in read]
            so_far = [[kept[0], jax.tree.map(jnp.zeros_like, kept[1])], kept]
            columns = [jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *trees) for trees in so_far]
            asked = zip(read, columns, strict=True)
            found = [reading.inform_next(step, here, known, options) for (_, here), known in asked]
        else:
            found = [said(step, *part, options) for part in read]
        return said(step, probabilities, whole, options), jnp.concatenate(found, axis=1)

    whole, in_parts = both(inputs)
    same = np.allclose(whole, in_parts, rtol=1e-4, atol=1e-5)
    expected = "the same of a text token by token as of the whole text (a graph if tokens mix, positions from "
    expect(step.name, f"{expected}context.first on)", "a difference", holds=same)


def with_later(inputs: Inputs, other: Inputs, first: int) -> Inputs:
    """The inputs with the tokens from the place ``first`` on as in ``other``; what is of all tokens, from there too."""

    def later(one: Array, another: Array) -> Array:
        places = jnp.arange(one.shape[1]).reshape(1, -1, *[1] * (one.ndim - 2))
        return jnp.where(jnp.broadcast_to(places < first, one.shape), one, another)

    learned, fixed = inputs["learned"], inputs["fixed"]
    attention, changed = learned["attention"], other["learned"]["attention"]
    if attention is not None:
        names = ("queries", "keys", "values", "attended", "token_entropies")
        mixed = {name: jax.tree.map(later, getattr(attention, name), getattr(changed, name)) for name in names}
        attention = dataclasses.replace(attention, head_entropies=changed.head_entropies, **mixed)
    by_token = {name: later(learned[name], other["learned"][name]) for name in ("probabilities", "tokens")}
    given = {name: jax.tree.map(later, fixed[name], other["fixed"][name]) for name in ("raw_inputs", "previous")}
    return {"learned": {**learned, **by_token, "attention": attention}, "fixed": {**fixed, **given}}
