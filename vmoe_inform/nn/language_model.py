"""Transformer over tokens of text whose blocks may have MoE layers: a language model, or a classifier."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Bool, Float, Int
from vmoe_inform.config import LanguageModelConfig
from vmoe_inform.nn import cache
from vmoe_inform.nn.auxiliary_losses import auxiliary_loss
from vmoe_inform.nn.cross_entropy import VOCABULARY_AXES, HeadInputs
from vmoe_inform.nn.dropout import Dropout
from vmoe_inform.nn.router import Surroundings, needs_raw_inputs
from vmoe_inform.nn.trunk import Memory, apply_blocks
from vmoe_inform.sharding.mesh import AXES, REPLICA, constrain

# Standard deviation of the embeddings by ``model.block``. It is small where they are added to (GPT-2). It is 1, as in
# the papers' programs, where a LayerNorm follows every addition.
_EMBEDDING_STD = {"pre_ln": 0.02, "post_ln_double": 1.0}
_HEAD_STD = 0.02


class Vocabulary(nn.Module):
    """What the model knows of each word: its embedding, and how the head scores it."""

    config: LanguageModelConfig

    def setup(self) -> None:
        config = self.config
        size, width = config.vocabulary_size, config.hidden_size
        embed = nn.initializers.normal(_EMBEDDING_STD[config.block])
        self.embedding = self.param("embedding", embed, (size, width))
        if config.num_classes is None:
            if not config.tie_embeddings:
                self.kernel = self.param("kernel", nn.initializers.normal(_HEAD_STD), (width, size))
            self.bias = self.param("bias", nn.initializers.zeros, (size,))

    def embed(self, tokens: Int[Array, "B N"]) -> Float[Array, "B N D"]:
        """The words' embeddings, NaN for what is not in the vocabulary.

        On a mesh each device looks up its part of the width for the tokens of its replica, and one all-to-all follows.
        """
        found = jnp.take(self.embedding, constrain(tokens, REPLICA), axis=0, mode="fill")
        found = constrain(found.astype(jnp.dtype(self.config.dtype)), REPLICA, None, VOCABULARY_AXES)
        return constrain(found, AXES)

    def head(self, hidden: Float[Array, "B N D"]) -> HeadInputs:
        """What the logits are made of."""
        return HeadInputs(hidden, self.embedding.T if self.config.tie_embeddings else self.kernel, self.bias)


class LanguageModel(nn.Module):
    """Token ids -> logits of the next token, or of a class, with MoE layers where the config says.

    Random streams in training: ``routing`` (noise on the router's logits) and ``dropout`` (stochastic depth too).
    """

    config: LanguageModelConfig

    def input_shape(self, batch_size: int) -> jax.ShapeDtypeStruct:
        """Shape and type of the tokens of a batch."""
        return jax.ShapeDtypeStruct((batch_size, self.config.num_tokens), jnp.int32)

    def initial_memory(self, batch_size: int) -> Memory | None:
        """What attention sees before the first sequence: zeros; None if it does not look back that far."""
        config = self.config
        if config.attention_span is None:
            return None
        shape = (batch_size, config.attention_span, config.hidden_size)
        return {f"block_{layer}": jnp.zeros(shape, jnp.dtype(config.dtype)) for layer in range(config.num_layers)}

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B N"],
        *,
        train: bool = False,
        sequence_mask: Bool[Array, " B"] | None = None,
        token_mask: Bool[Array, "B N"] | None = None,
        progress: Float[Array, ""] | None = None,
        memory: Memory | None = None,
    ) -> tuple[Float[Array, "B *out"], dict[str, Any]]:
        """Predicts.

        Args:
          tokens: int32, 0 to V - 1, at most ``num_tokens`` in a sequence.
          train: noise, dropout and training capacity.
          sequence_mask: False for sequences that only fill up a batch: they take no expert's slots from the others.
          token_mask: False for padding behind the tokens of a sequence; None if there is none.
          progress: share of the training that is done, 0 to 1; needed in training by routers whose K grows.
          memory: of the sequences before, from ``aux["memory"]``; None is :meth:`initial_memory`.

        Returns:
          logits, float32: [B, N, V] of the token after each, or [B, classes] of a classifier, whose head sees the last
          token that is not padding. And ``aux``: ``auxiliary_loss`` and ``moe`` as of
          :class:`vmoe_inform.nn.vit.VisionTransformer`; ``features``, float32: what the head sees; ``head``, what the
          logits are made of, for :mod:`vmoe_inform.nn.cross_entropy` (None of a classifier); ``memory``, for the
          sequences that follow, without a gradient (None if nothing is carried over).

        Raises:
          ValueError: tokens of another shape, a group size that does not divide the batch, or no ``progress`` for a
            router that needs it.
        """
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        self._check(tokens)
        vocabulary = Vocabulary(config, name="vocabulary")
        embedded, relative_keys = vocabulary.embed(tokens), None
        if config.attention_span is None:
            positions = self.param(
                "position_embedding", nn.initializers.normal(0.02), (1, config.num_tokens, config.hidden_size)
            )
            before = cache.count(self, tokens.shape[1]) if cache.keeps(self) else 0
            positions = jax.lax.dynamic_slice_in_dim(positions, before, tokens.shape[1], axis=1)
            embedded = embedded + positions.astype(dtype)
        else:
            size = (config.attention_span, config.hidden_size // config.num_heads)
            relative_keys = self.param("relative_keys", nn.initializers.normal(1.0), size)
            memory = self.initial_memory(tokens.shape[0]) if memory is None else jax.lax.stop_gradient(memory)
        embedded = Dropout(config.dropout_rate)(embedded, train=train)
        hidden, metrics, memory = apply_blocks(
            config,
            embedded,
            Surroundings(raw_inputs=tokens if needs_raw_inputs(config.router) else None, progress=progress),
            _real(sequence_mask, token_mask),
            train=train,
            memory=memory,
            relative_keys=relative_keys,
        )
        if config.block == "pre_ln":
            hidden = nn.LayerNorm(epsilon=config.layer_norm_epsilon, dtype=dtype, name="final_norm")(hidden)
        aux = {
            "auxiliary_loss": auxiliary_loss((layer["losses"] for layer in metrics.values()), config.router),
            "moe": metrics,
            "memory": memory,
        }
        if config.num_classes is None:
            head = vocabulary.head(hidden)
            return logits_of(head), aux | {"features": hidden.astype(jnp.float32), "head": head}
        features = _last(hidden, token_mask).astype(jnp.float32)
        classes = nn.Dense(config.num_classes, kernel_init=nn.initializers.zeros, name="head")
        return classes(features), aux | {"features": features, "head": None}

    def _check(self, tokens: Array) -> None:
        most = self.config.num_tokens
        if tokens.ndim != 2 or not 1 <= tokens.shape[1] <= most or not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise checks.error(
                "tokens",
                f"integers [B, N] with N at most model.num_tokens = {most}",
                f"{tokens.dtype}{list(tokens.shape)}",
            )


def _real(sequence_mask: Array | None, token_mask: Array | None) -> Bool[Array, "B #N"] | None:
    if sequence_mask is None:
        return token_mask
    return sequence_mask[:, None] if token_mask is None else sequence_mask[:, None] & token_mask


def logits_of(head: HeadInputs) -> Float[Array, "B N V"]:
    """All logits, float32."""
    kernel = head.kernel.astype(head.hidden.dtype)
    return jnp.einsum("bnd,dv->bnv", head.hidden, kernel, preferred_element_type=jnp.float32) + head.bias[None, None]


def _last(hidden: Float[Array, "B N D"], token_mask: Bool[Array, "B N"] | None) -> Float[Array, "B D"]:
    """The last token that is not padding; the first one of a sequence of padding."""
    if token_mask is None:
        return hidden[:, -1]
    last = jnp.max(jnp.where(token_mask, jnp.arange(hidden.shape[1])[None], 0), axis=1)
    return jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]
