"""The three steps of a router, as registries that a config picks from by name.

``score`` tokens -> logits, ``inform`` probabilities -> probabilities, ``select`` probabilities -> K weights and
indices. A step is a pure function; its keyword-only arguments are its options, with the signature as the one home of
their defaults, types and bounds. What else a step needs from the layer around it, it declares when it is registered:
learned parameters, the attention of its block, a state that training updates. The layer hands it exactly that.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

import jax

from vmoe_inform.axes import Array, Float, Int
from vmoe_inform.registry import Registry


@dataclasses.dataclass(frozen=True)
class LayerSizes:
    """Sizes of the MoE layer that a step's parameters and state are made for."""

    hidden_size: int
    num_experts: int


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A learned array that a step declares: its shape and how it starts."""

    shape: tuple[int, ...]
    initializer: jax.nn.initializers.Initializer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AttentionRecord:
    """What the attention of a block hands to a router that declares ``needs_attention``.

    Attributes:
      queries: unscaled queries; the attention is softmax(queries . keys / sqrt(F)).
      keys: keys.
      means: mean of each head's value distribution in output space, H * O_h (V_h x_j + b_V,h) (003, Lemma 1).
      outputs: raw attention output (before residual and LayerNorm) without the output bias.
    """

    queries: Float[Array, "B H N F"]
    keys: Float[Array, "B H N F"]
    means: Float[Array, "B H N D"]
    outputs: Float[Array, "B N D"]


@dataclasses.dataclass(frozen=True)
class InformContext:
    """What an inform step may look at besides the probabilities.

    Attributes:
      tokens: input of the MoE layer.
      parameters: the learned arrays that the step declared, by name.
      attention: the record of the block's attention; None unless the step declared ``needs_attention``.
      state: the step's state before this training step; None unless the step declared one.
    """

    tokens: Float[Array, "B N D"]
    parameters: Mapping[str, Array]
    attention: AttentionRecord | None = None
    state: Array | None = None


def _no_parameters(sizes: LayerSizes, **options: Any) -> dict[str, Parameter]:
    del sizes, options
    return {}


@dataclasses.dataclass(frozen=True)
class Step:
    """A registered function together with its options (name -> type) and their defaults."""

    name: str
    function: Callable[..., Any]
    parameters: Callable[..., dict[str, Parameter]] = _no_parameters
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


@dataclasses.dataclass(frozen=True)
class ScoreStep(Step):
    """``function(tokens [..., N, D], parameters, **options) -> logits [..., N, E]``."""


@dataclasses.dataclass(frozen=True)
class SelectStep(Step):
    """``function(probabilities [..., N, E], k, **options) -> weights, indices [..., N, K]``."""


@dataclasses.dataclass(frozen=True)
class InformStep(Step):
    """``function(probabilities [B, N, E], context, **options) -> probabilities [B, N, E]``.

    Attributes:
      needs_attention: the block hands over an AttentionRecord.
      graph: ``graph(context, **options) -> [B, N, N]``, the weights that function mixes tokens with, for analysis;
        None if the step does not mix tokens.
      initial_state: ``initial_state(sizes, **options) -> array``; None if the step keeps no state.
      update_state: ``update_state(state, indices [B, N, K] of the base top K, **options) -> state``, called once
        in each training step after ``function`` saw the old state.
    """

    needs_attention: bool = False
    graph: Callable[..., Float[Array, "B N N"]] | None = None
    initial_state: Callable[..., Array] | None = None
    update_state: Callable[[Array, Int[Array, "B N K"]], Array] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.initial_state is None) != (self.update_state is None):
            raise ValueError(
                f"inform step {self.name!r}: expected both initial_state and update_state, or neither; received one"
            )

    @property
    def has_state(self) -> bool:
        return self.initial_state is not None


SCORE_STEPS: Registry[ScoreStep] = Registry("score step")
INFORM_STEPS: Registry[InformStep] = Registry("inform step")
SELECT_STEPS: Registry[SelectStep] = Registry("select step")


def register_score(name: str, **declared: Any) -> Callable[[Callable], Callable]:
    """Registers a score step; ``declared`` are the fields of :class:`ScoreStep`."""

    def decorate(function: Callable) -> Callable:
        SCORE_STEPS.add(name, ScoreStep(name, function, **declared))
        return function

    return decorate


def register_inform(name: str, **declared: Any) -> Callable[[Callable], Callable]:
    """Registers an inform step; ``declared`` are the fields of :class:`InformStep`."""

    def decorate(function: Callable) -> Callable:
        INFORM_STEPS.add(name, InformStep(name, function, **declared))
        return function

    return decorate


def register_select(name: str, **declared: Any) -> Callable[[Callable], Callable]:
    """Registers a select step; ``declared`` are the fields of :class:`SelectStep`."""

    def decorate(function: Callable) -> Callable:
        SELECT_STEPS.add(name, SelectStep(name, function, **declared))
        return function

    return decorate
