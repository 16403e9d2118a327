"""The kinds of steps: what each is called with, and what it may declare when it is registered."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

import jax
import jax.numpy as jnp

from vmoe_inform.axes import Array, Float, Tree
from vmoe_inform.routing.contexts import Duration, Growth, LayerSizes, Parameter, SelectContext


def _no_parameters(sizes: LayerSizes, **options: Any) -> dict[str, Parameter]:
    del sizes, options
    return {}


def _no_check(sizes: LayerSizes, **options: Any) -> None:
    del sizes, options


def _no_check_duration(duration: Duration, **options: Any) -> None:
    del duration, options


def _no_resolve(informed: bool, **options: Any) -> dict[str, Any]:
    del informed
    return options


def _always(**options: Any) -> bool:
    del options
    return True


def _never(**options: Any) -> bool:
    del options
    return False


def _observe_nothing(*seen: Any, **options: Any) -> Tree:
    del seen, options
    return jnp.zeros(())


def _top_of_probabilities(
    probabilities: Float[Array, "G S E"], context: SelectContext, **options: Any
) -> Float[Array, "G S E"]:
    del context, options
    return probabilities


@dataclasses.dataclass(frozen=True)
class Step:
    """A registered function together with its options (name -> type) and their defaults.

    Attributes:
      check: ``check(sizes, **options)`` raises ValueError for options that contradict each other or the layer. It is
        called when a config is parsed. The field is an option's name or begins with ``model.``.
      check_duration: ``check_duration(duration, **options)``, the same for the length of the training; called before a
        run starts.
      needs_whole_batch: ``needs_whole_batch(**options) -> bool``, whether losses are of the whole batch at once. They
        are refused where the batch is worked through in parts.
      training_options: names of the options that change nothing of a trained model. Re-routing refuses them.
      looks_ahead: whether what the step gives for a token depends on later tokens in a causal model too. Such a step is
        refused there. None: it does if it mixes tokens, so that a step which heeds ``context.mask`` says False.
    """

    name: str
    function: Callable[..., Any]
    check: Callable[..., None] = _no_check
    check_duration: Callable[..., None] = _no_check_duration
    needs_whole_batch: Callable[..., bool] = _never
    training_options: tuple[str, ...] = ()
    looks_ahead: bool | None = None
    option_types: Mapping[str, Any] = dataclasses.field(init=False)
    option_defaults: Mapping[str, Any] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        options = {
            name: parameter
            for name, parameter in inspect.signature(self.function).parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }
        hints = get_type_hints(self.function, include_extras=True)
        for name, parameter in options.items():
            if parameter.default is inspect.Parameter.empty or name not in hints:
                raise ValueError(
                    f"step {self.name!r}, option {name!r}: expected a type and a default in the signature; "
                    f"received {parameter}"
                )
        for name in self.training_options:
            if name not in options:
                raise ValueError(f"step {self.name!r}: expected training_options among {[*options]}; received {name!r}")
        object.__setattr__(self, "option_types", {name: hints[name] for name in options})
        object.__setattr__(self, "option_defaults", {name: p.default for name, p in options.items()})

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    @property
    def mixes_tokens(self) -> bool:
        """Whether what the step gives for a token depends on other tokens."""
        return False

    @property
    def may_look_ahead(self) -> bool:
        """Whether the step is refused in a causal model."""
        return self.mixes_tokens if self.looks_ahead is None else self.looks_ahead


@dataclasses.dataclass(frozen=True)
class VariableStep(Step):
    """A step that may have learned parameters, a state and losses of its own. The layer hands it what it declares here.

    Attributes:
      parameters: ``parameters(sizes, **options) -> {name: Parameter}``, trained by gradient.
      initial_state: ``initial_state(key, sizes, **options) -> tree``; None if the step keeps no state. A state is not
        seen by gradients or the optimizer; it is saved with the run and left alone in evaluation.
      stateful: ``stateful(**options) -> bool``, whether the step keeps its state with these options. By default always.
      observe: float32 sums over images and tokens, such as counts: those of the parts of a batch add up to those of the
        batch. Padding counts nowhere. Each kind of step says what it is called with. By default none.
      update_state: ``update_state(state, observed, parameters, **options) -> tree``, called once in each training step
        after all ``function`` saw the old state. ``observed`` are the sums over the whole batch. None: the state stays
        as it started.
      needs_duration: ``update_state`` is handed the length of the training too, as ``duration``.
      losses: auxiliary losses of the step's own, by name. Each kind of step says what it is called with.
      loss_names: their names. The weight of a loss NAME in the objective is the step's option ``NAME_weight``.
    """

    parameters: Callable[..., dict[str, Parameter]] = _no_parameters
    initial_state: Callable[..., Tree] | None = None
    stateful: Callable[..., bool] = _always
    observe: Callable[..., Tree] = _observe_nothing
    update_state: Callable[..., Tree] | None = None
    needs_duration: bool = False
    losses: Callable[..., dict[str, Float[Array, "..."]]] | None = None
    loss_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.losses is None) != (not self.loss_names):
            raise ValueError(f"step {self.name!r}: expected losses and loss_names, or neither; got {self.loss_names}")
        for name in self.loss_names:
            if f"{name}_weight" not in self.option_types:
                raise ValueError(f"step {self.name!r}: expected an option {name}_weight, of its loss {name!r}")
        if self.update_state is not None and self.initial_state is None:
            raise ValueError(f"step {self.name!r}: expected an initial_state beside update_state; received none")

    def has_state(self, options: Mapping[str, Any]) -> bool:
        """Whether the step keeps a state with these options."""
        return self.initial_state is not None and self.stateful(**options)

    def updates_state(self, options: Mapping[str, Any]) -> bool:
        """Whether training changes that state."""
        return self.update_state is not None and self.has_state(options)


@dataclasses.dataclass(frozen=True)
class ContextStep(VariableStep):
    """A step that receives a :class:`StepContext`, and declares here what else it needs there.

    ``observe(context, indices [B, N, K] of the base top K, **options)``: indices of padding are E, and count nowhere.
    ``losses(context, **options) -> {name: [B]}`` of a score step, ``losses(probabilities [B, N, E], context,
    **options)`` of an inform step, before it acts.

    Attributes:
      observe_k: the least K of the indices (at most E), for updates that look at pairs of experts.
      needs_attention: the block hands over an AttentionRecord.
      needs_raw_inputs: the model hands over what it makes its tokens of: the pixels of the patches, or token ids.
      needs_previous: the MoE layer before hands over its decision. In the first MoE layer ``context.previous`` is None
        in all of the step's functions; the step documents that case.
    """

    observe_k: int = 1
    needs_attention: bool = False
    needs_raw_inputs: bool = False
    needs_previous: bool = False


@dataclasses.dataclass(frozen=True)
class ScoreStep(ContextStep):
    """``function(context, **options) -> logits [B, N, E]``.

    Attributes:
      affinities: ``affinities(logits [..., N, E]) -> [..., N, E]``, each expert's probability by itself, at least 0.
        Rows need not sum to 1. None: the softmax over experts.
      gates: ``gates(context, **options) -> [B, N, E]``, the weights of expert outputs; None: those that select gives.
      slot_logits: ``slot_logits(context, **options) -> [B, N, E, P]``, for a select step that fills P slots of each
        expert; None: one slot each.
      takes_noise: False: noise on the logits would have no effect, or a wrong one, and is refused.
      growth: ``growth(sizes, **options) -> Growth | None``, how K grows in training; None: it does not.
      selects: names of the select steps that the score step goes with; None for all.
    """

    affinities: Callable[[Float[Array, "*batch N E"]], Float[Array, "*batch N E"]] | None = None
    gates: Callable[..., Float[Array, "B N E"]] | None = None
    slot_logits: Callable[..., Float[Array, "B N E P"]] | None = None
    takes_noise: bool = True
    growth: Callable[..., Growth | None] | None = None
    selects: tuple[str, ...] | None = None

    def probabilities(self, logits: Float[Array, "*batch N E"]) -> Float[Array, "*batch N E"]:
        """What inform and select steps see of the logits."""
        return jax.nn.softmax(logits, axis=-1) if self.affinities is None else self.affinities(logits)

    def shares(self, logits: Float[Array, "*batch N E"]) -> Float[Array, "*batch N E"]:
        """The probabilities scaled to sum 1, which losses and analysis see; zeros for a token of no expert."""
        if self.affinities is None:
            return self.probabilities(logits)
        affinities = self.affinities(logits)
        sums = jnp.sum(affinities, axis=-1, keepdims=True)
        return affinities / jnp.where(sums > 0, sums, 1.0)


@dataclasses.dataclass(frozen=True)
class InformStep(ContextStep):
    """``function(probabilities [B, N, E], context, **options) -> probabilities [B, N, E]``.

    Attributes:
      skips_first_layer: the first MoE layer leaves out the step, with its parameters and its state. For steps that have
        nothing to do without a layer before.
      graph: ``graph(context, **options) -> [B, N, N]``, the weights that function mixes tokens with, for analysis;
        None if the step does not mix tokens.
      key_squares: ``key_squares(context, **options) -> [B, N]``, squared lengths of the vectors that tokens are
        compared with as keys, for analysis; None if there are no such vectors.
      columns: ``columns(probabilities [B, n, E], context, **options) -> tree [B, n, ...]``, what the step needs of n
        tokens to inform later ones. With ``rows`` it makes reading a text token by token cheap. None: ``function``
        works out all tokens of the text again for each.
      rows: ``rows(context, columns, **options) -> probabilities [B, n, E]``, what ``function`` gives for the n tokens
        of the context, from the columns [B, N, ...] of all. Those of later tokens have no meaning.
      adjacency: ``adjacency(state, **options) -> [E, E]``, the matrix that function multiplies each token's
        probabilities with, for analysis; None if there is no such matrix.
      literal: options as the step's paper prints them, by name. ``router=NAME_literal`` sets them.
    """

    skips_first_layer: bool = False
    literal: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    graph: Callable[..., Float[Array, "B N N"]] | None = None
    key_squares: Callable[..., Float[Array, "B N"]] | None = None
    columns: Callable[..., Tree] | None = None
    rows: Callable[..., Float[Array, "B n E"]] | None = None
    adjacency: Callable[..., Float[Array, "E E"]] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.skips_first_layer and not self.needs_previous:
            raise ValueError(f"inform step {self.name!r}: expected needs_previous with skips_first_layer")
        if unknown := self.literal.keys() - self.option_types.keys():
            raise ValueError(f"inform step {self.name!r}: expected literal options of its own; got {sorted(unknown)}")
        if len({self.columns is None, self.rows is None}) > 1 or (self.rows is not None and self.graph is None):
            raise ValueError(f"inform step {self.name!r}: expected columns and rows together, and a graph with them")

    @property
    def mixes_tokens(self) -> bool:
        return self.graph is not None

    def acts_in(self, ordinal: int) -> bool:
        """Whether the step acts in a MoE layer that names it; the first has the ordinal 0."""
        return ordinal > 0 or not self.skips_first_layer


@dataclasses.dataclass(frozen=True)
class SelectStep(VariableStep):
    """``function(probabilities [G, S, E], context: SelectContext, **options) -> Plan``.

    ``observe(plan, context, **options)``: tokens that are not ``context.real`` count nowhere.
    ``losses(probabilities [G, S, E], context, **options) -> {name: [G]}``.

    Attributes:
      resolve: ``resolve(informed, **options) -> options``, called when a config is parsed: writes out options that
        depend on whether the router has inform steps. The others of the step's functions see the result.
      grows: the step heeds ``context.active``, so that K may grow in training.
      uses_probabilities: False: it works on logits alone, so that inform steps would have no effect and are refused.
      fills_slots: every slot is filled, as many as there are choices: capacity factors do not apply.
      smallest_capacity_factor: in training.
      scores: names of the score steps that the select step goes with; None for all.
      preferences: ``preferences(probabilities [G, S, E], context, **options) -> [G, S, E]``, of which every token takes
        its K largest: the probabilities themselves. None: no token takes a fixed number of experts. Analysis measures
        how far a token is from another choice by them.

    A plan may depend on other tokens by the slots that they take. The layer orders them by ``context.mask``.
    """

    resolve: Callable[..., dict[str, Any]] = _no_resolve
    grows: bool = False
    uses_probabilities: bool = True
    fills_slots: bool = False
    smallest_capacity_factor: float = 0.0
    scores: tuple[str, ...] | None = None
    preferences: Callable[..., Float[Array, "G S E"]] | None = _top_of_probabilities

    @property
    def mixes_tokens(self) -> bool:
        return self.fills_slots

    @property
    def tokens_choose(self) -> bool:
        """Whether each token takes the K experts that it prefers; else experts or slots choose, or no K is fixed."""
        return self.preferences is not None and not self.fills_slots

    @property
    def takes_most_probable(self) -> bool:
        """Whether each token takes the K experts of its largest probabilities, as they are."""
        return self.tokens_choose and self.preferences is _top_of_probabilities


@dataclasses.dataclass(frozen=True)
class LossStep(Step):
    """``function(context: LossContext, **options) -> [G]``, an auxiliary loss that belongs to no other step.

    Its option ``weight`` is its weight in the objective of a router that names it in ``losses``. Every registered loss
    is measured in each run, with its default options if it is not named.

    Attributes:
      needs_noise: the loss exists only where there is noise on the logits, and K does not grow.
      needs_parameters: names of learned arrays of the score step that it looks at. Such a loss is measured only in
        routers that name it, and refused with score steps without these arrays.
    """

    needs_noise: bool = False
    needs_parameters: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if "weight" not in self.option_types:
            raise ValueError(f"loss step {self.name!r}: expected an option weight")
