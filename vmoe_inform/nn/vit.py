"""Vision Transformer whose blocks may have MoE layers: V-MoE (arXiv 2106.05974)."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Bool, Float
from vmoe_inform.config import ModelConfig
from vmoe_inform.nn.block import Block
from vmoe_inform.nn.mlp import EXPERT_PRODUCTS, Mlp
from vmoe_inform.nn.router import Surroundings, auxiliary_loss, needs_raw_inputs
from vmoe_inform.routing.steps import PreviousLayer

_REMAT_POLICIES = {
    # Products with parameters; not the products of attention, N x N, which are as large as they are cheap.
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names(EXPERT_PRODUCTS),
    ),
    "full": jax.checkpoint_policies.nothing_saveable,
}


class MapPooling(nn.Module):
    """One vector for all tokens: attention from a learned probe, then a residual MLP (multi-head attention pooling)."""

    config: ModelConfig

    @nn.compact
    def __call__(self, tokens: Float[Array, "B N D"], *, train: bool) -> Float[Array, "B D"]:
        dtype = jnp.dtype(self.config.dtype)
        batch, _, width = tokens.shape
        probe = self.param("probe", nn.initializers.xavier_uniform(), (1, 1, width))
        attention = nn.MultiHeadDotProductAttention(
            self.config.num_heads, kernel_init=nn.initializers.xavier_uniform(), dtype=dtype, name="attention"
        )
        pooled = attention(jnp.broadcast_to(probe.astype(dtype), (batch, 1, width)), tokens)
        normed = nn.LayerNorm(epsilon=1e-6, dtype=dtype, name="norm")(pooled)
        return (pooled + Mlp(self.config.mlp_size, dtype=dtype, name="mlp")(normed, train=train))[:, 0]


class VisionTransformer(nn.Module):
    """Images -> class logits, with MoE layers where the config says.

    Random streams in training: ``routing`` (noise on the router's logits) and ``dropout`` (stochastic depth too).
    """

    config: ModelConfig

    def input_shape(self, batch_size: int) -> jax.ShapeDtypeStruct:
        """Shape and type of the images of a batch."""
        size = self.config.image_size_px
        return jax.ShapeDtypeStruct((batch_size, size, size, 3), jnp.float32)

    @nn.compact
    def __call__(
        self,
        images: Float[Array, "B P P 3"],
        *,
        train: bool = False,
        sequence_mask: Bool[Array, " B"] | None = None,
        progress: Float[Array, ""] | None = None,
    ) -> tuple[Float[Array, "B classes"], dict[str, Any]]:
        """Classifies.

        Args:
          images: normalised pixels [B, P, P, 3], P = ``image_size_px``.
          train: noise, dropout, training capacity, and updates of the routers' states.
          sequence_mask: False for images that only fill up a batch: they take no expert's slots from the others.
          progress: share of the training that is done, 0 to 1; needed in training by routers whose K grows.

        Returns:
          logits [B, classes], float32, and ``aux``: ``auxiliary_loss`` (scalar: weighted losses, summed over MoE
          layers, averaged over groups), ``moe``, by block name the metrics of :class:`vmoe_inform.nn.moe.MoeLayer`,
          and ``features`` [B, F], float32: what the head sees.

        Raises:
          ValueError: images of another size, a group size that does not divide the batch, or no ``progress`` for a
            router that needs it.
        """
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        expected = (config.image_size_px, config.image_size_px, 3)
        if images.ndim != 4 or images.shape[1:] != expected:
            raise checks.error("images", f"shape (B, {', '.join(map(str, expected))})", images.shape)
        patch = (config.patch_size_px, config.patch_size_px)
        tokens = nn.Conv(config.hidden_size, patch, patch, "VALID", dtype=dtype, name="patch_embedding")(images)
        tokens = tokens.reshape(images.shape[0], -1, config.hidden_size)  # [B, rows, columns, D] -> [B, N, D]
        if config.classifier == "token":
            class_token = self.param("class_token", nn.initializers.zeros, (1, 1, config.hidden_size))
            class_tokens = jnp.broadcast_to(class_token.astype(dtype), (images.shape[0], 1, config.hidden_size))
            tokens = jnp.concatenate([class_tokens, tokens], axis=1)
        embedding = self.param("position_embedding", nn.initializers.normal(0.02), (1, *tokens.shape[1:]))
        tokens = tokens + embedding.astype(dtype)
        tokens = nn.Dropout(config.dropout_rate, deterministic=not train)(tokens)

        around = Surroundings(
            raw_inputs=_patches(images, config) if needs_raw_inputs(config.router) else None, progress=progress
        )
        metrics: dict[str, Any] = {}
        for layer in range(config.num_layers):
            name = f"block_{layer}"
            ordinal = config.moe_layers.index(layer) if layer in config.moe_layers else None
            drop_rate = config.stochastic_depth_rate * layer / max(1, config.num_layers - 1)
            block = Block(config, ordinal, drop_rate, name=name)
            tokens, layer_metrics, previous = _apply_block(block, tokens, around, sequence_mask, train=train)
            if ordinal is not None:
                metrics[name] = layer_metrics
                around = dataclasses.replace(around, previous=previous)
        tokens = nn.LayerNorm(epsilon=1e-6, dtype=dtype, name="encoder_norm")(tokens)

        if config.classifier == "token":
            features = tokens[:, 0]
        elif config.classifier == "gap":
            features = jnp.mean(tokens, axis=1)
        else:
            features = MapPooling(config, name="map_pooling")(tokens, train=train)
        if config.representation_size is not None:
            features = jnp.tanh(nn.Dense(config.representation_size, dtype=dtype, name="pre_logits")(features))
        head = nn.Dense(
            config.num_classes,
            kernel_init=nn.initializers.zeros,
            bias_init=nn.initializers.constant(config.head_bias_initial_value),
            name="head",
        )
        features = features.astype(jnp.float32)
        loss = auxiliary_loss((layer["losses"] for layer in metrics.values()), config.router)
        return head(features), {"auxiliary_loss": loss, "moe": metrics, "features": features}


def _apply_block(
    block: Block,
    tokens: Float[Array, "B N D"],
    around: Surroundings,
    sequence_mask: Bool[Array, " B"] | None,
    *,
    train: bool,
) -> tuple[Float[Array, "B N D"], dict[str, Any] | None, PreviousLayer | None]:
    """The block, which keeps for the gradient what ``remat`` says."""

    def apply(block: Block, *arrays: Any) -> Any:
        return block(*arrays[:2], train=train, sequence_mask=arrays[2])

    if block.config.remat != "none":
        apply = nn.remat(apply, policy=_REMAT_POLICIES[block.config.remat])
    return apply(block, tokens, around, sequence_mask)


def _patches(images: Float[Array, "B P P 3"], config: ModelConfig) -> Float[Array, "B N values"]:
    """The pixels of each token's patch; zeros for the class token, where there is one."""
    side, size = config.image_size_px // config.patch_size_px, config.patch_size_px
    # [B, rows * p, columns * p, 3] -> [B, rows, columns, p, p, 3] -> [B, N, p * p * 3]
    patches = images.reshape(-1, side, size, side, size, 3).swapaxes(2, 3).reshape(len(images), side * side, -1)
    return jnp.pad(patches, ((0, 0), (config.num_tokens - side * side, 0), (0, 0)))
