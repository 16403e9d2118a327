"""Settings that all models share: the trunk, where its experts are, and how its router chooses among them."""

import abc
import dataclasses
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from vmoe_inform import checks
from vmoe_inform.checks import Bound, Name, NonNegativeFloat, NonNegativeInt, PositiveInt, ShareBelowOne, Width
from vmoe_inform.config.identity import Effect
from vmoe_inform.config.settings.bounds import Batch, Factor
from vmoe_inform.routing import steps


@dataclasses.dataclass(frozen=True)
class RouterConfig:
    """The steps of the router and its auxiliary losses, by their registered names.

    Attributes:
      score: tokens -> logits.
      inform: ``"none"``, one step, or a tuple of steps applied in order.
      inform_by_layer: one choice for each MoE layer in order, repeated for further layers; empty: ``inform`` in all.
      select: probabilities -> K weights and experts.
      noise_std: standard deviation of the training noise on the logits, in units of 1/E (V-MoE: 1).
      options: options by step name. A config file holds those of every registered step, a parsed config those of the
        chosen ones.
      losses: auxiliary losses in the objective, besides those that steps bring. The option ``weight`` of each is its
        weight. Registered losses are logged, those of the router's parameters only if they are named.
    """

    score: Name = "linear"
    inform: Name | tuple[Name, ...] = "none"
    inform_by_layer: tuple[Name | tuple[Name, ...], ...] = ()
    select: Name = "top_experts"
    noise_std: NonNegativeFloat = 1.0
    options: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    losses: tuple[Name, ...] = ("importance", "load")

    def inform_steps_of(self, ordinal: int) -> tuple[str, ...]:
        """Names of the inform steps of a MoE layer in order; the first MoE layer has the ordinal 0."""
        by_layer = self.inform_by_layer
        choice = by_layer[ordinal % len(by_layer)] if by_layer else self.inform
        if isinstance(choice, str):
            return () if choice == "none" else (choice,)
        return choice

    @property
    def inform_steps(self) -> tuple[str, ...]:
        """Names of the inform steps of all MoE layers, each once."""
        layers = [self.inform_steps_of(ordinal) for ordinal in range(max(1, len(self.inform_by_layer)))]
        return tuple(dict.fromkeys(name for layer in layers for name in layer))

    @property
    def step_names(self) -> tuple[str, ...]:
        """Names of all chosen steps, those of the losses last."""
        return (self.score, *self.inform_steps, self.select, *self.losses)


