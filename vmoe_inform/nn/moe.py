"""The sparse MoE layer: route, hand out slots, move tokens to experts and back."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Bool, Float
from vmoe_inform.config import ModelConfig
from vmoe_inform.dispatch import DISPATCHERS, assign_slots, expert_capacity
from vmoe_inform.nn.mlp import Experts
from vmoe_inform.nn.router import TRACE, Router, auxiliary_losses
from vmoe_inform.routing import expert_load, routing_entropy
from vmoe_inform.routing.steps import AttentionRecord


class MoeLayer(nn.Module):
    """Replaces the MLP of a block (V-MoE, arXiv 2106.05974, Sec. 2).

    While the collection ``intermediates`` is mutable, the layer leaves there what analysis looks at: the ``routing``,
    the ``kept`` mask of assignments [B, N, K] and, if tokens informed each other, their ``graph`` [B, N, N].
    """

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "B N D"],
        attention: AttentionRecord | None,
        *,
        train: bool,
        image_mask: Bool[Array, " B"] | None = None,
    ) -> tuple[Float[Array, "B N D"], dict[str, Any]]:
        """Applies the chosen experts to every token.

        Args:
          tokens: [B, N, D]; B must be a multiple of the images of a group.
          attention: record of the block's attention, if the router needs it.
          train: noise, dropout, training capacity, and updates of the router's state.
          image_mask: False for filler images, whose tokens take no slots; None if all are real.

        Returns:
          outputs [B, N, D], and metrics: ``losses`` by name [G], ``load`` [E] (share of assignments before
          dropping), ``dropped`` (share of assignments without a slot), ``entropy`` (mean of the informed
          probabilities, nats).

        Raises:
          ValueError: the group size does not divide the batch.
        """
        config, moe = self.config, self.config.moe
        batch, num_tokens, width = tokens.shape
        if batch % moe.group_size_images:
            raise checks.error(
                "batch size", f"a multiple of model.moe.group_size_images = {moe.group_size_images}", batch
            )
        router = Router(config.router, moe.num_experts, moe.num_selected_experts, name="router")
        routing, graph = router(tokens, attention, train=train)

        # [B, N, ...] -> [G, S, ...]: the tokens of consecutive images share their experts' slots
        groups, size = batch // moe.group_size_images, moe.group_size_images * num_tokens
        factor = moe.capacity_factor if train else moe.capacity_factor_evaluation
        assignment = assign_slots(
            routing.weights.reshape(groups, size, -1),
            routing.indices.reshape(groups, size, -1),
            num_experts=moe.num_experts,
            capacity=expert_capacity(size, moe.num_experts, moe.num_selected_experts, factor, moe.capacity_multiple_of),
            # Informed probabilities (decision 5): the weights may have been renormalised.
            priority=jnp.max(routing.informed, axis=-1).reshape(groups, size) if moe.batch_priority else None,
            real=None if image_mask is None else jnp.repeat(image_mask, num_tokens).reshape(groups, size),
        )
        experts = Experts(
            moe.num_experts, config.mlp_size, moe.expert_dropout_rate, jnp.dtype(config.dtype), name="experts"
        )
        outputs = DISPATCHERS[moe.dispatch](
            tokens.reshape(groups, size, width), assignment, lambda rows: experts(rows, train=train)
        )
        self.sow(TRACE, "routing", routing, reduce_fn=_last)
        self.sow(TRACE, "kept", assignment.kept.reshape(routing.indices.shape), reduce_fn=_last)
        if graph is not None:
            self.sow(TRACE, "graph", graph, reduce_fn=_last)
        metrics = {
            "losses": auxiliary_losses(routing, groups, config=config.router, k=moe.num_selected_experts, train=train),
            "load": expert_load(routing.indices, moe.num_experts),
            "dropped": 1.0 - jnp.mean(assignment.kept.astype(jnp.float32)),
            "entropy": jnp.mean(routing_entropy(routing.informed)),
        }
        return outputs.reshape(tokens.shape), metrics


def _last(_: Any, new: Any) -> Any:
    """``sow`` keeps a tuple of all calls by default; a layer is called once."""
    return new
