"""The one place where a config becomes a model."""

from typing import Any

import jax
import jax.numpy as jnp

from vmoe_inform import config as config_lib
from vmoe_inform.axes import Array, Tree
from vmoe_inform.nn.vit import VisionTransformer


def from_config(config: Any) -> VisionTransformer:
    """Builds the model that ``config.model`` describes.

    Example::

        model = models.from_config(config.model)
        variables = models.initialize(model, jax.random.key(0))
        logits, aux = model.apply(variables, images, train=False)

    Args:
      config: ``config.model`` as a ConfigDict, a dict, or a :class:`vmoe_inform.config.ModelConfig`.

    Returns:
      a Flax module; see :class:`vmoe_inform.nn.vit.VisionTransformer` for its call.

    Raises:
      ValueError: an unknown key, a wrong type or an impossible combination.
    """
    return VisionTransformer(config_lib.parse_model(config))


def initialize(model: VisionTransformer, key: Array) -> dict[str, Tree]:
    """Fresh variables: ``params`` and, if a router step keeps a state, ``routing``.

    Args:
      model: from :func:`from_config`.
      key: a JAX random key.
    """
    size = model.config.image_size_px
    images = jnp.zeros((model.config.moe.group_size_sequences, size, size, 3), jnp.float32)
    return dict(jax.jit(model.init)({"params": key}, images))


def num_parameters(params: Tree) -> int:
    """Number of learned values in a tree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
