"""Auxiliary losses of routing: every one by name, and what they add to the objective."""

from collections.abc import Iterable, Mapping

import jax.numpy as jnp

from vmoe_inform.axes import Array, Bool, Float
from vmoe_inform.config import RouterConfig, options_of
from vmoe_inform.nn.router import Routing, variable_steps
from vmoe_inform.routing.steps import LOSS_STEPS, SCORE_STEPS, LossContext


def auxiliary_losses(
    routing: Routing, groups: int, *, config: RouterConfig, train: bool, real: Bool[Array, "B N"] | None = None
) -> dict[str, Float[Array, " G"]]:
    """Every auxiliary loss by name, one value per group; all look at the base logits (decision 2).

    Args:
      routing: of B images.
      groups: G; the tokens of B / G consecutive images form one group.
      config: for options of the losses and the scale of the noise.
      train: whether noise was added.
      real: False for padding, which counts in no loss; None if all tokens are real.
    """
    num_experts, k = routing.logits.shape[-1], routing.base_indices.shape[-1]
    has_noise = train and config.noise_std > 0 and routing.active is None
    # [B, N, ...] -> [G, S, ...]
    logits = routing.logits.reshape(groups, -1, num_experts)
    context = LossContext(
        logits,
        SCORE_STEPS[config.score].shares(logits),
        routing.base_indices.reshape(groups, -1, k),
        routing.noisy_logits.reshape(groups, -1, num_experts) if has_noise else None,
        config.noise_std / num_experts,
        None if real is None else real.reshape(groups, -1),
        routing.parameters,
    )
    losses = {
        name: LOSS_STEPS[name].function(context, **options_of(config, LOSS_STEPS[name]))
        for name in LOSS_STEPS
        if (has_noise or not LOSS_STEPS[name].needs_noise)
        and (name in config.losses or not LOSS_STEPS[name].needs_parameters)
    }
    # [B] -> [G]
    return losses | {name: jnp.mean(value.reshape(groups, -1), axis=-1) for name, value in routing.losses.items()}


def loss_weights(config: RouterConfig) -> dict[str, float]:
    """Weights of the losses in the objective by name, in the order in which they are added up."""
    weights = {name: options_of(config, LOSS_STEPS[name])["weight"] for name in config.losses}
    for step in variable_steps(config):
        weights |= {name: options_of(config, step)[f"{name}_weight"] for name in step.loss_names}
    return weights


def auxiliary_loss(layers: Iterable[Mapping[str, Float[Array, " G"]]], config: RouterConfig) -> Float[Array, ""]:
    """What routing adds to the objective: the weighted losses, averaged over groups and summed over layers.

    Args:
      layers: the losses of each MoE layer, as :func:`auxiliary_losses` gives them.
      config: for their weights.
    """
    total = jnp.zeros((), jnp.float32)
    for losses in layers:
        for name, weight in loss_weights(config).items():
            if weight > 0 and name in losses:
                total += weight * jnp.mean(losses[name])
    return total
