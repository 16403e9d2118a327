"""score -> inform -> select, with each step looked up by the name in the config."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Bool, Float, Int
from vmoe_inform.config import RouterConfig, options_of
from vmoe_inform.dispatch import Plan
from vmoe_inform.nn import cache
from vmoe_inform.nn.step_variables import OBSERVED, StepVariables
from vmoe_inform.routing import reading, top_experts
from vmoe_inform.routing.steps import (
    INFORM_STEPS,
    LOSS_STEPS,
    SCORE_STEPS,
    SELECT_STEPS,
    AttentionRecord,
    ContextStep,
    LayerSizes,
    LossContext,
    Mask,
    PreviousLayer,
    SelectContext,
    StepContext,
)

TRACE = "intermediates"  # the collection that analysis makes mutable to look inside


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Routing:
    """What a router thinks of a batch, before experts are selected; all floats are float32.

    Attributes:
      logits: base logits, without noise.
      noisy_logits: the logits that the choice is made from; the same array as ``logits`` in evaluation.
      informed: probabilities after the inform steps.
      base_indices: top K of the base logits; E where K still grows.
      graph: token graph that the inform steps applied; None if tokens did not mix or nobody asked for it.
      gates: weights that the score step gives itself, or None.
      slot_logits: logits of the single slots of each expert, or None.
      losses: auxiliary losses that the steps bring, by name, for each image.
      active: how many of the K choices exist at this time of the training; None for all.
    """

    logits: Float[Array, "B N E"]
    noisy_logits: Float[Array, "B N E"]
    informed: Float[Array, "B N E"]
    base_indices: Int[Array, "B N K"]
    graph: Float[Array, "B N N"] | None
    gates: Float[Array, "B N E"] | None
    slot_logits: Float[Array, "B N E P"] | None
    losses: Mapping[str, Float[Array, " B"]]
    active: Int[Array, ""] | None

    @property
    def normalized(self) -> Float[Array, "B N E"]:
        """The informed probabilities scaled to sum 1; a zero row stays zero."""
        sums = jnp.sum(self.informed, axis=-1, keepdims=True)
        return self.informed / jnp.where(sums > 0, sums, 1.0)

    def previous(self) -> PreviousLayer:
        """What the next MoE layer may know of this one."""
        return PreviousLayer(self.normalized, self.base_indices)


def steps_of(config: RouterConfig) -> tuple[ContextStep, ...]:
    """The score step and the inform steps of all MoE layers."""
    return (SCORE_STEPS[config.score], *(INFORM_STEPS[name] for name in config.inform_steps))


def needs_attention(config: RouterConfig, ordinal: int) -> bool:
    """Whether a step of that MoE layer declares that it needs the attention of its block."""
    layer = (SCORE_STEPS[config.score], *(INFORM_STEPS[name] for name in config.inform_steps_of(ordinal)))
    return any(step.needs_attention for step in layer)


def needs_raw_inputs(config: RouterConfig) -> bool:
    """Whether a step declares that it needs what the model makes its tokens of."""
    return any(step.needs_raw_inputs for step in steps_of(config))


def has_state(config: RouterConfig) -> bool:
    """Whether a step of the router keeps a state."""
    return any(step.has_state(options_of(config, step)) for step in steps_of(config))


def tokens_choose(config: RouterConfig) -> bool:
    """Whether each token takes the experts that it finds most probable; else experts or slots choose."""
    return not SELECT_STEPS[config.select].fills_slots


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What the model hands to its MoE layers besides their tokens; a field that no step declared may be None.

    Attributes:
      attention: record of the block's attention.
      raw_inputs: what the model makes each token of: its id in text, the normalised pixels of its patch in images.
      previous: the MoE layer before.
      progress: share of the training that is done, 0 to 1; for routers whose K grows.
    """

    attention: AttentionRecord | None = None
    raw_inputs: Float[Array, "B N P"] | Int[Array, "B N"] | None = None
    previous: PreviousLayer | None = None
    progress: Float[Array, ""] | None = None


def without_padding(real: Bool[Array, "B #N"] | None) -> Bool[Array, "B N"] | None:
    """Which tokens are no padding behind a text, for those of the same text; None: all, as in filler sequences."""
    return real if real is not None and real.shape[1] > 1 else None


