"""Inputs of router steps: sizes of the layer, parameters, and a context.

The layer hands each step what it declared when it was registered (:mod:`vmoe_inform.routing.steps`), and nothing else.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Bool, Float, Int, Tree

Mask: TypeAlias = Literal["causal"] | None  # token i may know of tokens j <= i only; None: of all


@dataclasses.dataclass(frozen=True)
class LayerSizes:
    """Sizes of the MoE layer that a step's parameters and state are made for.

    Attributes:
      hidden_size: D.
      num_experts: E.
      num_selected_experts: K.
      num_tokens: N, a class token included.
      raw_input_size: numbers in the raw input of one token; of images, in the pixels of one patch.
      num_heads: H, of the block's attention.
      vocabulary_size: V, where raw inputs are token ids 0 to V - 1; None where they are numbers.
      causal: whether nothing of a token may depend on a later one.
    """

    hidden_size: int
    num_experts: int
    num_selected_experts: int
    num_tokens: int
    raw_input_size: int
    num_heads: int = 1
    vocabulary_size: int | None = None
    causal: bool = False

    @property
    def mask(self) -> Mask:
        """What a token may know of the others; a layer hands it to all steps."""
        return "causal" if self.causal else None


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A learned array that a step declares: its shape and how it starts."""

    shape: tuple[int, ...]
    initializer: jax.nn.initializers.Initializer


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AttentionRecord:
    r"""What the attention of a block hands to a router that declares ``needs_attention``.

    All but the entropies have the model's type. Two arrays follow from these (Mutual-Inform SMoE, Lemma 1):

    $$u_i = \sum_h O_h^\top a_{ih}, \quad m_{hj} = H \, O_h^\top v_{hj}$$

    The raw outputs u are those before residual and LayerNorm, without the output bias. The means m of each head's value
    distribution are in output space, and H times as large as the values.

    Attributes:
      queries: unscaled queries; the attention is softmax(queries . keys / sqrt(F)) over the tokens that token i may
        attend to, in a causal model j <= i.
      keys: keys.
      values: v_hj = V_h x_j + b_V,h.
      attended: sum_j A_h[i,j] v_hj, with the dropout of training.
      output_kernel: O_h, from each head to the output.
      head_entropies: mean over the real tokens i of the entropy of each head's attention of token i in nats, without a
        gradient. In a causal model it is of later tokens too: no step may choose by it.
      token_entropies: entropy of each head's attention of token i in nats, without a gradient; None where all tokens
        attend to all.
      relative_keys: what is added to the key of a token j that is 1, 2, ... P tokens before i, in all heads; None if
        nothing is. With relative keys a token attends to the P tokens before it and not to itself.
    """

    queries: Float[Array, "B N H F"]
    keys: Float[Array, "B N H F"]
    values: Float[Array, "B N H F"]
    attended: Float[Array, "B N H F"]
    output_kernel: Float[Array, "H F D"]
    head_entropies: Float[Array, "B H"]
    token_entropies: Float[Array, "B N H"] | None = None
    relative_keys: Float[Array, "P F"] | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PreviousLayer:
    """The decision of the MoE layer before this one.

    Attributes:
      probabilities: after its inform steps.
      indices: its base top K.
    """

    probabilities: Float[Array, "B N E"]
    indices: Int[Array, "B N K"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepContext:
    """Inputs of a score or inform step; all but ``tokens`` and ``parameters`` are None unless it declared them.

    A step casts to float32 what it computes with (:func:`vmoe_inform.routing.products.float32_einsum` does).

    Attributes:
      tokens: input of the MoE layer, in the model's type.
      parameters: the learned arrays that the step declared, by name.
      state: the step's state before this training step (``initial_state``).
      attention: the record of the block's attention (``needs_attention``).
      raw_inputs: what the model makes each token of (``needs_raw_inputs``). Of text that is its id. Of images it is the
        normalised pixels of its patch, zeros for a class token.
      previous: the MoE layer before this one (``needs_previous``); None in the first.
      first: how many tokens of the sequence come before ``tokens``: 0 but for a text that is read in parts.
      mask: what a token may know of the others. The model decides it, and every step heeds it or is refused.
      real: False for padding behind a text, which no real token may depend on; None if all tokens are real. A step that
        mixes tokens, or has losses, leaves padding out.
    """

    tokens: Float[Array, "B N D"]
    parameters: Mapping[str, Array]
    state: Tree | None = None
    attention: AttentionRecord | None = None
    raw_inputs: Float[Array, "B N P"] | Int[Array, "B N"] | None = None
    previous: PreviousLayer | None = None
    first: int | Int[Array, ""] = 0
    mask: Mask = dataclasses.field(default=None, metadata={"static": True})
    real: Bool[Array, "B N"] | None = None

    @property
    def graph_mask(self) -> Bool[Array, "B N N"] | Mask:
        """Which tokens a token may mix with. In a causal model padding, which is behind the tokens, needs no more."""
        if self.mask is not None or self.real is None:
            return self.mask
        batch, num_tokens = self.real.shape
        return jnp.broadcast_to(self.real[:, None, :], (batch, num_tokens, num_tokens))


@dataclasses.dataclass(frozen=True)
class SelectContext:
    """Inputs of a select step besides the probabilities of a group.

    Attributes:
      k: K, choices of each token.
      capacity: C, slots of one expert for one group.
      logits: the logits that the choice is made from, with noise in training.
      num_sequences: sequences (images) of a group; their tokens follow each other.
      train: whether this is a training step.
      active: number of the K choices that count at this time of the training; None for all.
      gates: weights that the score step gives itself; None: the probabilities decide.
      slot_logits: logits of the single slots of each expert; None: one slot each, with ``logits``.
      priority: tokens of larger priority get slots first; None for no batch priority.
      mask: as of :class:`StepContext`. With ``"causal"`` slots are handed out in the order of the tokens.
      real: False for the tokens of filler images, which must take no slots; None if all are real.
      parameters: the learned arrays that the step declared, by name.
      state: the step's state before this training step (``initial_state``).
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
    mask: Mask = None
    real: Bool[Array, "G S"] | None = None
    parameters: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    state: Tree | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LossContext:
    """Inputs of an auxiliary loss: the choices of the tokens of each group, before inform steps.

    Attributes:
      logits: base logits, without noise, float32.
      probabilities: of the base logits.
      indices: base top K; E where K still grows.
      noisy_logits: the logits that the choice was made from; None where there is no noise, or K grows.
      noise_std: standard deviation of the noise, in the unit of the logits.
      real: False for padding, which counts in no loss; None if all tokens are real.
      parameters: the learned arrays of the score step that the loss declared, by name.
    """

    logits: Float[Array, "G S E"]
    probabilities: Float[Array, "G S E"]
    indices: Int[Array, "G S K"]
    noisy_logits: Float[Array, "G S E"] | None = None
    noise_std: float = dataclasses.field(default=0.0, metadata={"static": True})
    real: Bool[Array, "G S"] | None = None
    parameters: Mapping[str, Array] = dataclasses.field(default_factory=dict)

    @property
    def whole_batch(self) -> "LossContext":
        """The same with the tokens of all groups as one group."""

        # [G, S, ...] -> [1, G S, ...]
        def joined(array: Array) -> Array:
            return array.reshape(1, -1, *array.shape[2:])

        return dataclasses.replace(
            self,
            logits=joined(self.logits),
            probabilities=joined(self.probabilities),
            indices=joined(self.indices),
            noisy_logits=None if self.noisy_logits is None else joined(self.noisy_logits),
            real=None if self.real is None else joined(self.real),
        )


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


@dataclasses.dataclass(frozen=True)
class Duration:
    """How long a training is.

    Attributes:
      total_steps: training steps of the whole run.
      count_epoch: counts the training steps of an epoch, for which it may have to read the data; None: unknown.
    """

    total_steps: int
    count_epoch: Callable[[], int] | None = None

    @property
    def knows_epoch(self) -> bool:
        """Whether :attr:`epoch_steps` is known."""
        return self.count_epoch is not None

    @property
    def epoch_steps(self) -> int:
        """Training steps of an epoch, rounded to a whole number, at least 1.

        Raises:
          ValueError: they are unknown.
        """
        if self.count_epoch is None:
            raise checks.error("duration", "the steps of an epoch, which a router step counts by", None)
        return self.count_epoch()
