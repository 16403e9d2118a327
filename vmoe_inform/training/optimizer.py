"""Optimizer and learning-rate schedule from the config."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vmoe_inform.axes import Array, Int, Tree
from vmoe_inform.config import OptimizerConfig, check_warmup
from vmoe_inform.sharding.rules import path_name
from vmoe_inform.training import paths
from vmoe_inform.training.directions import direction

_TRAINED, _FROZEN = "trained", "frozen"


def make_schedule(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """Learning rate by step: linear from 0 over ``warmup_steps``, then cosine, linear or constant.

    Args:
      config: peak, end, warm-up and kind.
      total_steps: the step at which the schedule ends.

    Raises:
      ValueError: a warm-up that is longer than the run.
    """
    check_warmup(config, total_steps)
    rest = total_steps - config.warmup_steps
    peak, end = config.learning_rate, config.end_learning_rate
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, rest, alpha=end / peak)
    elif config.schedule == "linear":
        after = optax.linear_schedule(peak, end, rest)
    else:
        after = optax.constant_schedule(peak)
    if not config.warmup_steps:
        return after
    warmup = optax.linear_schedule(0.0, peak, config.warmup_steps)
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def decay_weights(config: OptimizerConfig) -> optax.GradientTransformation:
    """Adds to an update the weight decay times the parameter, by the parameter's path."""

    def add(path: Any, update: Array, parameter: Array) -> Array:
        factor = paths.factor_of(config.weight_decay_multipliers, path_name(path))
        return update + config.weight_decay * factor * parameter

    decay = optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(add, updates, params))
    return optax.masked(decay, lambda params: paths.mask(params, (config.weight_decay_pattern,)))


def multiply_learning_rate(factors: paths.Factors) -> optax.GradientTransformation:
    """Multiplies updates by factors that go by the paths of the parameters."""

    def multiply(path: Any, update: Array) -> Array:
        return paths.factor_of(factors, path_name(path)) * update

    return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(multiply, updates))


def scale_by_layer(decay: float) -> optax.GradientTransformation:
    """Multiplies updates by factors that fall from layer to layer, see :func:`paths.layer_factors`."""

    def multiply(updates: Tree, _: Tree | None) -> Tree:
        return jax.tree.map(lambda factor, update: factor * update, paths.layer_factors(updates, decay), updates)

    return optax.stateless(multiply)


def hold_all_but(patterns: Sequence[str], num_steps: int) -> optax.GradientTransformationExtraArgs:
    """Sets updates to zero in the first steps, but for parameters in whose path a pattern is found.

    The moments of a transformation before this one learn from all gradients. ``update`` takes the training step as
    ``step``.
    """

    def update(
        updates: Tree, state: Any, params: Tree | None = None, *, step: Int[Array, ""], **_: Any
    ) -> tuple[Tree, Any]:
        def hold(is_first: bool, update: Array) -> Array:
            return update if is_first else jnp.where(step < num_steps, jnp.zeros_like(update), update)

        return jax.tree.map(hold, paths.mask(updates, patterns), updates), state

    return optax.GradientTransformationExtraArgs(lambda _: optax.EmptyState(), update)


def scale_by_step(schedule: optax.Schedule) -> optax.GradientTransformationExtraArgs:
    """Scales updates by the negative learning rate of the training step, which ``update`` takes as ``step``.

    A step that is left out for its loss or gradient counts: the schedule ends with the run. Optax's own schedules count
    updates, which is what this does where there is no ``step``.
    """
    scale = optax.scale_by_learning_rate(schedule)

    def update(
        updates: Tree, state: Any, params: Tree | None = None, *, step: Int[Array, ""] | None = None, **_: Any
    ) -> tuple[Tree, Any]:
        return scale.update(updates, state if step is None else optax.ScaleByScheduleState(count=step), params)

    return optax.GradientTransformationExtraArgs(scale.init, update)


def make_optimizer(config: OptimizerConfig, total_steps: int) -> optax.GradientTransformationExtraArgs:
    """Clipping by global norm, direction, decoupled weight decay, schedule, multipliers, decay over layers.

    In this order; what is trained first comes last.

    Adam's correction of its bias counts updates: a step that is left out is in no moment. The schedule counts steps,
    see :func:`scale_by_step`. Frozen parameters have no state, no part in the global norm, and updates of zero.

    Raises:
      ValueError: as :func:`make_schedule`.
    """
    parts: list[optax.GradientTransformation] = []
    if config.gradient_clip_norm is not None:
        parts.append(optax.clip_by_global_norm(config.gradient_clip_norm))
    parts.append(direction(config))
    if config.weight_decay > 0:
        parts.append(decay_weights(config))
    parts.append(scale_by_step(make_schedule(config, total_steps)))
    if config.multipliers:
        parts.append(multiply_learning_rate(config.multipliers))
    optimizer = optax.chain(*parts)
    if config.frozen:

        def labels(params: Tree) -> Tree:
            return jax.tree.map(lambda is_frozen: _FROZEN if is_frozen else _TRAINED, paths.mask(params, config.frozen))

        optimizer = optax.partition({_TRAINED: optimizer, _FROZEN: optax.set_to_zero()}, labels)
    # Of all parameters: frozen blocks count as layers, too.
    of_all = [scale_by_layer(config.layer_decay)] if config.layer_decay < 1 else []
    if config.trained_first:
        of_all.append(hold_all_but(config.trained_first, config.trained_first_steps))
    return optax.chain(optimizer, *of_all) if of_all else optimizer