class Router(nn.Module):
    """Scores and informs. Its steps compute in float32 whatever the model's dtype (decision 6).

    Attributes:
      config: the steps, their options, and noise.
      sizes: of the layer.
      ordinal: of this MoE layer among all, from 0; it decides which inform steps act.
    """

    config: RouterConfig
    sizes: LayerSizes
    ordinal: int = 0

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "B N D"],
        around: Surroundings,
        *,
        train: bool,
        real: Bool[Array, "B N"] | None = None,
    ) -> Routing:
        """Routes.

        Args:
          tokens: input of the MoE layer.
          around: what the steps may need besides.
          train: adds noise (random stream ``routing``); the steps leave what updates of their states need in the
            collection ``routing_observed`` if it is mutable.
          real: False for padding behind a text; None if all tokens are real.

        Raises:
          ValueError: a step needs something that ``around`` does not have.
        """
        score = SCORE_STEPS[self.config.score]
        options = options_of(self.config, score)
        first = cache.count(self, tokens.shape[1]) if cache.keeps(self) else None
        context, variables = self._context(score, tokens, around, real, first)
        k, active = self._num_selected(around.progress, train=train)
        logits = score.function(context, **options)
        base_indices = self._top(logits, k, active)
        gates = score.gates(context, **options) if score.gates else None
        slot_logits = score.slot_logits(context, **options) if score.slot_logits else None
        losses = dict(score.losses(context, **options)) if score.losses else {}

        def observe(step: ContextStep, context: StepContext, variables: StepVariables | None) -> None:
            observing = train and not self.is_initializing() and self.is_mutable_collection(OBSERVED)
            options = options_of(self.config, step)
            if observing and variables is not None and step.updates_state(options):
                indices = self._top(logits, k, active, step.observe_k)
                if real is not None:
                    indices = jnp.where(real[..., None], indices, self.sizes.num_experts)
                variables.leave(step.observe(context, indices, **options))

        observe(score, context, variables)
        noisy_logits = logits
        if train and self.config.noise_std > 0:
            scale = self.config.noise_std / self.sizes.num_experts
            noisy_logits = logits + scale * jax.random.normal(self.make_rng("routing"), logits.shape)
        probabilities = jax.nn.softmax(noisy_logits, axis=-1)
        graph = None
        for name in self.config.inform_steps_of(self.ordinal):
            step = INFORM_STEPS[name]
            if not step.acts_in(self.ordinal):
                continue
            options = options_of(self.config, step)
            context, variables = self._context(step, tokens, around, real, first)
            losses |= step.losses(probabilities, context, **options) if step.losses else {}
            if step.mixes_tokens and first is not None:
                columns = reading.columns(step, probabilities, context, options)
                columns = cache.append(self, f"before_{name}", columns, first, self.sizes.num_tokens)
                probabilities = reading.inform_next(step, context, columns, options)
            else:
                probabilities = step.function(probabilities, context, **options)
            if step.graph is not None and self.is_mutable_collection(TRACE):
                new = step.graph(context, **options)
                graph = new if graph is None else jnp.einsum("bij,bjk->bik", new, graph)
            observe(step, context, variables)
        return Routing(logits, noisy_logits, probabilities, base_indices, graph, gates, slot_logits, losses, active)

    def _top(
        self, logits: Float[Array, "B N E"], k: int, active: Int[Array, ""] | None, at_least: int = 1
    ) -> Int[Array, "B N K"]:
        """The top K of the logits, of which the first ``active`` exist; K is at least so much, if there are experts."""
        at_least = min(at_least, self.sizes.num_experts)
        active = None if active is None else jnp.maximum(active, at_least)
        return top_experts(logits, max(k, at_least), renormalize=False, active=active)[1]

    def _num_selected(self, progress: Float[Array, ""] | None, *, train: bool) -> tuple[int, Int[Array, ""] | None]:
        """K, and how many of the K choices exist: in training, where K grows, not all of them yet."""
        score = SCORE_STEPS[self.config.score]
        growth = score.growth(self.sizes, **options_of(self.config, score)) if score.growth else None
        if growth is None or not train:
            return self.sizes.num_selected_experts, None
        if progress is None:
            raise checks.error("progress", f"a share of the training (K grows with {score.name!r})", None)
        return growth.k_end, growth.active(progress)

    def _context(
        self,
        step: ContextStep,
        tokens: Float[Array, "B N D"],
        around: Surroundings,
        real: Bool[Array, "B N"] | None,
        first: Int[Array, ""] | None,
    ) -> tuple[StepContext, StepVariables | None]:
        """What a step declared, and what holds its variables, if it has any."""
        wanted: dict[str, Any] = {"mask": self.sizes.mask, "real": real, "first": 0 if first is None else first}
        for name in ("attention", "raw_inputs", "previous"):
            if getattr(step, f"needs_{name}"):
                if getattr(around, name) is None and not (name == "previous" and self.ordinal == 0):
                    raise checks.error(name, f"what the router step {step.name!r} needs", None)
                wanted[name] = getattr(around, name)
        options = options_of(self.config, step)
        if not step.has_state(options) and not step.parameters(self.sizes, **options):
            return StepContext(tokens, {}, **wanted), None
        variables = StepVariables(step, self.sizes, options, name=step.name)
        parameters, state = variables()
        return StepContext(tokens, parameters, state, **wanted), variables


