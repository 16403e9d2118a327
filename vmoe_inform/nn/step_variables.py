"""What the steps of a router keep: learned arrays, states, and what a training step observes to update the states.

A layer only observes. The states are updated once for a whole training step, by :func:`update_states`, however many
parts its batch is worked through in.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Tree
from vmoe_inform.config import RouterConfig, options_of
from vmoe_inform.routing.steps import INFORM_STEPS, SCORE_STEPS, SELECT_STEPS, Duration, LayerSizes, VariableStep

STATE = "routing"  # the collection of the steps' states
OBSERVED = "routing_observed"  # the collection that a training step makes mutable: sums over the tokens of a batch


class StepVariables(nn.Module):
    """Holds the learned arrays and the state of one step, in the scope ``router/<step>``."""

    step: VariableStep
    sizes: LayerSizes
    options: Mapping[str, Any]

    @nn.compact
    def __call__(self) -> tuple[dict[str, Array], Tree | None]:
        """The learned arrays by name, and the state; None if the step keeps none."""
        declared = self.step.parameters(self.sizes, **self.options)
        parameters = {name: self.param(name, p.initializer, p.shape, jnp.float32) for name, p in declared.items()}
        initial_state = self.step.initial_state
        if initial_state is None or not self.step.has_state(self.options):
            return parameters, None
        if not self.has_variable(STATE, "state") and not self.is_mutable_collection(STATE):
            raise checks.error(
                f"variables for router step {self.step.name!r}",
                f"the collections 'params' and {STATE!r} (this step keeps a state)",
                "no state",
            )

        def make(key: Array | None = None) -> Tree:
            return initial_state(self.make_rng("params") if key is None else key, self.sizes, **self.options)

        state = self.variable(STATE, "state", make).value
        # Flax checks the shapes of parameters alone.
        forms = [_form(tree) for tree in (jax.eval_shape(make, jax.random.key(0)), state)]
        if forms[0] != forms[1]:
            raise checks.error(f"state of router step {self.step.name!r}", f"arrays as {forms[0]}", forms[1])
        return parameters, state

    def leave(self, observed: Tree) -> None:
        """Leaves what the step observed where :func:`update_states` looks for it."""
        self.put_variable(OBSERVED, "observed", observed)


def _form(tree: Tree) -> str:
    return str(jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree))


def update_states(
    config: RouterConfig, params: Tree, states: Tree, observed: Tree, duration: Duration | None = None
) -> Tree:
    """The states after a training step.

    Args:
      config: of the routers.
      params: parameters of the model before the step.
      states: the collection ``routing`` before the step.
      observed: the collection ``routing_observed`` of the model's call; of several calls, the sums of its arrays.
      duration: of the training; None only without steps that need it.

    Returns:
      the new collection ``routing``; states of steps that observed nothing are the old ones.

    Raises:
      ValueError: no duration, for a step that needs it.
    """
    steps: dict[str, VariableStep] = {name: INFORM_STEPS[name] for name in config.inform_steps}
    steps |= {config.score: SCORE_STEPS[config.score], config.select: SELECT_STEPS[config.select]}

    def updated(name: str, params: Tree, states: Tree, observed: Tree) -> Tree:
        if "observed" in observed:  # the scope of a step
            step = steps[name]
            assert step.update_state is not None  # others leave nothing
            given: dict[str, Any] = {}
            if step.needs_duration:
                if duration is None:
                    raise checks.error("duration", f"what the router step {step.name!r} needs", None)
                given["duration"] = duration
            new = step.update_state(states["state"], observed["observed"], params, **given, **options_of(config, step))
            return {**states, "state": new}
        inner = {key: updated(key, params.get(key, {}), states[key], observed[key]) for key in observed}
        return {**states, **inner}

    return updated("", params, states, observed)
