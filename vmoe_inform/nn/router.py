"""score -> inform -> select, with each step looked up by the name in the config."""

import dataclasses
from collections.abc import Mapping
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
    PreviousLayer,
    SelectContext,
    StepContext,
    VariableStep,
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
      key_squares: squared lengths of what tokens are compared with as keys. None as ``graph``, where the step has no
        such lengths, and where several graphs were applied.
      gates: weights that the score step gives itself, or None.
      slot_logits: logits of the single slots of each expert, or None.
      losses: auxiliary losses that the steps bring, by name, for each image.
      active: how many of the K choices exist at this time of the training; None for all.
      parameters: learned arrays of the score step, by name, that a loss in the objective looks at.
    """

    logits: Float[Array, "B N E"]
    noisy_logits: Float[Array, "B N E"]
    informed: Float[Array, "B N E"]
    base_indices: Int[Array, "B N K"]
    graph: Float[Array, "B N N"] | None
    key_squares: Float[Array, "B N"] | None
    gates: Float[Array, "B N E"] | None
    slot_logits: Float[Array, "B N E P"] | None
    losses: Mapping[str, Float[Array, " B"]]
    active: Int[Array, ""] | None
    parameters: Mapping[str, Array] = dataclasses.field(default_factory=dict)

    @property
    def normalized(self) -> Float[Array, "B N E"]:
        """The informed probabilities scaled to sum 1; a zero row stays zero."""
        return self.scaled(self.informed)

    def scaled(self, values: Float[Array, "B N E"]) -> Float[Array, "B N E"]:
        """Values in the unit of the informed probabilities, in that of the normalized ones."""
        sums = jnp.sum(self.informed, axis=-1, keepdims=True)
        return values / jnp.where(sums > 0, sums, 1.0)

    def previous(self) -> PreviousLayer:
        """What the next MoE layer may know of this one."""
        return PreviousLayer(self.normalized, self.base_indices)


def steps_of(config: RouterConfig) -> tuple[ContextStep, ...]:
    """The score step and the inform steps of all MoE layers."""
    return (SCORE_STEPS[config.score], *(INFORM_STEPS[name] for name in config.inform_steps))


def variable_steps(config: RouterConfig) -> tuple[VariableStep, ...]:
    """The steps that may have learned arrays, states and losses: these, and the select step."""
    return (*steps_of(config), SELECT_STEPS[config.select])


def needs_attention(config: RouterConfig, ordinal: int) -> bool:
    """Whether a step of that MoE layer declares that it needs the attention of its block."""
    layer = (SCORE_STEPS[config.score], *(INFORM_STEPS[name] for name in config.inform_steps_of(ordinal)))
    return any(step.needs_attention for step in layer)


def needs_raw_inputs(config: RouterConfig) -> bool:
    """Whether a step declares that it needs what the model makes its tokens of."""
    return any(step.needs_raw_inputs for step in steps_of(config))


def has_state(config: RouterConfig) -> bool:
    """Whether a step of the router keeps a state."""
    return any(step.has_state(options_of(config, step)) for step in variable_steps(config))


def tokens_choose(config: RouterConfig) -> bool:
    """Whether each token takes the K experts that it prefers; else experts or slots choose, or no K is fixed."""
    return SELECT_STEPS[config.select].tokens_choose


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


@dataclasses.dataclass(frozen=True)
class Selection:
    """The choice of experts of a batch.

    Attributes:
      plan: which token meets which expert.
      preferences: of which every token took its K largest, in the unit of the normalized probabilities. None where
        tokens take no fixed number of experts.
      losses: auxiliary losses that the select step brings, by name.
    """

    plan: Plan
    preferences: Float[Array, "B N E"] | None
    losses: Mapping[str, Float[Array, " G"]]


def without_padding(real: Bool[Array, "B #N"] | None) -> Bool[Array, "B N"] | None:
    """Which tokens are no padding behind a text, for those of the same text; None: all, as in filler sequences."""
    return real if real is not None and real.shape[1] > 1 else None


class Router(nn.Module):
    """Scores, informs and selects. Its steps compute in float32 whatever the model's dtype (decision 6).

    Attributes:
      config: the steps, their options, and noise.
      sizes: of the layer.
      ordinal: of this MoE layer among all, from 0; it decides which inform steps act.
    """

    config: RouterConfig
    sizes: LayerSizes
    ordinal: int = 0

    def setup(self) -> None:
        step = SELECT_STEPS[self.config.select]
        self.selecting = StepVariables(step, self.sizes, options_of(self.config, step), name=step.name)

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
        looked_at = {name for loss in self.config.losses for name in LOSS_STEPS[loss].needs_parameters}
        parameters = {name: array for name, array in context.parameters.items() if name in looked_at}
        gates = score.gates(context, **options) if score.gates else None
        slot_logits = score.slot_logits(context, **options) if score.slot_logits else None
        losses = dict(score.losses(context, **options)) if score.losses else {}

        def observe(step: ContextStep, context: StepContext, variables: StepVariables | None) -> None:
            if variables is not None and self._observes(step, train=train):
                indices = self._top(logits, k, active, step.observe_k)
                if real is not None:
                    indices = jnp.where(real[..., None], indices, self.sizes.num_experts)
                variables.leave(step.observe(context, indices, **options_of(self.config, step)))

        observe(score, context, variables)
        noisy_logits = logits
        if train and self.config.noise_std > 0:
            scale = self.config.noise_std / self.sizes.num_experts
            noisy_logits = logits + scale * jax.random.normal(self.make_rng("routing"), logits.shape)
        probabilities = score.probabilities(noisy_logits)
        graph = key_squares = None
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
                squares_of = step.key_squares if graph is None else None
                key_squares = None if squares_of is None else squares_of(context, **options)
                graph = new if graph is None else jnp.einsum("bij,bjk->bik", new, graph)
            observe(step, context, variables)
        own = (gates, slot_logits, losses)
        return Routing(logits, noisy_logits, probabilities, base_indices, graph, key_squares, *own, active, parameters)

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

    def select(
        self,
        routing: Routing,
        *,
        capacity: int,
        groups: int,
        train: bool,
        batch_priority: bool,
        real: Bool[Array, "G S"] | None,
    ) -> Selection:
        """The plan of which token meets which expert.

        Args:
          routing: of B images.
          capacity: C, slots of one expert for one group.
          groups: G; the tokens of B / G consecutive sequences form one group.
          train: whether this is a training step, in which the step leaves what an update of its state needs.
          batch_priority: tokens of larger informed probability get slots first (decision 5).
          real: False for filler, which takes no slots.
        """

        # [B, N, ...] -> [G, S, ...]
        def grouped(array: Array | None) -> Array | None:
            return None if array is None else array.reshape(groups, -1, *array.shape[2:])

        step = SELECT_STEPS[self.config.select]
        options = options_of(self.config, step)
        parameters, state = self.selecting()
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
            mask=self.sizes.mask,
            real=real,
            parameters=parameters,
            state=state,
        )
        plan = step.function(informed, context, **options)
        if self._observes(step, train=train):
            self.selecting.leave(step.observe(plan, context, **options))
        preferences = None
        if step.preferences is not None and step.tokens_choose:
            preferences = step.preferences(informed, context, **options).reshape(routing.informed.shape)
            preferences = routing.scaled(preferences)
        return Selection(plan, preferences, step.losses(informed, context, **options) if step.losses else {})

    def _observes(self, step: VariableStep, *, train: bool) -> bool:
        """Whether the step leaves what an update of its state needs."""
        observing = train and not self.is_initializing() and self.is_mutable_collection(OBSERVED)
        return observing and step.updates_state(options_of(self.config, step))