def select_experts(
    routing: Routing,
    *,
    config: RouterConfig,
    capacity: int,
    groups: int,
    train: bool,
    batch_priority: bool,
    mask: Mask = None,
    real: Bool[Array, "G S"] | None,
) -> Plan:
    """The plan of which token meets which expert.

    Args:
      routing: of B images.
      config: for the select step.
      capacity: C, slots of one expert for one group.
      groups: G; the tokens of B / G consecutive sequences form one group.
      train: whether this is a training step.
      batch_priority: tokens of larger informed probability get slots first (decision 5).
      mask: what a token may know of the others; it decides the order in which slots are handed out.
      real: False for filler, which takes no slots.
    """

    # [B, N, ...] -> [G, S, ...]
    def grouped(array: Array | None) -> Array | None:
        return None if array is None else array.reshape(groups, -1, *array.shape[2:])

    step = SELECT_STEPS[config.select]
    informed = routing.informed.reshape(groups, -1, routing.informed.shape[-1])
    context = SelectContext(
        k=routing.base_indices.shape[-1],
        capacity=capacity,
        logits=routing.noisy_logits.reshape(informed.shape),
        num_sequences=routing.informed.shape[0] // groups,
        train=train,
        active=routing.active,
        gates=grouped(routing.gates),
        slot_logits=grouped(routing.slot_logits),
        priority=jnp.max(informed, axis=-1) if batch_priority else None,
        mask=mask,
        real=real,
    )
    return step.function(informed, context, **options_of(config, step))


def auxiliary_losses(
    routing: Routing, groups: int, *, config: RouterConfig, train: bool, real: Bool[Array, "B N"] | None = None
) -> dict[str, Float[Array, " G"]]:
    """Every auxiliary loss by name, one value per group; all look at the base logits (decision 2).

    Args:
      routing: of B images.
      groups: G; the tokens of B / G consecutive images form one group.
      config: for options of the losses and the scale of the noise.
      train: whether noise was added.
      real: False for padding, which counts in no loss; None if all tokens are real.
    """
    num_experts, k = routing.logits.shape[-1], routing.base_indices.shape[-1]
    has_noise = train and config.noise_std > 0 and routing.active is None
    # [B, N, ...] -> [G, S, ...]
    logits = routing.logits.reshape(groups, -1, num_experts)
    context = LossContext(
        logits,
        jax.nn.softmax(logits, axis=-1),
        routing.base_indices.reshape(groups, -1, k),
        routing.noisy_logits.reshape(groups, -1, num_experts) if has_noise else None,
        config.noise_std / num_experts,
        None if real is None else real.reshape(groups, -1),
    )
    losses = {
        name: LOSS_STEPS[name].function(context, **options_of(config, LOSS_STEPS[name]))
        for name in LOSS_STEPS
        if has_noise or not LOSS_STEPS[name].needs_noise
    }
    # [B] -> [G]
    return losses | {name: jnp.mean(value.reshape(groups, -1), axis=-1) for name, value in routing.losses.items()}


def loss_weights(config: RouterConfig) -> dict[str, float]:
    """Weights of the losses in the objective by name, in the order in which they are added up."""
    weights = {name: options_of(config, LOSS_STEPS[name])["weight"] for name in config.losses}
    for step in steps_of(config):
        weights |= {name: options_of(config, step)[f"{name}_weight"] for name in step.loss_names}
    return weights


def auxiliary_loss(layers: Iterable[Mapping[str, Float[Array, " G"]]], config: RouterConfig) -> Float[Array, ""]:
    """What routing adds to the objective: the weighted losses, averaged over groups and summed over layers.

    Args:
      layers: the losses of each MoE layer, as :func:`auxiliary_losses` gives them.
      config: for their weights.
    """
    total = jnp.zeros((), jnp.float32)
    for losses in layers:
        for name, weight in loss_weights(config).items():
            if weight > 0 and name in losses:
                total += weight * jnp.mean(losses[name])
    return total
