"""The three steps of a router, as registries that a config picks from by name.

``score`` tokens -> logits, ``inform`` probabilities -> probabilities, ``select`` probabilities -> a plan of which token
meets which expert. A step is a pure function; its keyword-only arguments are its options, with the signature as the
one home of their defaults, types and bounds. What else a step needs from the layer around it, it declares when it is
registered: learned parameters, a state, the attention of its block, the raw input of the model, the MoE layer before.
The layer hands it exactly that in a :class:`StepContext`.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Bool, Float, Int, Tree
from vmoe_inform.registry import Registry


@dataclasses.dataclass(frozen=True)
class LayerSizes:
    """Sizes of the MoE layer that a step's parameters and state are made for.

    Attributes:
      hidden_size: D.
      num_experts: E.
      num_selected_experts: K.
      num_tokens: N, a class token included.
      raw_input_size: numbers in the raw input of one token; of images, in the pixels of one patch.
    """

    hidden_size: int
    num_experts: int
    num_selected_experts: int
    num_tokens: int
    raw_input_size: int


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A learned array that a step declares: its shape and how it starts."""

    shape: tuple[int, ...]
    initializer: jax.nn.initializers.Initializer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AttentionRecord:
    """What the attention of a block hands to a router that declares ``needs_attention``.

    All but the entropies have the model's type. Raw outputs u_i = sum_h O_h' attended_ih (before residual and
    LayerNorm, without the output bias) and the means m_hj = H O_h' v_hj of each head's value distribution in output
    space (Mutual-Inform SMoE, Lemma 1), which are H times as large as the values, are left to who needs them.

    Attributes:
      queries: unscaled queries; the attention is softmax(queries . keys / sqrt(F)).
      keys: keys.
      values: v_hj = V_h x_j + b_V,h.
      attended: sum_j A_h[i,j] v_hj, with the dropout of training.
      output_kernel: O_h, from each head to the output.
      head_entropies: mean over i of the entropy of each head's attention of token i in nats, without a gradient.
    """

    queries: Float[Array, "B N H F"]
    keys: Float[Array, "B N H F"]
    values: Float[Array, "B N H F"]
    attended: Float[Array, "B N H F"]
    output_kernel: Float[Array, "H F D"]
    head_entropies: Float[Array, "B H"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PreviousLayer:
    """What the MoE layer before this one decided.

    Attributes:
      probabilities: after its inform steps.
      indices: its base top K.
    """

    probabilities: Float[Array, "B N E"]
    indices: Int[Array, "B N K"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepContext:
    """What a score or inform step may look at; all but ``tokens`` and ``parameters`` is None unless it declared it.

    A step casts to float32 what it computes with (:func:`vmoe_inform.routing.products.float32_einsum` does).

    Attributes:
      tokens: input of the MoE layer, in the model's type.
      parameters: the learned arrays that the step declared, by name.
      state: the step's state before this training step (``initial_state``).
      attention: the record of the block's attention (``needs_attention``).
      raw_inputs: what the model makes each token of; of images the normalised pixels of its patch, zeros for a class
        token (``needs_raw_inputs``).
      previous: the MoE layer before this one (``needs_previous``).
    """

    tokens: Float[Array, "B N D"]
    parameters: Mapping[str, Array]
    state: Tree | None = None
    attention: AttentionRecord | None = None
    raw_inputs: Float[Array, "B N P"] | None = None
    previous: PreviousLayer | None = None


@dataclasses.dataclass(frozen=True)
class SelectContext:
    """What a select step may look at besides the probabilities of a group.

    Attributes:
      k: K, choices of each token.
      capacity: C, slots of one expert for one group.
      logits: the logits that the choice is made from, with noise in training.
      num_sequences: sequences (images) of a group; their tokens follow each other.
      train: whether this is a training step.
      active: the first so many of the K choices count at this time of the training; None for all.
      gates: weights that the score step gives itself; None: the probabilities decide.
      slot_logits: logits of the single slots of each expert; None: one slot each, with ``logits``.
      priority: tokens of larger priority get slots first; None for no batch priority.
      real: False for the tokens of filler images, which must take no slots; None if all are real.
    """

    k: int
    capacity: int
    logits: Float[Array, "G S E"]
    num_sequences: int = 1
    train: bool = False
    active: Int[Array, ""] | None = None
    gates: Float[Array, "G S E"] | None = None
    slot_logits: Float[Array, "G S E P"] | None = None
    priority: Float[Array, "G S"] | None = None
    real: Bool[Array, "G S"] | None = None


@dataclasses.dataclass(frozen=True)
class Growth:
    """K grows in training from ``k_start`` to ``k_end``, in equal times for each K, over a share of the training."""

    k_start: int
    k_end: int
    share: float

    def active(self, progress: float | Float[Array, ""]) -> Int[Array, ""]:
        """K at a time of the training: ``progress`` is the share of its steps that are done, 0 to 1."""
        grown = jnp.floor((self.k_end - self.k_start + 1) * jnp.asarray(progress, jnp.float32) / self.share)
        return jnp.minimum(self.k_start + grown.astype(jnp.int32), self.k_end)


def _no_parameters(sizes: LayerSizes, **options: Any) -> dict[str, Parameter]:
    del sizes, options
    return {}


def _no_check(sizes: LayerSizes, **options: Any) -> None:
    del sizes, options


def _no_check_steps(total_steps: int, **options: Any) -> None:
    del total_steps, options


@dataclasses.dataclass(frozen=True)
class Step:
    """A registered function together with its options (name -> type) and their defaults.

    Attributes:
      check: ``check(sizes, **options)`` raises ValueError for options that do not go with each other or with the
        layer, called when a config is parsed; the field is an option's name or begins with ``model.``.
      check_steps: ``check_steps(total_steps, **options)``, the same for the number of training steps; called before
        a run starts.
    """

    name: str
    function: Callable[..., Any]
    check: Callable[..., None] = _no_check
    check_steps: Callable[..., None] = _no_check_steps
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
        object.__setattr__(self, "option_types", {name: hints[name] for name in options})
        object.__setattr__(self, "option_defaults", {name: p.default for name, p in options.items()})

    @property
    def summary(self) -> str:
        """First line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]


@dataclasses.dataclass(frozen=True)
class ContextStep(Step):
    """A step that is handed a :class:`StepContext`: it says here what it wants to find there.

    Attributes:
      parameters: ``parameters(sizes, **options) -> {name: Parameter}``, trained by gradient.
      initial_state: ``initial_state(key, sizes, **options) -> tree``; None if the step keeps no state. A state is not
        seen by gradients or the optimizer; it is saved with the run and left alone in evaluation.
      update_state: ``update_state(context, indices [B, N, K] of the base top K, **options) -> tree``, called once in
        each training step after ``function`` saw the old state; None: the state stays as it started.
      update_k: the least K of those indices (at most E), for updates that look at pairs of experts.
      needs_attention: the block hands over an AttentionRecord.
      needs_raw_inputs: the model hands over what it makes its tokens of: the pixels of the patches.
      needs_previous: the MoE layer before hands over what it decided. The first MoE layer has none: there an inform
        step that needs it does not act, and its state is not updated.
    """

    parameters: Callable[..., dict[str, Parameter]] = _no_parameters
    initial_state: Callable[..., Tree] | None = None
    update_state: Callable[..., Tree] | None = None
    update_k: int = 1
    needs_attention: bool = False
    needs_raw_inputs: bool = False
    needs_previous: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.update_state is not None and self.initial_state is None:
            raise ValueError(f"step {self.name!r}: expected an initial_state beside update_state; received none")

    @property
    def has_state(self) -> bool:
        return self.initial_state is not None

    @property
    def updates_state(self) -> bool:
        return self.update_state is not None


@dataclasses.dataclass(frozen=True)
class ScoreStep(ContextStep):
    """``function(context, **options) -> logits [B, N, E]``.

    Attributes:
      gates: ``gates(context, **options) -> [B, N, E]``, the weights of expert outputs; None: those that select gives.
      slot_logits: ``slot_logits(context, **options) -> [B, N, E, P]``, for a select step that fills P slots of each
        expert; None: one slot each.
      losses: ``losses(context, **options) -> {name: [B]}``, auxiliary losses of the step's own.
      loss_names: their names, each a field of :class:`vmoe_inform.config.LossWeights`. Their weights must not be 0:
        the step learns by them.
      takes_noise: False: noise on the logits would have no effect, or a wrong one, and is refused.
      growth: ``growth(sizes, **options) -> Growth | None``, how K grows in training; None: it does not.
      selects: names of the select steps that the score step goes with; None for all.
    """

    gates: Callable[..., Float[Array, "B N E"]] | None = None
    slot_logits: Callable[..., Float[Array, "B N E P"]] | None = None
    losses: Callable[..., dict[str, Float[Array, " B"]]] | None = None
    loss_names: tuple[str, ...] = ()
    takes_noise: bool = True
    growth: Callable[..., Growth | None] | None = None
    selects: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.losses is None) != (not self.loss_names):
            raise ValueError(
                f"score step {self.name!r}: expected losses and loss_names, or neither; received {self.loss_names}"
            )


@dataclasses.dataclass(frozen=True)
class InformStep(ContextStep):
    """``function(probabilities [B, N, E], context, **options) -> probabilities [B, N, E]``.

    Attributes:
      graph: ``graph(context, **options) -> [B, N, N]``, the weights that function mixes tokens with, for analysis;
        None if the step does not mix tokens.
      adjacency: ``adjacency(state, **options) -> [E, E]``, the matrix that function multiplies each token's
        probabilities with, for analysis; None if there is no such matrix.
    """

    graph: Callable[..., Float[Array, "B N N"]] | None = None
    adjacency: Callable[..., Float[Array, "E E"]] | None = None


@dataclasses.dataclass(frozen=True)
class SelectStep(Step):
    """``function(probabilities [G, S, E], context: SelectContext, **options) -> Plan``.

    Attributes:
      grows: the step heeds ``context.active``, so that K may grow in training.
      uses_probabilities: False: it works on logits alone, so that inform steps would have no effect and are refused.
      fills_slots: every slot is filled, as many as there are choices: capacity factors do not apply.
      smallest_capacity_factor: in training.
    """

    grows: bool = False
    uses_probabilities: bool = True
    fills_slots: bool = False
    smallest_capacity_factor: float = 0.0


SCORE_STEPS: Registry[ScoreStep] = Registry("score step")
INFORM_STEPS: Registry[InformStep] = Registry("inform step")
SELECT_STEPS: Registry[SelectStep] = Registry("select step")


def all_steps() -> dict[str, Step]:
    """Every registered step by its name."""
    registries: tuple[Registry[Any], ...] = (SCORE_STEPS, INFORM_STEPS, SELECT_STEPS)
    return {name: registry[name] for registry in registries for name in registry}


def _add(registry: Registry[Any], step: Step) -> None:
    """Registers a step; a config keeps options by name, so that no two steps of any kind may share one."""
    for other in (SCORE_STEPS, INFORM_STEPS, SELECT_STEPS):
        if other is not registry and step.name in other:
            raise checks.error("step", f"a name that no {other.kind} has", step.name)
    registry.add(step.name, step)


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
