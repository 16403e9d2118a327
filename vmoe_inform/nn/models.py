"""The one place where a config becomes a model."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from vmoe_inform import config as config_lib
from vmoe_inform.axes import Array, Tree
from vmoe_inform.nn.language_model import LanguageModel
from vmoe_inform.nn.vit import VisionTransformer

# What a config may become, by ``model.inputs``. All are called as ``(inputs, *, train, sequence_mask, token_mask,
# progress, memory)`` and return ``(outputs, aux)``. ``aux["memory"]`` is for a next batch that continues this one,
# ``initial_memory(batch_size)`` for the first.
Model: TypeAlias = VisionTransformer | LanguageModel
_MODELS: Mapping[str, Callable[[Any], Model]] = {"images": VisionTransformer, "tokens": LanguageModel}


def from_config(config: Any) -> Model:
    """Builds the model that ``config.model`` describes.

    Example::

        model = models.from_config(config.model)
        variables = models.initialize(model, jax.random.key(0))
        logits, aux = model.apply(variables, images, train=False)

    Args:
      config: ``config.model`` as a ConfigDict, a dict, or a :class:`vmoe_inform.config.ModelConfig`.

    Returns:
      a Flax module: of images a :class:`vmoe_inform.nn.vit.VisionTransformer`, of tokens a
      :class:`vmoe_inform.nn.language_model.LanguageModel`.

    Raises:
      ValueError: an unknown key, a wrong type or an impossible combination.
    """
    parsed = config_lib.parse_model(config)
    return _MODELS[parsed.inputs](parsed)


def initialize(model: Model, key: Array) -> dict[str, Tree]:
    """Fresh variables: ``params`` and, if a router step keeps a state, ``routing``.

    Args:
      model: from :func:`from_config`.
      key: a JAX random key.
    """
    shape = model.input_shape(model.config.moe.group_size_sequences)
    return dict(jax.jit(model.init)({"params": key}, jnp.zeros(shape.shape, shape.dtype)))


def num_parameters(params: Tree) -> int:
    """Number of learned values in a tree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