@dataclasses.dataclass(frozen=True)
class MoeConfig:
    """Where the MoE layers are and how tokens move to experts.

    Attributes:
      layers: ``"lastN"`` (the last N blocks of odd index), ``"everyN"`` (blocks N-1, 2N-1, ...), ``"none"``, or the
        block indices, counted from 0.
      num_selected_experts: K, experts of each token.
      capacity_factor: slots of an expert per group in training, as a multiple of S K / E; 1 where experts choose. None:
        room for all tokens of the group, so that none is dropped.
      capacity_factor_evaluation: the same in evaluation; None in causal models.
      capacity_multiple_of: capacities are rounded up to a multiple of this; 4 is V-MoE's. With many experts and small
        groups it adds slots beyond the factor.
      batch_priority: tokens with the larger first weight get slots first (V-MoE, Sec. 4).
      group_size_sequences: consecutive sequences of tokens (images), of a training batch or of the set that is
        evaluated, whose tokens share the experts' slots.
      dispatch: registered way to move the tokens, or ``"auto"``: the fastest for the platform and the shapes.
      expert_dropout_rate: dropout inside the experts.
      expert_mlp: ``"xla"``, or ``"fused"`` for a kernel of TPUs that keeps the hidden layer on the chip. It is for
        experts with equally many rows; ``ragged`` and ``segments`` have products of their own.
      shared_experts: experts besides these that every token meets, unweighted (DeepSeekMoE, arXiv 2401.06066).
    """

    layers: Name | tuple[NonNegativeInt, ...] = "last2"
    num_experts: Width = 8
    num_selected_experts: Width = 2
    capacity_factor: Factor | None = 1.05
    capacity_factor_evaluation: Annotated[Factor | None, Effect.RESULTS] = 4.0
    capacity_multiple_of: Width = 4
    batch_priority: bool = False
    group_size_sequences: Batch = 1
    dispatch: Annotated[Name, Effect.MACHINE] = "auto"
    expert_dropout_rate: ShareBelowOne = 0.0
    expert_mlp: Annotated[Literal["xla", "fused"], Effect.MACHINE] = "xla"
    shared_experts: NonNegativeInt = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig(abc.ABC):
    """Transformer blocks with MoE layers: what models of every kind of input share.

    Attributes:
      inputs: what the model makes its tokens of.
      num_classes: size of a classifier's head; None for a model without one.
      stochastic_depth_rate: probability that a sequence skips the last block's branches in training (arXiv 1603.09382).
        It grows linearly from 0 at the first block.
      attention_block_size: tokens of a sequence whose attention weights are in memory at a time; None for all.
      attention: ``"auto"`` (the kernel of the platform where it fits, otherwise XLA), ``"xla"``, ``"fused"`` (the
        kernel of TPUs) or ``"cudnn"`` (that of NVIDIA GPUs).
      remat: what each block keeps for the gradient. ``"none"`` is everything, ``"dots"`` the results of products with
        parameters, ``"full"`` its input only. The backward pass recomputes the rest.
      dtype: type of activations and matrix products outside the router; parameters are float32.
    """

    inputs: Name
    num_classes: Width | None
    num_layers: Annotated[int, Bound(at_least=1, at_most=1024)] = 8
    hidden_size: Width = 512
    mlp_size: Width = 2048
    num_heads: Width = 8
    dropout_rate: ShareBelowOne = 0.0
    attention_dropout_rate: ShareBelowOne = 0.0
    stochastic_depth_rate: ShareBelowOne = 0.0
    attention_block_size: Annotated[PositiveInt | None, Effect.MACHINE] = None
    attention: Annotated[Literal["auto", "xla", "fused", "cudnn"], Effect.MACHINE] = "auto"
    remat: Annotated[Literal["none", "dots", "full"], Effect.MACHINE] = "none"
    dtype: Literal["float32", "bfloat16"] = "float32"
    moe: MoeConfig = MoeConfig()
    router: RouterConfig = RouterConfig()

    @property
    @abc.abstractmethod
    def num_tokens(self) -> int:
        """N: tokens of one sequence."""

    @property
    @abc.abstractmethod
    def raw_input_size(self) -> int:
        """Numbers that the model makes one token of."""

    @property
    @abc.abstractmethod
    def num_outer_parameters(self) -> int:
        """About how many parameters lie outside the blocks: those of embeddings and heads."""

    @property
    @abc.abstractmethod
    def input_bytes(self) -> int:
        """Memory of one sequence of a batch, as it is read and as the model takes it."""

    # What only models of one kind of input may choose
    @property
    def block(self) -> str:
        """Where the LayerNorms of a block are."""
        return "pre_ln"

    @property
    def attention_span(self) -> int | None:
        """Tokens before a token that it attends to, not to itself; None: it attends to itself and others."""
        return None

    @property
    def activation(self) -> str:
        """Between the two layers of an MLP or expert."""
        return "gelu"

    @property
    def layer_norm_epsilon(self) -> float:
        """Added to the variance in every LayerNorm."""
        return 1e-6

    @property
    def vocabulary_size(self) -> int | None:
        """V, where the model makes its tokens of token ids; None for other inputs."""
        return None

    @property
    def causal(self) -> bool:
        """Whether no token may depend on a later one, in attention or in routing."""
        return False

    @property
    def allow_future(self) -> bool:
        """Whether routers may look at later tokens all the same."""
        return False

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """Indices of the blocks that have a MoE layer, ascending."""
        return resolve_layers(self.moe.layers, self.num_layers)

    @property
    def layer_sizes(self) -> steps.LayerSizes:
        """Sizes that parameters and states of the router's steps are made for."""
        return steps.LayerSizes(
            hidden_size=self.hidden_size,
            num_experts=self.moe.num_experts,
            num_selected_experts=self.moe.num_selected_experts,
            num_tokens=self.num_tokens,
            raw_input_size=self.raw_input_size,
            num_heads=self.num_heads,
            vocabulary_size=self.vocabulary_size,
            causal=self.causal and not self.allow_future,
        )


def options_of(router: RouterConfig, step: steps.Step) -> dict[str, Any]:
    """The options of a chosen step, as keyword arguments of its functions."""
    return dict(router.options.get(step.name, {}))


def resolve_layers(layers: str | tuple[int, ...], num_layers: int) -> tuple[int, ...]:
    """Block indices that ``model.moe.layers`` means.

    Raises:
      ValueError: not of the forms in :class:`MoeConfig`, or indices that repeat or do not exist.
    """
    field = "model.moe.layers"
    blocks = f"{num_layers} blocks (model.num_layers)"
    if isinstance(layers, str):
        if layers == "none":
            return ()
        match = re.fullmatch(r"(last|every)([1-9]\d{0,8})", layers)
        if match is None:
            raise checks.error(field, "'lastN', 'everyN', 'none' or a tuple of block indices", layers)
        kind, number = match[1], int(match[2])
        if kind == "every":
            if number > num_layers:
                raise checks.error(field, f"at most 'every{num_layers}' with {blocks}", layers)
            return tuple(range(number - 1, num_layers, number))
        odd = tuple(range(1, num_layers, 2))
        if number > len(odd):
            raise checks.error(field, f"at most 'last{len(odd)}' with {blocks}", layers)
        return odd[-number:]
    if len(set(layers)) != len(layers) or any(layer >= num_layers for layer in layers):
        raise checks.error(field, f"distinct block indices 0 to {num_layers - 1}", layers)
    return tuple(sorted(layers))
