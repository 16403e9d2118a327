"""Settings of models of text."""

import dataclasses
from typing import Annotated, Literal

from vmoe_inform.checks import Bound, PositiveInt, Width
from vmoe_inform.config.identity import Effect
from vmoe_inform.config.settings.model import ModelConfig, MoeConfig, RouterConfig

_BYTES_A_TOKEN = 2 * 4 + 1  # the token and its target in int32, and whether it is real


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageModelConfig(ModelConfig):
    """Transformer over word or subword tokens with MoE layers. Experts drop no token by default.

    Attributes:
      num_classes: None for a language model, whose head predicts the next token. A number makes a classifier, whose
        head sees the last real position.
      vocabulary_size: V, tokens of the vocabulary.
      num_tokens: N, tokens of a sequence: one row of a batch.
      causal: no token may depend on a later one, in attention or in routing.
      allow_future: routers may look at later tokens in a causal model, as the sums of the papers do. Results of such
        a model are no perplexities of a language model, and say so.
      block: ``"pre_ln"``, or ``"post_ln_double"`` of the papers' programs: LN(h + LN(h + MoE(h))).
      activation: between the two layers of an MLP or expert; ``"relu"`` in the papers' programs.
      attention_style: ``"causal"`` attends to itself and all tokens before, with learned positions. ``"previous"``
        attends to the ``attention_span`` tokens before, not to itself, with learned relative keys and carried memory.
      attention_span: tokens that a token attends to with ``"previous"``; None with ``"causal"``.
      tie_embeddings: whether the head is the transposed embedding.
      loss_chunk_tokens: tokens whose logits are in memory at a time in the loss.
    """

    inputs: Literal["tokens"] = "tokens"
    num_classes: Width | None = None
    vocabulary_size: Width = 267_735
    num_tokens: Annotated[int, Bound(at_least=1, at_most=2**20)] = 512
    causal: bool = True
    allow_future: bool = False
    block: Literal["pre_ln", "post_ln_double"] = "pre_ln"
    activation: Literal["gelu", "relu"] = "gelu"
    attention_style: Literal["causal", "previous"] = "causal"
    attention_span: Annotated[int, Bound(at_least=1, at_most=2**20)] | None = None
    tie_embeddings: bool = False
    loss_chunk_tokens: Annotated[PositiveInt, Effect.MACHINE] = 1024
    moe: MoeConfig = dataclasses.field(
        default_factory=lambda: MoeConfig(layers="every1", capacity_factor=None, capacity_factor_evaluation=None)
    )

    router: RouterConfig = dataclasses.field(
        default_factory=lambda: RouterConfig(options={"attention": {"heads": "prefix"}, "hash": {"ids": "vocabulary"}})
    )

    @property
    def raw_input_size(self) -> int:
        """One number: the token's."""
        return 1

    @property
    def num_outer_parameters(self) -> int:
        """About how many parameters the embeddings and the head have."""
        rows = self.vocabulary_size + self.num_tokens
        if self.num_classes is not None:
            return self.hidden_size * (rows + self.num_classes)
        return self.hidden_size * (rows + (0 if self.tie_embeddings else self.vocabulary_size))

    @property
    def input_bytes(self) -> int:
        """Memory of one sequence."""
        return _BYTES_A_TOKEN * self.num_tokens
