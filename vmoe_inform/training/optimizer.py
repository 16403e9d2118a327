"""Optimizer and learning-rate schedule from the config."""

import re

import jax
import optax

from vmoe_inform import checks
from vmoe_inform.axes import Tree
from vmoe_inform.config import OptimizerConfig
from vmoe_inform.sharding.rules import path_name


def make_schedule(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
    """Learning rate by step: linear from 0 over ``warmup_steps``, then cosine, linear or constant.

    Args:
      config: peak, end, warm-up and kind.
      total_steps: the step at which the schedule ends.

    Raises:
      ValueError: a warm-up that is longer than the run.
    """
    if config.warmup_steps >= total_steps:
        raise checks.error("optimizer.warmup_steps", f"less than the {total_steps} training steps", config.warmup_steps)
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


def decay_mask(params: Tree, pattern: str) -> Tree:
    """True for the parameters that weight decay acts on: those whose path ``pattern`` matches from its start.

    Raises:
      ValueError: the pattern matches no parameter.
    """
    matches = jax.tree_util.tree_map_with_path(lambda path, _: re.match(pattern, path_name(path)) is not None, params)
    if not any(jax.tree.leaves(matches)):
        raise checks.error("optimizer.weight_decay_pattern", "a pattern that matches some parameter", pattern)
    return matches


def make_optimizer(config: OptimizerConfig, total_steps: int) -> optax.GradientTransformation:
    """Clipping by global norm, Adam or momentum, decoupled weight decay, schedule; in this order.

    Raises:
      ValueError: as :func:`make_schedule`; at ``init``, as :func:`decay_mask`.
    """
    parts = []
    if config.gradient_clip_norm is not None:
        parts.append(optax.clip_by_global_norm(config.gradient_clip_norm))
    if config.name == "sgd":
        parts.append(optax.trace(config.momentum))
    else:
        parts.append(optax.scale_by_adam(config.beta1, config.beta2, config.epsilon))
    if config.weight_decay > 0:
        parts.append(
            optax.add_decayed_weights(
                config.weight_decay, lambda params: decay_mask(params, config.weight_decay_pattern)
            )
        )
    parts.append(optax.scale_by_learning_rate(make_schedule(config, total_steps)))
    return optax.chain(*parts)
