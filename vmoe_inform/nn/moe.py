"""The sparse MoE layer: route, hand out slots, move tokens to experts and back."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from absl import logging

from vmoe_inform import checks
from vmoe_inform.axes import Array, Bool, Float
from vmoe_inform.config import ModelConfig
from vmoe_inform.dispatch import (
    NEED_ALL_EXPERTS,
    Assignment,
    Plan,
    carry_out,
    choose_dispatcher,
    current_platform,
    expert_capacity,
    grouped,
)
from vmoe_inform.nn.auxiliary_losses import auxiliary_losses
from vmoe_inform.nn.mlp import ExpertParameters, Experts, apply_experts, apply_shared_experts
from vmoe_inform.nn.router import (
    TRACE,
    Router,
    Routing,
    Selection,
    Surroundings,
    without_padding,
)
from vmoe_inform.routing import routing_entropy
from vmoe_inform.routing.stats import mean_over_tokens
from vmoe_inform.routing.steps import SELECT_STEPS, PreviousLayer
from vmoe_inform.sharding.mesh import AXES, EXPERT, axis_size, on_each_device


class MoeLayer(nn.Module):
    """Replaces the MLP of a block (V-MoE, arXiv 2106.05974, Sec. 2).

    While the collection ``intermediates`` is mutable, the layer stores there what analysis reads:

    - ``routing`` (:class:`vmoe_inform.nn.router.Routing`);
    - ``weights`` and ``indices`` [B, N, K] of the chosen experts (E: none);
    - ``load`` [B, N, E] of a token on each expert, and the share of it that is ``dropped`` [B, N]. It is 1 for each
      expert where tokens take any number;
    - ``preferences`` [B, N, E], of which every token takes its K largest, where tokens do.

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
        real: Bool[Array, "B #N"] | None = None,
    ) -> tuple[Float[Array, "B N D"], dict[str, Any], PreviousLayer]:
        """Applies the chosen experts to every token.

        Args:
          tokens: [B, N, D]; B must be a multiple of the sequences of a group.
          around: what the router may need besides.
          train: noise, dropout and training capacity.
          real: False for filler, sequence by sequence or token by token, which takes no slots; None if all are real.

        Returns:
          outputs [B, N, D], those of shared experts included; metrics, all of them without padding; and what the next
          MoE layer may know. The metrics are ``losses`` by name [G], and ``load`` [E] (share of the choices before
          dropping). Besides, ``dropped`` (share of the choices without a slot; of the tokens, where experts choose),
          ``entropy`` (mean of the informed probabilities, nats), and ``experts_per_token``, where it is not fixed.

        Raises:
          ValueError: the group size does not divide the batch.
        """
        config, moe = self.config, self.config.moe
        batch, num_tokens, width = tokens.shape
        if batch % moe.group_size_sequences:
            raise checks.error(
                "batch size", f"a multiple of model.moe.group_size_sequences = {moe.group_size_sequences}", batch
            )
        no_padding = without_padding(real)
        router = Router(config.router, config.layer_sizes, self.ordinal, name="router")
        routing = router(tokens, around, train=train, real=no_padding)

        # [B, N, ...] -> [G, S, ...]: the tokens of consecutive sequences share their experts' slots
        groups, size = batch // moe.group_size_sequences, moe.group_size_sequences * num_tokens
        factor = moe.capacity_factor if train else moe.capacity_factor_evaluation
        multiple_of = moe.capacity_multiple_of
        if SELECT_STEPS[config.router.select].fills_slots:
            factor, multiple_of = 1.0, 1  # those are room for uneven loads, and there are none
        k = routing.base_indices.shape[-1]
        selection = router.select(
            routing,
            capacity=expert_capacity(size, moe.num_experts, k, factor, multiple_of),
            groups=groups,
            train=train,
            batch_priority=moe.batch_priority,
            real=None if real is None else jnp.broadcast_to(real, tokens.shape[:2]).reshape(groups, size),
        )
        plan = selection.plan
        outputs = self._work(tokens.reshape(groups, size, width), plan, train=train, drops=factor is not None)
        outputs = outputs.reshape(tokens.shape)
        if moe.shared_experts:
            outputs = outputs + self._shared(tokens, train=train)
        load, number = plan.load, {}
        if isinstance(plan, Assignment) and selection.preferences is None:  # tokens take any number of experts
            load, number = plan.taken, {"experts_per_token": _experts_per_token(plan, no_padding)}
        if self.is_mutable_collection(TRACE):
            self._leave_trace(routing, selection, load, (batch, num_tokens))
        losses = auxiliary_losses(routing, groups, config=config.router, train=train, real=no_padding)
        metrics = {
            "losses": {**losses, **selection.losses},
            **_metrics(routing, plan, load, no_padding),
            **number,
        }
        return outputs, metrics, routing.previous()

    def _shared(self, tokens: Float[Array, "B N D"], *, train: bool) -> Float[Array, "B N D"]:
        """What the experts that every token meets give."""
        config, moe = self.config, self.config.moe
        return apply_shared_experts(
            Experts(moe.shared_experts, tokens.shape[-1], config.mlp_size, name="shared")(),
            tokens,
            dtype=jnp.dtype(config.dtype),
            activation=config.activation,
            dropout_rate=moe.expert_dropout_rate,
            dropout_key=self.make_rng("dropout") if train and moe.expert_dropout_rate > 0 else None,
        )

    def _work(self, tokens: Float[Array, "G S D"], plan: Plan, *, train: bool, drops: bool) -> Float[Array, "G S D"]:
        """Carries the plan out with this layer's experts."""
        config, moe = self.config, self.config.moe
        parameters = Experts(moe.num_experts, tokens.shape[-1], config.mlp_size, name="experts")()
        dropout_key = self.make_rng("dropout") if train and moe.expert_dropout_rate > 0 else None
        dispatcher = moe.dispatch if moe.dispatch != "auto" else self._choose(plan, drops)

        def work(parameters: ExpertParameters, tokens: Array, plan: Plan, keys: Array | None = None) -> Array:
            def experts(*rows: Array) -> Array:
                return apply_experts(
                    parameters,
                    *rows,
                    dtype=jnp.dtype(config.dtype),
                    activation=config.activation,
                    dropout_rate=moe.expert_dropout_rate,
                    dropout_key=None if keys is None else keys[0],
                    # Parameters are made with a single group, which no mesh divides.
                    implementation="xla" if self.is_initializing() else moe.expert_mlp,
                )

            return carry_out(tokens, plan, experts, dispatcher=dispatcher)

        keys = None if dropout_key is None else jax.random.split(dropout_key, axis_size(*AXES))
        if dispatcher in NEED_ALL_EXPERTS and isinstance(plan, Assignment) and not self.is_initializing():
            # Every device has all experts, and sorts its own tokens only. (Parameters are made with a single group.)
            return on_each_device(work, parameters, tokens, plan, *([] if keys is None else [keys]))
        return work(parameters, tokens, plan, keys)

    def _choose(self, plan: Plan, drops: bool) -> str:
        """What ``auto`` means here; the log says so once a trace."""
        if not isinstance(plan, Assignment):
            return "gather"  # the other kinds of plan have one way each
        name, reason = choose_dispatcher(
            current_platform(),
            num_choices=plan.indices.shape[1] * plan.indices.shape[2],
            num_groups=-(-plan.indices.shape[0] // axis_size(*AXES)),
            num_experts=plan.num_experts,
            capacity=plan.capacity,
            kernel_size=self.config.hidden_size * self.config.mlp_size,
            expert_devices=axis_size(EXPERT),
            drops=drops,
            grouped_kernels=grouped.has_kernels(self.config.dtype, self.config.hidden_size, self.config.mlp_size),
        )
        logging.info("%s: dispatch 'auto' is %r: %s", "/".join(self.path), name, reason)
        return name

    def _leave_trace(
        self, routing: Routing, selection: Selection, load: Float[Array, "G S E"], shape: tuple[int, int]
    ) -> None:
        plan = selection.plan
        weights, indices = plan.choices
        found = {
            "routing": routing,
            # [G, S, ...] -> [B, N, ...]
            "weights": weights.reshape(*shape, -1),
            "indices": indices.reshape(*shape, -1),
            "load": load.reshape(*shape, -1),
            "dropped": plan.dropped.reshape(shape),
        }
        if selection.preferences is not None:
            found["preferences"] = selection.preferences
        for name, value in found.items():
            self.sow(TRACE, name, value, reduce_fn=_last)


def _metrics(
    routing: Routing, plan: Plan, load: Float[Array, "G S E"], real: Bool[Array, "B N"] | None
) -> dict[str, Array]:
    """Load, dropped choices and entropy of the real tokens; those of all if ``real`` is None."""
    entropy = routing_entropy(routing.informed)
    dropped = plan.dropped
    if real is not None:
        load = jnp.where(real.reshape(dropped.shape)[..., None], load, 0.0)
        dropped, entropy = (
            mean_over_tokens(of_tokens.reshape(-1), real.reshape(-1), axis=0) for of_tokens in (dropped, entropy)
        )
    load = jnp.sum(load, axis=(0, 1))
    total = jnp.sum(load)
    return {"load": load / jnp.where(total > 0, total, 1.0), "dropped": jnp.mean(dropped), "entropy": jnp.mean(entropy)}


def _experts_per_token(plan: Assignment, real: Bool[Array, "B N"] | None) -> Array:
    """Mean number of choices of the real tokens, with a slot or without."""
    choices = jnp.sum(plan.taken, axis=-1)
    return mean_over_tokens(choices.reshape(-1), None if real is None else real.reshape(-1), axis=0)


def _last(_: Any, new: Any) -> Any:
    """``sow`` keeps a tuple of all calls by default; a layer is called once."""
    return new
