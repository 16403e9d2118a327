"""score -> inform -> select, with each step looked up by the name in the config."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Float, Int
from vmoe_inform.config import RouterConfig
from vmoe_inform.routing import losses as routing_losses
from vmoe_inform.routing import top_experts
from vmoe_inform.routing.steps import (
    INFORM_STEPS,
    SCORE_STEPS,
    SELECT_STEPS,
    AttentionRecord,
    InformContext,
    InformStep,
    LayerSizes,
    Step,
)

STATE = "routing"  # the mutable collection of the steps' states
TRACE = "intermediates"  # the collection that analysis makes mutable to look inside


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Routing:
    """What a router decided for a batch; all floats are float32.

    Attributes:
      logits: base logits, without noise.
      noisy_logits: the logits that the choice was made from; the same array as ``logits`` in evaluation.
      informed: probabilities after the inform steps.
      weights: weights of the chosen experts' outputs.
      indices: the chosen experts.
    """

    logits: Float[Array, "B N E"]
    noisy_logits: Float[Array, "B N E"]
    informed: Float[Array, "B N E"]
    weights: Float[Array, "B N K"]
    indices: Int[Array, "B N K"]


def needs_attention(config: RouterConfig) -> bool:
    """Whether any inform step of the router declares that it needs the attention of its block."""
    return any(INFORM_STEPS[name].needs_attention for name in config.inform_steps)


def has_state(config: RouterConfig) -> bool:
    """Whether any inform step of the router keeps a state that training updates."""
    return any(INFORM_STEPS[name].has_state for name in config.inform_steps)


class Router(nn.Module):
    """Chooses K of E experts for every token. Works in float32 whatever the model's dtype (decision 6).

    Attributes:
      config: the steps, their options, noise and loss weights.
      num_experts: E.
      num_selected_experts: K.
    """

    config: RouterConfig
    num_experts: int
    num_selected_experts: int

    @nn.compact
    def __call__(
        self, tokens: Float[Array, "B N D"], attention: AttentionRecord | None, *, train: bool
    ) -> tuple[Routing, Float[Array, "B N N"] | None]:
        """Routes.

        Args:
          tokens: input of the MoE layer.
          attention: record of the block's attention, if a step needs it.
          train: adds noise (random stream ``routing``) and updates the steps' states (collection ``routing``).

        Returns:
          the routing, and the token graph that the inform steps applied, None if tokens did not mix or nobody asked
          for it (it is worked out only while the collection ``intermediates`` is mutable).
        """
        tokens = tokens.astype(jnp.float32)
        attention = jax.tree.map(lambda array: array.astype(jnp.float32), attention)
        score, select = SCORE_STEPS[self.config.score], SELECT_STEPS[self.config.select]
        sizes = LayerSizes(tokens.shape[-1], self.num_experts)
        logits = score.function(tokens, self._step_parameters(score, sizes), **self._step_options(score))
        noisy_logits = logits
        if train and self.config.noise_std > 0:
            scale = self.config.noise_std / self.num_experts
            noisy_logits = logits + scale * jax.random.normal(self.make_rng("routing"), logits.shape)
        base_indices = top_experts(logits, self.num_selected_experts, renormalize=False)[1]

        probabilities = jax.nn.softmax(noisy_logits, axis=-1)
        graph = None
        for name in self.config.inform_steps:
            step = INFORM_STEPS[name]
            options = self._step_options(step)
            state = self._step_state(step, sizes)
            context = InformContext(
                tokens=tokens,
                parameters=self._step_parameters(step, sizes),
                attention=attention if step.needs_attention else None,
                state=None if state is None else state.value,
            )
            probabilities = step.function(probabilities, context, **options)
            if step.graph is not None and self.is_mutable_collection(TRACE):
                new = step.graph(context, **options)
                graph = new if graph is None else jnp.einsum("bij,bjk->bik", new, graph)
            if state is not None and step.update_state is not None and train and not self.is_initializing():
                state.value = step.update_state(state.value, base_indices, **options)
        weights, indices = select.function(probabilities, self.num_selected_experts, **self._step_options(select))
        return Routing(logits, noisy_logits, probabilities, weights, indices), graph

    def _step_options(self, step: Step) -> dict[str, Any]:
        return dict(self.config.options.get(step.name, {}))

    def _step_parameters(self, step: Step, sizes: LayerSizes) -> dict[str, Array]:
        """The learned arrays that a step declared, in the scope ``router/<step>``."""
        declared = step.parameters(sizes, **self._step_options(step))
        return StepParameters(declared, name=step.name)() if declared else {}

    def _step_state(self, step: InformStep, sizes: LayerSizes) -> nn.Variable | None:
        if step.initial_state is None:
            return None
        if not self.has_variable(STATE, step.name) and not self.is_mutable_collection(STATE):
            raise checks.error(
                f"variables for router step {step.name!r}",
                f"the collections 'params' and {STATE!r} (this step keeps a state)",
                "no state",
            )
        return self.variable(STATE, step.name, functools.partial(step.initial_state, sizes, **self._step_options(step)))


class StepParameters(nn.Module):
    """Holds the learned arrays of one step under its name."""

    declared: dict[str, Any]

    @nn.compact
    def __call__(self) -> dict[str, Array]:
        return {
            name: self.param(name, spec.initializer, spec.shape, jnp.float32) for name, spec in self.declared.items()
        }


def auxiliary_losses(
    routing: Routing, groups: int, *, config: RouterConfig, k: int, train: bool
) -> dict[str, Float[Array, " G"]]:
    """Every auxiliary loss by name, one value per group; all look at the base logits (decision 2).

    Args:
      routing: of B images.
      groups: G; the tokens of B / G consecutive images form one group.
      config: for the scale of the noise; the load loss exists only where there is noise, in training.
      k: K, experts per token.
      train: whether noise was added.
    """
    num_experts = routing.logits.shape[-1]
    # [B, N, E] -> [G, S, E]
    logits = routing.logits.reshape(groups, -1, num_experts)
    probabilities = jax.nn.softmax(logits, axis=-1)
    indices = top_experts(logits, k, renormalize=False)[1]
    losses = {
        "importance": routing_losses.importance_loss(probabilities),
        "switch": routing_losses.switch_loss(probabilities, indices),
        "gshard": routing_losses.gshard_loss(probabilities),
        "z": routing_losses.router_z_loss(logits),
    }
    if train and config.noise_std > 0:
        noisy = routing.noisy_logits.reshape(groups, -1, num_experts)
        losses["load"] = routing_losses.load_loss(logits, noisy, noise_std=config.noise_std / num_experts, k=k)
    return losses
