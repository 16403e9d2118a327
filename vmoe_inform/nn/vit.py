"""Vision Transformer whose blocks may have MoE layers: V-MoE (arXiv 2106.05974)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Bool, Float, Tree
from vmoe_inform.config import VisionModelConfig
from vmoe_inform.nn.auxiliary_losses import auxiliary_loss
from vmoe_inform.nn.dropout import Dropout
from vmoe_inform.nn.mlp import Mlp
from vmoe_inform.nn.patches import PatchEmbedding, patches_of
from vmoe_inform.nn.router import Surroundings, needs_raw_inputs
from vmoe_inform.nn.trunk import apply_blocks


class MapPooling(nn.Module):
    """One vector for all tokens: attention from a learned probe, then a residual MLP (multi-head attention pooling)."""

    config: VisionModelConfig

    @nn.compact
    def __call__(self, tokens: Float[Array, "B N D"], *, train: bool) -> Float[Array, "B D"]:
        dtype = jnp.dtype(self.config.dtype)
        batch, _, width = tokens.shape
        probe = self.param("probe", nn.initializers.xavier_uniform(), (1, 1, width))
        attention = nn.MultiHeadDotProductAttention(
            self.config.num_heads, kernel_init=nn.initializers.xavier_uniform(), dtype=dtype, name="attention"
        )
        pooled = attention(jnp.broadcast_to(probe.astype(dtype), (batch, 1, width)), tokens)
        normed = nn.LayerNorm(epsilon=self.config.layer_norm_epsilon, dtype=dtype, name="norm")(pooled)
        mlp = Mlp(self.config.mlp_size, dtype=dtype, activation=self.config.activation, name="mlp")
        return (pooled + mlp(normed, train=train))[:, 0]


class VisionTransformer(nn.Module):
    """Images -> class logits, with MoE layers where the config says.

    Random streams in training: ``routing`` (noise on the router's logits) and ``dropout`` (stochastic depth too).
    """

    config: VisionModelConfig

    def input_shape(self, batch_size: int) -> jax.ShapeDtypeStruct:
        """Shape and type of the images of a batch."""
        size = self.config.image_size_px
        return jax.ShapeDtypeStruct((batch_size, size, size, 3), jnp.float32)

    def initial_memory(self, batch_size: int) -> Tree | None:
        """None: an image says nothing about the next one."""
        del batch_size
        return None

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "B P P 3"],
        *,
        train: bool = False,
        sequence_mask: Bool[Array, " B"] | None = None,
        token_mask: None = None,
        progress: Float[Array, ""] | None = None,
        memory: Tree | None = None,
    ) -> tuple[Float[Array, "B classes"], dict[str, Any]]:
        """Classifies.

        Args:
          images: normalised pixels [B, P, P, 3], P = ``image_size_px``.
          train: noise, dropout and training capacity.
          sequence_mask: False for images that only fill up a batch: they take no expert's slots from the others.
          token_mask: None: an image has no padding.
          progress: share of the training that is done, 0 to 1; needed in training by routers whose K grows.
          memory: None, as of :meth:`initial_memory`.

        Returns:
          logits [B, classes], float32, and ``aux``: ``auxiliary_loss`` (scalar: weighted losses, summed over MoE
          layers, averaged over groups), ``moe``, by block name the metrics of :class:`vmoe_inform.nn.moe.MoeLayer`,
          ``features`` [B, F], float32: what the head sees, and ``memory``, None.

        Raises:
          ValueError: images of another size, a group size that does not divide the batch, or no ``progress`` for a
            router that needs it.
        """
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        tokens = self._embed(images)
        tokens = Dropout(config.dropout_rate)(tokens, train=train)
        raw_inputs = _patches(images, config) if needs_raw_inputs(config.router) else None
        around = Surroundings(raw_inputs=raw_inputs, progress=progress)
        real = None if sequence_mask is None else sequence_mask[:, None]
        tokens, metrics, _ = apply_blocks(config, tokens, around, real, train=train)
        tokens = nn.LayerNorm(epsilon=config.layer_norm_epsilon, dtype=dtype, name="encoder_norm")(tokens)
        features = self._pool(tokens, train=train).astype(jnp.float32)
        head = nn.Dense(
            config.num_classes,
            kernel_init=nn.initializers.zeros,
            bias_init=nn.initializers.constant(config.head_bias_initial_value),
            name="head",
        )
        loss = auxiliary_loss((layer["losses"] for layer in metrics.values()), config.router)
        return head(features), {"auxiliary_loss": loss, "moe": metrics, "features": features, "memory": memory}

    def _embed(self, images: Float[Array, "B P P 3"]) -> Float[Array, "B N D"]:
        """A token for each patch, after the class token if there is one, with their positions."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        expected = (config.image_size_px, config.image_size_px, 3)
        if images.ndim != 4 or images.shape[1:] != expected:
            raise checks.error("images", f"shape (B, {', '.join(map(str, expected))})", images.shape)
        tokens = PatchEmbedding(config.hidden_size, config.patch_size_px, dtype, name="patch_embedding")(images)
        if config.classifier == "token":
            class_token = self.param("class_token", nn.initializers.zeros, (1, 1, config.hidden_size))
            class_tokens = jnp.broadcast_to(class_token.astype(dtype), (images.shape[0], 1, config.hidden_size))
            tokens = jnp.concatenate([class_tokens, tokens], axis=1)
        embedding = self.param("position_embedding", nn.initializers.normal(0.02), (1, *tokens.shape[1:]))
        return tokens + embedding.astype(dtype)

    def _pool(self, tokens: Float[Array, "B N D"], *, train: bool) -> Float[Array, "B F"]:
        """What the head sees of an image."""
        config = self.config
        if config.classifier == "token":
            features = tokens[:, 0]
        elif config.classifier == "gap":
            features = jnp.mean(tokens, axis=1)
        else:
            features = MapPooling(config, name="map_pooling")(tokens, train=train)
        if config.representation_size is None:
            return features
        dense = nn.Dense(config.representation_size, dtype=jnp.dtype(config.dtype), name="pre_logits")
        return jnp.tanh(dense(features))


def _patches(images: Float[Array, "B P P 3"], config: VisionModelConfig) -> Float[Array, "B N values"]:
    """The pixels of each token's patch; zeros for the class token, where there is one."""
    patches = patches_of(images, config.patch_size_px)
    return jnp.pad(patches, ((0, 0), (config.num_tokens - patches.shape[1], 0), (0, 0)))
