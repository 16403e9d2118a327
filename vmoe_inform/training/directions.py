"""From gradients to the direction of a step, by ``optimizer.name``; optax's own transformations."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vmoe_inform.axes import Array, Tree
from vmoe_inform.config import OptimizerConfig
from vmoe_inform.sharding.rules import path_name

_BANKS = ("experts", "shared")  # under "moe", arrays [E, ...] of which each entry is a parameter of one expert
_SMALLEST_FACTORED = 32  # optax factors from 128 on, which leaves out the kernels of attention heads
_CLIPPED_AT = 1.0  # root mean square of a parameter's update, as in Adafactor


def direction(config: OptimizerConfig) -> optax.GradientTransformation:
    """What ``optimizer.name`` makes of a gradient, before weight decay and learning rate."""
    return _DIRECTIONS[config.name](config, jnp.dtype(config.first_moment_dtype))


def _adam(config: OptimizerConfig, dtype: jnp.dtype) -> optax.GradientTransformation:
    return optax.scale_by_adam(config.beta1, config.beta2, config.epsilon, mu_dtype=dtype)


def _momentum(config: OptimizerConfig, dtype: jnp.dtype) -> optax.GradientTransformation:
    return optax.trace(config.momentum, accumulator_dtype=dtype)


def _lion(config: OptimizerConfig, dtype: jnp.dtype) -> optax.GradientTransformation:
    """The sign of a mean (arXiv 2302.06675, Algorithm 2)."""
    return optax.scale_by_lion(config.beta1, config.beta2, mu_dtype=dtype)


def _adafactor(config: OptimizerConfig, dtype: jnp.dtype) -> optax.GradientTransformation:
    """Second moments by rows and columns (arXiv 1804.04235), as Vision Transformers take them (2106.04560, Sec. 3.4).

    Updates are not scaled by the norms of parameters. The decay of second moments rises, to ``beta2`` at most. First
    moments are kept unless ``beta1`` is 0. Experts are parameters of their own.
    """

    def decay(step: Array, power: float) -> Array:
        return jnp.minimum(1.0 - (step + 1.0) ** -power, config.beta2)

    # Optax passes its default power of 0.8.
    second = optax.scale_by_factored_rms(min_dim_size_to_factor=_SMALLEST_FACTORED, decay_rate_fn=decay)
    matrices = optax.chain(second, optax.clip_by_block_rms(_CLIPPED_AT))

    def label(path: Any, _: Array) -> str:
        return next((bank for bank in _BANKS if f"/moe/{bank}/" in path_name(path)), "others")

    parts: list[optax.GradientTransformation] = [
        optax.partition(
            {"others": matrices} | {bank: each_of(matrices) for bank in _BANKS},
            lambda params: jax.tree_util.tree_map_with_path(label, params),
        )
    ]
    if config.beta1 > 0:
        parts.append(optax.ema(config.beta1, debias=False, accumulator_dtype=dtype))
    return optax.chain(*parts)


def each_of(transformation: optax.GradientTransformation) -> optax.GradientTransformation:
    """The transformation for arrays [E, ...] with one E, on each of the E by itself; none is fine, too."""

    def init(params: Tree) -> Tree:
        return (jax.vmap(transformation.init) if jax.tree.leaves(params) else transformation.init)(params)

    def update(updates: Tree, state: Tree, params: Tree | None = None) -> tuple[Tree, Tree]:
        function = jax.vmap(transformation.update) if jax.tree.leaves(updates) else transformation.update
        return function(updates, state, params)

    return optax.GradientTransformation(init, update)


_DIRECTIONS: Mapping[str, Callable[[OptimizerConfig, jnp.dtype], optax.GradientTransformation]] = {
    "adamw": _adam,
    "adam": _adam,
    "sgd": _momentum,
    "adafactor": _adafactor,
    "lion": _lion,
}
