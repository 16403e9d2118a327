"""What every score, inform and loss step keeps to, tried out on small random inputs: for whoever writes one.

    from vmoe_inform.routing import contract
    contract.check("my_graph")             # in a notebook or a test, after the step was registered

It needs nothing but the package. The tests call it for every registered step.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxprs_in_params

from vmoe_inform import checks
from vmoe_inform.axes import Array, Tree
from vmoe_inform.routing._causal_trial import check_causal, check_reading
from vmoe_inform.routing._padding_trial import check_padding
from vmoe_inform.routing._trial import (
    DURATION,
    IMAGES,
    SIZES,
    Inputs,
    check_array,
    context,
    expect,
    loss_context,
    make_inputs,
    make_loss_inputs,
    of_images,
)
from vmoe_inform.routing.graphs import inform
from vmoe_inform.routing.steps import (
    INFORM_STEPS,
    LOSS_STEPS,
    SCORE_STEPS,
    ContextStep,
    InformStep,
    LayerSizes,
    LossStep,
    ScoreStep,
    Step,
)

__all__ = [
    "SIZES",
    "check",
    "check_causal",
    "check_function",
    "check_padding",
    "check_products",
    "check_reading",
    "context",
    "make_inputs",
]


def check(name: str, *, sizes: LayerSizes = SIZES, **options: Any) -> tuple[str, ...]:
    """Tries out a registered score, inform or loss step.

    Args:
      name: of the step.
      sizes: of the layer that it is tried in.
      **options: of the step; defaults for the others.

    Returns:
      what was found to hold, one sentence each.

    Raises:
      ValueError: an unknown name or option, or what does not hold: what was tried, expected and received.
    """
    known: dict[str, Step] = {
        one: registry[one] for registry in (SCORE_STEPS, INFORM_STEPS, LOSS_STEPS) for one in registry
    }
    if name not in known:
        raise checks.error("step", f"one of {', '.join(known)}", name)
    step = known[name]
    for option, value in options.items():
        if option not in step.option_types:
            raise checks.error(f"option of {name}", f"one of {', '.join(step.option_types) or 'none'}", option)
        checks.conform(f"{name}.{option}", value, step.option_types[option])
    options = {**step.option_defaults, **options}
    step.check(sizes, **options)
    if isinstance(step, LossStep):
        return _check_loss(step, sizes, options)
    assert isinstance(step, ContextStep)  # of the two other registries
    inputs = [make_inputs(seed, step, sizes, options) for seed in (1, 2)]
    held = _check_layer(step, inputs, sizes, options)
    if step.needs_previous and not (isinstance(step, InformStep) and step.skips_first_layer):
        try:
            _check_layer(step, [_of_first_layer(tree) for tree in inputs], sizes, options, must_change=False)
        except Exception as problem:
            expected = "to work in the first MoE layer too, where context.previous is None (or skips_first_layer)"
            expect(name, expected, f"{type(problem).__name__}: {problem}", holds=False)
        held.append("does all this in the first MoE layer too, which has none before it")
    held += check_causal(step, sizes, options)
    held.append(_padding(step, sizes, options))
    return tuple(held)


def _padding(step: ContextStep | LossStep, sizes: LayerSizes, options: dict[str, Any]) -> str:
    try:
        check_padding(step, sizes, options)
    except checks.InputError:
        return "is for images: padding behind a text changes what it says of the text"
    return "says of a text with padding what it says of the text alone"


def _check_loss(step: LossStep, sizes: LayerSizes, options: dict[str, Any]) -> tuple[str, ...]:
    """What holds of a loss of the choices of a group."""
    inputs = [make_loss_inputs(seed, sizes) for seed in (1, 2)]
    loss = check_function(step.name, lambda tree: step.function(loss_context(tree), **options), *inputs)
    check_array(step.name, loss, (IMAGES,))
    held = "gives a loss [G], the same with and without jit; its gradients are finite"
    return held, _padding(step, sizes, options)


def _check_layer(
    step: ContextStep, inputs: list[Inputs], sizes: LayerSizes, options: dict[str, Any], *, must_change: bool = True
) -> list[str]:
    """What holds of the step in a layer that hands it these inputs."""
    name, shape = step.name, (IMAGES, sizes.num_tokens, sizes.num_experts)
    held = []
    if isinstance(step, InformStep):
        informed = check_function(name, lambda tree: _informed(step, tree, options), *inputs)
        check_array(name, informed, shape)
        expect(name, "probabilities >= 0", float(jnp.min(informed)), holds=bool(jnp.all(informed >= 0)))
        held.append(_check_graph(step, inputs[0], options))
    elif isinstance(step, ScoreStep):
        logits = check_function(name, lambda tree: step.function(context(tree), **options), *inputs)
        check_array(name, logits, shape)
        held.append("gives float32 logits [B, N, E]")
        _check_parts(step, inputs, logits, options)
    if step.losses is not None:
        _check_own_losses(step, inputs, options)
        held.append("brings losses [B] with the names that it declares")
    held.append("gives the same with and without jit, and twice the same; is compiled once; its gradients are finite")
    held.append("multiplies matrices in float32 at the highest precision, also of a bfloat16 model")
    _check_bfloat16(step, inputs[0], options)
    if step.updates_state(options):
        _check_state(step, inputs[0], sizes, options, must_change=must_change)
        held.append("updates its state to one of the same form")
    return held


def _of_first_layer(inputs: Inputs) -> Inputs:
    return {**inputs, "fixed": {**inputs["fixed"], "previous": None}}


def check_function(name: str, function: Callable[[Inputs], Tree], first: Inputs, second: Inputs) -> Tree:
    """Checks a function, and returns its result for ``first``.

    jit equals eager, two calls compile once, and the same input gives the same bits. Values and gradients are finite,
    and products have the highest precision.
    """
    traces: list[None] = []

    @jax.jit
    def both(tree: Inputs) -> tuple[Tree, Tree]:
        traces.append(None)

        def loss(learned: Tree) -> tuple[Array, Tree]:
            result = function({**tree, "learned": learned})
            return sum((jnp.sum(leaf**2) for leaf in _floats(result)), jnp.zeros(())), result

        gradients, result = jax.grad(loss, has_aux=True)(tree["learned"])
        return result, gradients

    result, gradients = both(first)
    again, _ = both(first)
    both(second)
    expect(name, "one compilation for inputs of the same shape", len(traces), holds=len(traces) == 1)
    kinds = {leaf.dtype.name for leaf in jax.tree.leaves(result)}
    expect(name, "float32, int32 or bool", sorted(kinds), holds=kinds <= {"float32", "int32", "bool"})
    for what, tree in (("values", result), ("gradients", gradients)):
        finite = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))
        expect(name, f"finite {what}", "NaN or infinity", holds=finite)
    for one, two, eager in zip(*map(jax.tree.leaves, (result, again, function(first))), strict=True):
        same = np.array_equal(one, two)
        expect(name, "the same bits for the same input", "others", holds=same)
        close = _close(one, eager)
        expect(name, "the same with and without jit", "a difference", holds=close)
    check_products(name, both, first)
    return result


def check_products(name: str, function: Callable[..., Any], *arguments: Any) -> None:
    """A router's matrix products are float32 at the highest precision, also on an accelerator (decision 6).

    Factors may be bfloat16 as they come from the model: their products are exact in float32.

    Raises:
      ValueError: another product; :func:`vmoe_inform.routing.products.float32_einsum` makes the right ones.
    """
    for equation in _equations(jax.make_jaxpr(function)(*arguments).jaxpr):
        if equation.primitive.name == "dot_general":
            precision = equation.params["precision"]
            factors = {variable.aval.dtype.name for variable in equation.invars}
            right = (
                precision is not None
                and set(precision) == {jax.lax.Precision.HIGHEST}
                and equation.outvars[0].aval.dtype == jnp.float32
                and factors in ({"float32"}, {"bfloat16"})
            )
            received = f"precision {precision} of {' and '.join(sorted(factors))}"
            expect(name, "matrix products in float32 at the highest precision (float32_einsum)", received, holds=right)


def _informed(step: InformStep, inputs: Inputs, options: dict[str, Any]) -> Array:
    return step.function(inputs["learned"]["probabilities"], context(inputs), **options)


def _check_graph(step: InformStep, inputs: Inputs, options: dict[str, Any]) -> str:
    """What the step says of its token graph is what its function does."""
    probabilities = inputs["learned"]["probabilities"]
    informed = _informed(step, inputs, options)
    if step.graph is None:
        # Then tokens do not mix: to change the last token's probabilities changes nothing for the others.
        other = jax.nn.one_hot(0, probabilities.shape[-1])
        changed = {**inputs, "learned": {**inputs["learned"], "probabilities": probabilities.at[:, -1].set(other)}}
        unmoved = np.array_equal(informed[:, :-1], _informed(step, changed, options)[:, :-1])
        expect(step.name, "a graph, as tokens mix", "graph=None", holds=unmoved)
        return "gives probabilities [B, N, E]; each token keeps to itself"
    graph = step.graph(context(inputs), **options)
    tokens = probabilities.shape[1]
    check_array(f"{step.name}.graph", graph, (IMAGES, tokens, tokens))
    sums = jnp.sum(graph, axis=-1)
    expect(f"{step.name}.graph", "rows that sum to 1", sums.tolist(), holds=bool(jnp.allclose(sums, 1.0, rtol=1e-5)))
    same = _close(inform(probabilities, graph), informed)
    expect(f"{step.name}.graph", "the weights that the function mixes tokens with", "others", holds=same)
    return "gives probabilities [B, N, E]: those of all tokens, mixed as its graph says"


def _check_parts(step: ScoreStep, inputs: list[Inputs], logits: Array, options: dict[str, Any]) -> None:
    """Gates and slot logits of a score step."""
    shape = logits.shape
    if step.gates is not None:
        gates_of = step.gates
        gates = check_function(f"{step.name}.gates", lambda tree: gates_of(context(tree), **options), *inputs)
        check_array(f"{step.name}.gates", gates, shape)
        expect(f"{step.name}.gates", "weights >= 0", float(jnp.min(gates)), holds=bool(jnp.all(gates >= 0)))
    if step.slot_logits is not None:
        slots_of, field = step.slot_logits, f"{step.name}.slot_logits"
        slots = check_function(field, lambda tree: slots_of(context(tree), **options), *inputs)
        check_array(field, slots, (*shape, slots.shape[-1]))
        shares = jnp.sum(jax.nn.softmax(slots, axis=(2, 3)), axis=-1)
        same = np.allclose(jax.nn.softmax(logits), shares, rtol=1e-5)
        expect(field, "an expert's share to be that of its slots", "another", holds=same)


def _check_own_losses(step: ContextStep, inputs: list[Inputs], options: dict[str, Any]) -> None:
    """Losses that a score or inform step brings."""
    assert step.losses is not None
    losses_of, field = step.losses, f"{step.name}.losses"

    def losses(tree: Inputs) -> dict[str, Array]:
        given = (tree["learned"]["probabilities"],) if isinstance(step, InformStep) else ()
        return losses_of(*given, context(tree), **options)

    found = check_function(field, losses, *inputs)
    expect(field, f"the names {step.loss_names}", sorted(found), holds=set(found) == set(step.loss_names))
    for value in found.values():
        check_array(field, value, (IMAGES,))


def _check_bfloat16(step: ContextStep, inputs: Inputs, options: dict[str, Any]) -> None:
    """What the model hands over in bfloat16 gives what the same numbers in float32 give."""

    def result(dtype: Any) -> Array:
        def handed(leaf: Array) -> Array:
            return leaf.astype(jnp.bfloat16).astype(dtype)

        learned = {name: jax.tree.map(handed, inputs["learned"][name]) for name in ("tokens", "attention")}
        here = context({**inputs, "learned": {**inputs["learned"], **learned}})
        given = (inputs["learned"]["probabilities"],) if isinstance(step, InformStep) else ()
        return step.function(*given, here, **options)

    rounded, exact = jax.jit(lambda: (result(jnp.bfloat16), result(jnp.float32)))()
    check_array(f"{step.name} of bfloat16 tokens", rounded, exact.shape)
    same = _close(rounded, exact)
    expect(step.name, "nothing rounded to bfloat16 on the way", "a difference", holds=same)
    check_products(step.name, lambda: result(jnp.bfloat16))


def _check_state(
    step: ContextStep, inputs: Inputs, sizes: LayerSizes, options: dict[str, Any], *, must_change: bool
) -> None:
    """An update keeps the state's form, changes something, and is the same with and without jit."""
    assert step.initial_state is not None
    assert step.update_state is not None
    observe, update_state, name = step.observe, step.update_state, f"{step.name}.update_state"
    state = step.initial_state(jax.random.key(0), sizes, **options)
    k = min(max(sizes.num_selected_experts, step.observe_k), sizes.num_experts)
    logits = jax.random.normal(jax.random.key(0), (IMAGES, sizes.num_tokens, sizes.num_experts))
    indices = jax.lax.top_k(logits, k)[1]

    def sums(state: Tree, images: slice = slice(None)) -> Tree:
        seen = of_images(dataclasses.replace(context(inputs), state=state), images)
        return observe(seen, indices[images], **options)

    given = {"duration": DURATION} if step.needs_duration else {}

    def update(state: Tree) -> Tree:
        return update_state(state, sums(state), context(inputs).parameters, **given, **options)

    parts = jax.tree.map(jnp.add, sums(state, slice(0, 1)), sums(state, slice(1, None)))
    added = all(_close(*pair) for pair in zip(*map(jax.tree.leaves, (parts, sums(state))), strict=True))
    expect(f"{step.name}.observe", "sums: those of the parts of a batch add up to the batch's", "others", holds=added)

    updated, eager = jax.jit(update)(state), update(state)
    forms = [jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.asarray(leaf).dtype), tree) for tree in (updated, state)]
    expect(name, f"the form of the state: {forms[1]}", forms[0], holds=forms[0] == forms[1])
    pairs = list(zip(*map(jax.tree.leaves, (updated, state, eager)), strict=True))
    finite = all(np.isfinite(new).all() for new, _, _ in pairs)
    expect(name, "finite values", "NaN or infinity", holds=finite)
    changed = any(not np.array_equal(new, old) for new, old, _ in pairs)
    expect(name, "a change of the state", "none", holds=changed or not must_change)
    close = all(np.allclose(new, other, rtol=1e-6) for new, _, other in pairs)
    expect(name, "the same with and without jit", "a difference", holds=close)


def _close(one: Array, other: Array) -> bool:
    return np.allclose(one, other, rtol=1e-5, atol=1e-6)


def _floats(tree: Tree) -> list[Array]:
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]


def _equations(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from _equations(inner)
