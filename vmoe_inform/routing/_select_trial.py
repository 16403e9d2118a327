"""What select steps keep to, for contract.py."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vmoe_inform.axes import Array, Tree
from vmoe_inform.dispatch import Plan
from vmoe_inform.routing._function_trial import check_function
from vmoe_inform.routing._state_trial import check_state
from vmoe_inform.routing._trial import IMAGES, Inputs, check_array, expect, make_parameters, make_state
from vmoe_inform.routing.steps import SCORE_STEPS, LayerSizes, Mask, SelectContext, SelectStep


def check_select(step: SelectStep, sizes: LayerSizes, options: dict[str, Any]) -> tuple[str, ...]:
    """Tries out a select step; every image is a group.

    Returns:
      what was found to hold.

    Raises:
      ValueError: what does not hold.
    """
    trees = [_make_inputs(seed, step, sizes, options) for seed in (1, 2)]

    def all_of(tree: Inputs) -> Tree:
        plan, losses = _select(step, tree, sizes, options)
        return plan.load, plan.dropped, plan.choices, losses

    load, dropped, (weights, indices), losses = check_function(step.name, all_of, *trees)
    group = (IMAGES, sizes.num_tokens)
    check_array(f"{step.name}: load", load, (*group, sizes.num_experts))
    check_array(f"{step.name}: dropped", dropped, group)
    expect(step.name, "weights >= 0", float(jnp.min(weights)), holds=bool(jnp.all(weights >= 0)))
    known = bool(jnp.all((indices >= 0) & (indices <= sizes.num_experts)))
    expect(step.name, f"experts 0 to {sizes.num_experts}, the last for none", indices.tolist(), holds=known)
    held = ["gives a plan, the same with and without jit; its gradients are finite"]
    expect(f"{step.name}.losses", f"the names {step.loss_names}", sorted(losses), holds={*losses} == {*step.loss_names})
    for name, value in losses.items():
        check_array(f"{step.name}.losses[{name!r}]", value, (IMAGES,))
    if step.updates_state(options):
        _check_state(step, trees[0], sizes, options)
        held.append("updates its state to one of the same form")
    held += check_causal(step, sizes, options)
    if not step.may_look_ahead:
        check_reading(step, sizes, options)
        held.append("says of a text token by token what it says of the whole text")
    check_padding(step, sizes, options)
    held.append("says of a text with padding what it says of the text alone")
    return tuple(held)


def _make_inputs(seed: int, step: SelectStep, sizes: LayerSizes, options: dict[str, Any]) -> Inputs:
    random = np.random.default_rng(seed)
    logits = random.normal(size=(IMAGES, sizes.num_tokens, sizes.num_experts))
    return {
        "learned": {"logits": jnp.asarray(logits, jnp.float32), "parameters": make_parameters(step, sizes, options)},
        "fixed": {"state": make_state(random, seed, step, sizes, options)},
    }


def _context(
    tree: Inputs, sizes: LayerSizes, *, mask: Mask = None, real: Array | None = None, train: bool = True
) -> SelectContext:
    """With room for all tokens, so that slots do not make tokens depend on each other."""
    logits = tree["learned"]["logits"]
    return SelectContext(
        k=sizes.num_selected_experts,
        capacity=logits.shape[1],
        logits=logits,
        train=train,
        mask=mask,
        real=real,
        parameters=tree["learned"]["parameters"],
        state=tree["fixed"]["state"],
    )


def _probabilities(step: SelectStep, logits: Array) -> Array:
    """As the first score step that the select step goes with makes them."""
    score = "linear" if step.scores is None else step.scores[0]
    return SCORE_STEPS[score].probabilities(logits)


def _select(
    step: SelectStep, tree: Inputs, sizes: LayerSizes, options: dict[str, Any], **about: Any
) -> tuple[Plan, dict[str, Array]]:
    here = _context(tree, sizes, **about)
    probabilities = _probabilities(step, here.logits)
    return step.function(probabilities, here, **options), (
        step.losses(probabilities, here, **options) if step.losses else {}
    )


def _check_state(step: SelectStep, tree: Inputs, sizes: LayerSizes, options: dict[str, Any]) -> None:
    def sums(state: Tree, groups: slice) -> Tree:
        learned = {**tree["learned"], "logits": tree["learned"]["logits"][groups]}
        part = {"learned": learned, "fixed": {"state": state}}
        return step.observe(_select(step, part, sizes, options)[0], _context(part, sizes), **options)

    check_state(step, sums, tree["learned"]["parameters"], sizes, options)


def check_causal(step: SelectStep, sizes: LayerSizes, options: dict[str, Any]) -> tuple[str, ...]:
    """Other later tokens change nothing for earlier ones, in training or evaluation, unless the step says so.

    Returns:
      what was found to hold.

    Raises:
      ValueError: they do.
    """
    if step.may_look_ahead:
        return ("is refused in causal models: it says that it looks ahead",)
    trees = [_make_inputs(seed, step, sizes, options) for seed in (3, 4)]
    first = sizes.num_tokens // 2
    one, other = (tree["learned"]["logits"] for tree in trees)
    changed = {**trees[0], "learned": {**trees[0]["learned"], "logits": one.at[:, first:].set(other[:, first:])}}

    @jax.jit
    def earlier(tree: Inputs) -> list[Tree]:
        """What is chosen for the tokens before the place ``first``, in evaluation and in training."""
        plans = [_select(step, tree, sizes, options, mask="causal", train=train)[0] for train in (False, True)]
        return [jax.tree.map(lambda leaf: leaf[:, :first], (plan.choices, plan.load)) for plan in plans]

    for before, after in zip(earlier(trees[0]), earlier(changed), strict=True):
        same = all(np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, (before, after)), strict=True))
        expect(step.name, "nothing of later tokens in a causal model, or looks_ahead=True", "a change", holds=same)
    return ("in a causal model gives nothing of later tokens, bit for bit",)


def check_reading(step: SelectStep, sizes: LayerSizes, options: dict[str, Any]) -> None:
    """In evaluation a causal step chooses of a text in parts what it chooses of the whole text.

    Raises:
      ValueError: it does not.
    """
    tree = _make_inputs(7, step, sizes, options)
    first = sizes.num_tokens // 2

    @jax.jit
    def both(tree: Inputs) -> tuple[Tree, Tree]:
        def chosen(part: slice) -> Tree:
            learned = {**tree["learned"], "logits": tree["learned"]["logits"][:, part]}
            about = {"mask": "causal", "train": False}
            return _select(step, {**tree, "learned": learned}, sizes, options, **about)[0].choices

        parts = chosen(slice(0, first)), chosen(slice(first, None))
        return chosen(slice(None)), jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *parts)

    same = all(np.allclose(one, other, rtol=1e-5) for one, other in zip(*both(tree), strict=True))
    expect(step.name, "the same of a text token by token as of the whole text", "a difference", holds=same)


def check_padding(step: SelectStep, sizes: LayerSizes, options: dict[str, Any]) -> None:
    """Choices of real tokens, losses, and what is observed are of the real tokens alone.

    Raises:
      ValueError: they are not.
    """
    tree = _make_inputs(8, step, sizes, options)
    first = max(sizes.num_tokens // 2, 1)
    real = jnp.broadcast_to(jnp.arange(sizes.num_tokens) < first, (IMAGES, sizes.num_tokens))
    learned = {**tree["learned"], "logits": tree["learned"]["logits"][:, :first]}
    alone = {**tree, "learned": learned}

    def seen(tree: Inputs, real: Array | None, sizes: LayerSizes) -> Tree:
        plan, losses = _select(step, tree, sizes, options, real=real)
        observed = step.observe(plan, _context(tree, sizes, real=real), **options) if step.updates_state(options) else 0
        chosen = jax.tree.map(lambda leaf: leaf[:, :first], plan.choices)
        return chosen, losses, observed

    @jax.jit
    def both(tree: Inputs, alone: Inputs) -> tuple[Tree, Tree]:
        return seen(tree, real, sizes), seen(alone, None, dataclasses.replace(sizes, num_tokens=first))

    pairs = zip(*map(jax.tree.leaves, both(tree, alone)), strict=True)
    same = all(np.allclose(one, other, rtol=1e-5) for one, other in pairs)
    expect(step.name, "nothing of padding behind a text (context.real)", "a difference", holds=same)
