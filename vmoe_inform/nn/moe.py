"""The sparse MoE layer: route, hand out slots, move tokens to experts and back."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Bool, Float
from vmoe_inform.config import ModelConfig
from vmoe_inform.dispatch import Plan, carry_out, expert_capacity
from vmoe_inform.nn.mlp import Experts
from vmoe_inform.nn.router import TRACE, Router, Routing, Surroundings, auxiliary_losses, select_experts
from vmoe_inform.routing import routing_entropy
from vmoe_inform.routing.steps import SELECT_STEPS, PreviousLayer


class MoeLayer(nn.Module):
    """Replaces the MLP of a block (V-MoE, arXiv 2106.05974, Sec. 2).

    While the collection ``intermediates`` is mutable, the layer leaves there what analysis looks at: the ``routing``
    (:class:`vmoe_inform.nn.router.Routing`), ``weights`` and ``indices`` [B, N, K] of the chosen experts (E: none), the
    ``load`` that a token puts on each expert [B, N, E] and the share of it that is ``dropped`` [B, N].

    Attributes:
      config: of the model.
      ordinal: of this layer among the MoE layers, from 0.
    """

    config: ModelConfig
    ordinal: int = 0

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "B N D"],
        around: Surroundings,
        *,
        train: bool,
        image_mask: Bool[Array, " B"] | None = None,
    ) -> tuple[Float[Array, "B N D"], dict[str, Any], PreviousLayer]:
        """Applies the chosen experts to every token.

        Args:
          tokens: [B, N, D]; B must be a multiple of the images of a group.
          around: what the router may need besides.
          train: noise, dropout, training capacity, and updates of the router's state.
          image_mask: False for filler images, whose tokens take no slots; None if all are real.

        Returns:
          outputs [B, N, D]; metrics: ``losses`` by name [G], ``load`` [E] (share of the choices before dropping),
          ``dropped`` (share of the choices without a slot; of the tokens, where experts choose), ``entropy`` (mean of
          the informed probabilities, nats); and what the next MoE layer may know.

        Raises:
          ValueError: the group size does not divide the batch.
        """
        config, moe = self.config, self.config.moe
        batch, num_tokens, width = tokens.shape
        if batch % moe.group_size_images:
            raise checks.error(
                "batch size", f"a multiple of model.moe.group_size_images = {moe.group_size_images}", batch
            )
        routing = Router(config.router, config.layer_sizes, self.ordinal, name="router")(tokens, around, train=train)

        # [B, N, ...] -> [G, S, ...]: the tokens of consecutive images share their experts' slots
        groups, size = batch // moe.group_size_images, moe.group_size_images * num_tokens
        factor = moe.capacity_factor if train else moe.capacity_factor_evaluation
        multiple_of = moe.capacity_multiple_of
        if SELECT_STEPS[config.router.select].fills_slots:
            factor, multiple_of = 1.0, 1  # those are room for uneven loads, and there are none
        k = routing.base_indices.shape[-1]
        plan = select_experts(
            routing,
            config=config.router,
            capacity=expert_capacity(size, moe.num_experts, k, factor, multiple_of),
            groups=groups,
            train=train,
            batch_priority=moe.batch_priority,
            real=None if image_mask is None else jnp.repeat(image_mask, num_tokens).reshape(groups, size),
        )
        experts = Experts(
            moe.num_experts, config.mlp_size, moe.expert_dropout_rate, jnp.dtype(config.dtype), name="experts"
        )
        outputs = carry_out(
            tokens.reshape(groups, size, width),
            plan,
            lambda rows: experts(rows, train=train),
            dispatcher=moe.dispatch,
        )
        if self.is_mutable_collection(TRACE):
            self._leave_trace(routing, plan, (batch, num_tokens))
        load = jnp.sum(plan.load, axis=(0, 1))
        metrics = {
            "losses": auxiliary_losses(routing, groups, config=config.router, train=train),
            "load": load / jnp.sum(load),
            "dropped": jnp.mean(plan.dropped),
            "entropy": jnp.mean(routing_entropy(routing.informed)),
        }
        return outputs.reshape(tokens.shape), metrics, routing.previous()

    def _leave_trace(self, routing: Routing, plan: Plan, shape: tuple[int, int]) -> None:
        weights, indices = plan.choices
        found = {
            "routing": routing,
            # [G, S, ...] -> [B, N, ...]
            "weights": weights.reshape(*shape, -1),
            "indices": indices.reshape(*shape, -1),
            "load": plan.load.reshape(*shape, -1),
            "dropped": plan.dropped.reshape(shape),
        }
        for name, value in found.items():
            self.sow(TRACE, name, value, reduce_fn=_last)


def _last(_: Any, new: Any) -> Any:
    """``sow`` keeps a tuple of all calls by default; a layer is called once."""
    return new
