"""The steps of a router, as registries that a config picks from by name.

``score`` maps tokens to logits, ``inform`` probabilities to probabilities, and ``select`` probabilities to a plan of
which token meets which expert. In training ``loss`` maps logits to an auxiliary loss. A step is a pure function. Its
keyword-only arguments are its options; the signature is the one home of their defaults, types and bounds.

A step declares its other needs when it is registered. These may be learned parameters, a state, the attention of its
block, the raw input of the model, or the MoE layer before. The layer hands it exactly these in a :class:`StepContext`.
"""

from collections.abc import Callable
from typing import Any

from vmoe_inform import checks
from vmoe_inform.registry import Registry
from vmoe_inform.routing.contexts import (
    AttentionRecord,
    Duration,
    Growth,
    LayerSizes,
    LossContext,
    Mask,
    Parameter,
    PreviousLayer,
    SelectContext,
    StepContext,
)
from vmoe_inform.routing.step_kinds import (
    ContextStep,
    InformStep,
    LossStep,
    ScoreStep,
    SelectStep,
    Step,
    VariableStep,
)

__all__ = [
    "INFORM_STEPS",
    "LOSS_STEPS",
    "SCORE_STEPS",
    "SELECT_STEPS",
    "AttentionRecord",
    "ContextStep",
    "Duration",
    "Growth",
    "InformStep",
    "LayerSizes",
    "LossContext",
    "LossStep",
    "Mask",
    "Parameter",
    "PreviousLayer",
    "ScoreStep",
    "SelectContext",
    "SelectStep",
    "Step",
    "StepContext",
    "VariableStep",
    "all_steps",
    "register_inform",
    "register_loss",
    "register_score",
    "register_select",
]


SCORE_STEPS: Registry[ScoreStep] = Registry("score step")
INFORM_STEPS: Registry[InformStep] = Registry("inform step")
SELECT_STEPS: Registry[SelectStep] = Registry("select step")
LOSS_STEPS: Registry[LossStep] = Registry("loss step")
_REGISTRIES: tuple[Registry[Any], ...] = (SCORE_STEPS, INFORM_STEPS, SELECT_STEPS, LOSS_STEPS)


def all_steps() -> dict[str, Step]:
    """Every registered step by its name."""
    return {name: registry[name] for registry in _REGISTRIES for name in registry}


def _add(registry: Registry[Any], step: Step) -> None:
    """Registers a step; a config keeps options by name, so that no two steps of any kind may share one."""
    for other in _REGISTRIES:
        if other is not registry and step.name in other:
            raise checks.error("step", f"a name that no {other.kind} has", step.name)
    for name in set(_loss_names(step)) & {name for other in all_steps().values() for name in _loss_names(other)}:
        raise checks.error(f"step {step.name}", "a loss with a name that no other loss has", name)
    registry.add(step.name, step)


def _loss_names(step: Step) -> tuple[str, ...]:
    return (step.name,) if isinstance(step, LossStep) else getattr(step, "loss_names", ())


def register_score(name: str, **declared: Any) -> Callable[[Callable], Callable]:
    """Registers a score step; ``declared`` are the fields of :class:`ScoreStep`."""

    def decorate(function: Callable) -> Callable:
        _add(SCORE_STEPS, ScoreStep(name, function, **declared))
        return function

    return decorate


def register_inform(name: str, **declared: Any) -> Callable[[Callable], Callable]:
    """Registers an inform step; ``declared`` are the fields of :class:`InformStep`."""

    def decorate(function: Callable) -> Callable:
        _add(INFORM_STEPS, InformStep(name, function, **declared))
        return function

    return decorate


def register_select(name: str, **declared: Any) -> Callable[[Callable], Callable]:
    """Registers a select step; ``declared`` are the fields of :class:`SelectStep`."""

    def decorate(function: Callable) -> Callable:
        _add(SELECT_STEPS, SelectStep(name, function, **declared))
        return function

    return decorate


def register_loss(name: str, **declared: Any) -> Callable[[Callable], Callable]:
    """Registers a loss step; ``declared`` are the fields of :class:`LossStep`."""

    def decorate(function: Callable) -> Callable:
        _add(LOSS_STEPS, LossStep(name, function, **declared))
        return function

    return decorate
