"""What every step keeps to, tried out on small random inputs: for whoever writes one.

    from vmoe_inform.routing import contract
    contract.check("my_graph")             # in a notebook or a test, after the step was registered

It needs nothing but the package. The tests call it for every registered step.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vmoe_inform import checks
from vmoe_inform.axes import Array, Tree
from vmoe_inform.routing import _causal_trial, _padding_trial, _select_trial
from vmoe_inform.routing._function_trial import check_function, check_products, close
from vmoe_inform.routing._state_trial import check_state
from vmoe_inform.routing._trial import (
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
    SELECT_STEPS,
    ContextStep,
    InformStep,
    LayerSizes,
    LossStep,
    ScoreStep,
    SelectStep,
    Step,
    VariableStep,
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
    """Tries out a registered step.

    Args:
      name: of the step.
      sizes: of the layer that it is tried in.
      **options: of the step; defaults for the others.

    Returns:
      what was found to hold, one sentence each.

    Raises:
      ValueError: an unknown name or option, or what does not hold: what was tried, expected and received.
    """
    registries = (SCORE_STEPS, INFORM_STEPS, SELECT_STEPS, LOSS_STEPS)
    known: dict[str, Step] = {one: registry[one] for registry in registries for one in registry}
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
    if isinstance(step, SelectStep):
        return _select_trial.check_select(step, sizes, options)
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


def check_causal(step: VariableStep, sizes: LayerSizes, options: dict[str, Any]) -> tuple[str, ...]:
    """In a causal model nothing that a score, inform or select step gives for a token depends on later ones.

    Returns:
      what was found to hold.

    Raises:
      ValueError: it depends on them, and the step does not say so.
    """
    if isinstance(step, SelectStep):
        return _select_trial.check_causal(step, sizes, options)
    assert isinstance(step, ContextStep)  # there are no others
    return _causal_trial.check_causal(step, sizes, options)


def check_reading(step: VariableStep, sizes: LayerSizes, options: dict[str, Any]) -> None:
    """In a causal model a step says of a text in parts what it says of the whole text.

    Raises:
      ValueError: it does not.
    """
    if isinstance(step, SelectStep):
        return _select_trial.check_reading(step, sizes, options)
    assert isinstance(step, ContextStep)  # there are no others
    return _causal_trial.check_reading(step, sizes, options)


def check_padding(step: Step, sizes: LayerSizes, options: dict[str, Any]) -> None:
    """A step says of texts with padding what it says of the texts alone: of each token, in losses, and for its state.

    Raises:
      ValueError: it does not: it looks at tokens that are not in ``context.real``.
    """
    if isinstance(step, SelectStep):
        return _select_trial.check_padding(step, sizes, options)
    assert isinstance(step, ContextStep | LossStep)  # there are no others
    return _padding_trial.check_padding(step, sizes, options)


def _padding(step: ContextStep | LossStep, sizes: LayerSizes, options: dict[str, Any]) -> str:
    try:
        check_padding(step, sizes, options)
    except checks.InputError:
        return "is for images: padding behind a text changes what it says of the text"
    return "says of a text with padding what it says of the text alone"


def _check_loss(step: LossStep, sizes: LayerSizes, options: dict[str, Any]) -> tuple[str, ...]:
    """What holds of a loss of the choices of a group."""
    inputs = [make_loss_inputs(seed, step, sizes) for seed in (1, 2)]
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
        k = min(max(sizes.num_selected_experts, step.observe_k), sizes.num_experts)
        indices = jax.lax.top_k(jax.random.normal(jax.random.key(0), shape), k)[1]

        def sums(state: Tree, images: slice) -> Tree:
            seen = of_images(dataclasses.replace(context(inputs[0]), state=state), images)
            return step.observe(seen, indices[images], **options)

        check_state(step, sums, context(inputs[0]).parameters, sizes, options, must_change=must_change)
        held.append("updates its state to one of the same form")
    return held


def _of_first_layer(inputs: Inputs) -> Inputs:
    return {**inputs, "fixed": {**inputs["fixed"], "previous": None}}


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
    if step.key_squares is not None:
        squares = step.key_squares(context(inputs), **options)
        check_array(f"{step.name}.key_squares", squares, (IMAGES, tokens))
        expect(f"{step.name}.key_squares", "squares >= 0", squares.tolist(), holds=bool(jnp.all(squares >= 0)))
    same = close(inform(probabilities, graph), informed)
    expect(f"{step.name}.graph", "the weights that the function mixes tokens with", "others", holds=same)
    return "gives probabilities [B, N, E]: those of all tokens, mixed as its graph says"


def _check_parts(step: ScoreStep, inputs: list[Inputs], logits: Array, options: dict[str, Any]) -> None:
    """Affinities, gates and slot logits of a score step."""
    shape = logits.shape
    if step.affinities is not None:
        affinities_of, field = step.affinities, f"{step.name}.affinities"
        found = check_function(field, lambda tree: affinities_of(step.function(context(tree), **options)), *inputs)
        check_array(field, found, shape)
        expect(field, "probabilities >= 0", float(jnp.min(found)), holds=bool(jnp.all(found >= 0)))
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
    same = close(rounded, exact)
    expect(step.name, "nothing rounded to bfloat16 on the way", "a difference", holds=same)
    check_products(step.name, lambda: result(jnp.bfloat16))
