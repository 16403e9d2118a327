"""Inform steps that mix experts by their adjacency: Symphony as published and as coded, and two variants of ours.

The public draft of an author's code differs from the paper. There ``normalization`` is ``"symmetric"``,
``update_every`` is ``"epoch"``, and ``identity_share`` is 0.9, after a warm-up of five epochs.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Float, Int, Tree
from vmoe_inform.routing.adjacency import (
    coselection_counts,
    expert_informed,
    normalize_adjacency,
    transition_counts,
    transition_informed,
    update_adjacency,
    update_adjacency_oja,
    with_identity_rows,
)
from vmoe_inform.routing.steps import Duration, LayerSizes, StepContext, register_inform

Normalization = Literal["row", "column", "symmetric", "doubly_stochastic"]
Interval = checks.PositiveInt | Literal["epoch"]


def _learns_each_step_at_once(
    *, update_every: int | str, warmup_steps: int, warmup_share: float, **options: object
) -> bool:
    """Whether the state is the adjacency alone, as the paper has it: updated by each step, and applied by the next."""
    return update_every == 1 and not warmup_steps and not warmup_share


def _initial(key: Array, sizes: LayerSizes, *, initial_value: float, **options: Any) -> Tree:
    """The adjacency; with an interval or a warm-up also the counts since the last update, and where training is."""
    adjacency = jnp.full((sizes.num_experts, sizes.num_experts), initial_value, jnp.float32)
    if _learns_each_step_at_once(**options):
        return adjacency
    return {
        "adjacency": adjacency,
        "counts": jnp.zeros_like(adjacency),
        "steps": jnp.zeros((), jnp.int32),  # that were observed
        "acts": jnp.asarray(not options["warmup_steps"] and not options["warmup_share"]),
    }


def _num_experts(context: StepContext) -> int:
    """E, of a state that is an adjacency or holds one."""
    state = context.state["adjacency"] if isinstance(context.state, Mapping) else context.state
    assert state is not None  # declared by initial_state
    return state.shape[-1]


def _coselections(
    context: StepContext, indices: Int[Array, "B N K"], *, diagonal: bool = True, **options: object
) -> Float[Array, "E E"]:
    return coselection_counts(indices, _num_experts(context), diagonal=diagonal)


def _update(
    state: Tree,
    counts: Float[Array, "E E"],
    parameters: Mapping[str, Array],
    *,
    duration: Duration,
    decay: float,
    normalization: str,
    update_every: int | str,
    warmup_steps: int,
    warmup_share: float,
    **options: object,
) -> Tree:
    """The moving average, by the counts of this step or of the interval that it ends."""
    if not isinstance(state, Mapping):
        return update_adjacency(state, counts, decay=decay, normalization=normalization)
    steps, total, before = state["steps"] + 1, state["counts"] + counts, state["adjacency"]
    interval = duration.epoch_steps if isinstance(update_every, str) else update_every
    adjacency = update_adjacency(before, total, decay=decay, normalization=normalization)
    if update_every != 1:  # there are few updates: an average with what it started from would keep that for long
        first = normalize_adjacency(total, normalization=normalization)
        adjacency = jnp.where(steps == interval, first, adjacency)
    ends = steps % interval == 0
    return {
        "adjacency": jnp.where(ends, adjacency, before),
        "counts": jnp.where(ends, 0.0, total),
        "steps": steps,
        "acts": steps >= max(warmup_steps, math.ceil(warmup_share * duration.total_steps)),
    }


def _check_warmup(sizes: LayerSizes, *, warmup_steps: int, warmup_share: float, **options: object) -> None:
    if warmup_steps and warmup_share:
        raise checks.error("warmup_share", f"0 with warmup_steps = {warmup_steps}", warmup_share)


def _check_duration(duration: Duration, *, update_every: int | str, warmup_steps: int, **options: object) -> None:
    steps = duration.total_steps
    if warmup_steps >= steps:
        raise checks.error("warmup_steps", f"less than the {steps} training steps", warmup_steps)
    if isinstance(update_every, int):
        if update_every > steps:
            raise checks.error("update_every", f"at most the {steps} training steps", update_every)
    elif duration.knows_epoch and duration.epoch_steps > steps:
        expected = f"at most the {steps} training steps (an epoch has {duration.epoch_steps})"
        raise checks.error("update_every", expected, update_every)


def _symphony_adjacency(
    state: Tree, *, threshold: float, identity_share: float, **options: object
) -> Float[Array, "E E"]:
    """The matrix as it is applied."""
    learned = state["adjacency"] if isinstance(state, Mapping) else state
    matrix = with_identity_rows(jnp.where(learned < threshold, 0.0, learned))
    identity = jnp.eye(matrix.shape[-1])
    if identity_share:
        matrix = identity_share * identity + (1.0 - identity_share) * matrix
    return jnp.where(state["acts"], matrix, identity) if isinstance(state, Mapping) else matrix


@register_inform(
    "symphony",
    initial_state=_initial,
    observe=_coselections,
    observe_k=2,
    update_state=_update,
    needs_duration=True,
    adjacency=_symphony_adjacency,
    literal={"normalization": "row", "update_every": 1, "identity_share": 0.0, "warmup_steps": 0, "warmup_share": 0.0},
    check=_check_warmup,
    check_duration=_check_duration,
    training_options=(
        *("decay", "normalization", "diagonal", "initial_value", "update_every"),
        *("warmup_steps", "warmup_share"),
    ),
)
def symphony_step(
    probabilities: Float[Array, "B N E"],
    context: StepContext,
    *,
    decay: checks.Share = 0.9,
    normalization: Normalization = "row",
    diagonal: bool = True,
    threshold: checks.NonNegativeFloat = 0.0,
    initial_value: checks.NonNegativeFloat = 0.0,
    identity_share: checks.Share = 0.0,
    update_every: Interval = 1,
    warmup_steps: checks.NonNegativeInt = 0,
    warmup_share: checks.ShareBelowOne = 0.0,
) -> Float[Array, "B N E"]:
    r"""Experts that are chosen together inform each other (SymphonySMoE, arXiv 2510.16411): their adjacency is state.

    $$p_i = (\alpha I + (1 - \alpha) A) \, r_i$$

    alpha is ``identity_share``. Entries of A below ``threshold`` are left out (0.05 in the paper). With K = 1 no two
    experts are ever chosen together, so the paper's graph would have no edge. There the base top 2 are counted.

    A is updated every ``update_every`` training steps, or once an ``"epoch"`` (its steps are rounded), by the counts
    since the last update. Unless that is every step, the first update replaces A. In the first ``warmup_steps`` steps,
    or this share of the run, A is learned and not applied. A checkpoint is evaluated as training would continue.
    """
    matrix = _symphony_adjacency(context.state, threshold=threshold, identity_share=identity_share)
    return expert_informed(probabilities, matrix)


def _zeros(key: Array, sizes: LayerSizes, **options: object) -> Float[Array, "E E"]:
    return jnp.zeros((sizes.num_experts, sizes.num_experts), jnp.float32)


def _adjacency(context: StepContext) -> Float[Array, "E E"]:
    assert context.state is not None  # declared by initial_state
    return context.state


def _oja_adjacency(state: Float[Array, "E E"], **options: object) -> Float[Array, "E E"]:
    return with_identity_rows(state)


def _oja(
    state: Float[Array, "E E"], counts: Float[Array, "E E"], parameters: Mapping[str, Array], *, decay: float
) -> Float[Array, "E E"]:
    return update_adjacency_oja(state, counts, decay=decay)


@register_inform(
    "symphony_oja",
    initial_state=_zeros,
    observe=_coselections,
    observe_k=2,
    update_state=_oja,
    adjacency=_oja_adjacency,
    training_options=("decay",),
)
def symphony_oja_step(
    probabilities: Float[Array, "B N E"], context: StepContext, *, decay: checks.Share = 0.9
) -> Float[Array, "B N E"]:
    """Symphony with a Hebbian update in Oja's form, so that rarely chosen experts keep their neighbours.

    The second open question of SymphonySMoE.
    """
    return expert_informed(probabilities, _adjacency(context))


def _transitions(context: StepContext, indices: Int[Array, "B N K"], **options: object) -> Float[Array, "E E"]:
    assert context.previous is not None  # declared by needs_previous and skips_first_layer
    return transition_counts(context.previous.indices, indices, _num_experts(context))


def _average_transitions(
    state: Float[Array, "E E"],
    counts: Float[Array, "E E"],
    parameters: Mapping[str, Array],
    *,
    decay: float,
    share: float,
) -> Float[Array, "E E"]:
    return update_adjacency(state, counts, decay=decay)


@register_inform(
    "symphony_across_layers",
    initial_state=_zeros,
    observe=_transitions,
    update_state=_average_transitions,
    training_options=("decay",),
    needs_previous=True,
    skips_first_layer=True,
)
def symphony_across_layers_step(
    probabilities: Float[Array, "B N E"],
    context: StepContext,
    *,
    decay: checks.Share = 0.9,
    share: checks.Share = 0.5,
) -> Float[Array, "B N E"]:
    """Experts inform those that are chosen after them, in the next MoE layer.

    The first open question of SymphonySMoE. The first MoE layer comes after none, and is not informed.
    """
    assert context.previous is not None  # declared by needs_previous and skips_first_layer
    return transition_informed(probabilities, context.previous.probabilities, _adjacency(context), share=share)
