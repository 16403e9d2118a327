"""Slots: every expert takes at most C tokens of a group, and its other assignments are dropped."""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Bool, Float, Int
from vmoe_inform.dispatch.choice import current_platform

# From this number of experts on, sorting the choices is faster than counting them in a table with a column per expert.
# A TPU is slow at putting sorted numbers back (docs/performance.md).
_EXPERTS_TO_SORT = 32
_EXPERTS_TO_SORT_ON_TPUS = 512


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Assignment:
    """The experts of each token and the slots that its assignments got.

    Attributes:
      weights: weight of each expert's output; differentiable.
      indices: experts of each token, distinct within a token; E for a choice that does not exist (K still grows).
      positions: slot of the assignment within its expert's buffer; >= capacity if it got none.
      num_experts: E.
      capacity: C.
    """

    weights: Float[Array, "G S K"]
    indices: Int[Array, "G S K"]
    positions: Int[Array, "G S K"]
    num_experts: int = dataclasses.field(metadata={"static": True})
    capacity: int = dataclasses.field(metadata={"static": True})

    @property
    def kept(self) -> Bool[Array, "G S K"]:
        """True where the assignment has a slot."""
        return self.positions < self.capacity

    @property
    def taken(self) -> Float[Array, "G S E"]:
        """1 on each expert of the token, dropped ones included."""
        return jnp.sum(jax.nn.one_hot(self.indices, self.num_experts, dtype=jnp.float32), axis=-2)

    @property
    def load(self) -> Float[Array, "G S E"]:
        """Share of the token's choices that fall on each expert, dropped ones included; sums to 1, or 0 for none."""
        hits = self.taken
        return hits / jnp.maximum(jnp.sum(hits, axis=-1, keepdims=True), 1.0)

    @property
    def dropped(self) -> Float[Array, "G S"]:
        """Share of the token's choices without a slot; 0 for a token without choices."""
        exists = self.indices < self.num_experts
        without = jnp.sum((exists & ~self.kept).astype(jnp.float32), axis=-1)
        return without / jnp.maximum(jnp.sum(exists.astype(jnp.float32), axis=-1), 1.0)

    @property
    def choices(self) -> tuple[Float[Array, "G S K"], Int[Array, "G S K"]]:
        """Weights and indices of each token's experts."""
        return self.weights, self.indices

    def by_choice(self) -> tuple[Float[Array, "K T"], Int[Array, "K T"]]:
        """Weight and expert of choice k of each of the T = G S tokens; expert E for a choice that has no slot."""
        weights, indices, kept = (
            jnp.moveaxis(array, -1, 0).reshape(array.shape[-1], -1) for array in (self.weights, self.indices, self.kept)
        )
        return weights, jnp.where(kept, indices, self.num_experts)


def expert_capacity(
    group_size: int, num_experts: int, num_selected_experts: int, factor: float | None, multiple_of: int = 4
) -> int:
    """Slots of one expert for one group: ceil(S K factor / E), rounded up to a multiple (V-MoE, Sec. 2.2).

    A token takes at most one slot of an expert, so at most S slots are used. The result is at most S rounded up to the
    multiple. That is also the capacity for the factor None, with which no token is ever dropped.

    Raises:
      ValueError: an argument below 1, or factor not > 0.
    """
    for field, value in (
        ("group_size", group_size),
        ("num_experts", num_experts),
        ("num_selected_experts", num_selected_experts),
        ("multiple_of", multiple_of),
    ):
        if value < 1:
            raise checks.error(field, "an integer >= 1", value)
    if factor is None:
        return math.ceil(group_size / multiple_of) * multiple_of
    checks.positive("factor", factor)
    # In binary and in this order, as in the original V-MoE: ceil(100 * 1.1 / 2) is 56, not 55. So a checkpoint of
    # theirs drops the same tokens here.
    slots = math.ceil(group_size * num_selected_experts * factor / num_experts)
    return math.ceil(min(slots, group_size) / multiple_of) * multiple_of


def assign_slots(
    weights: Float[Array, "G S K"],
    indices: Int[Array, "G S K"],
    *,
    num_experts: int,
    capacity: int,
    priority: Float[Array, "G S"] | None = None,
    real: Bool[Array, "G S"] | None = None,
    order: Literal["choices", "tokens"] = "choices",
    num_sequences: int = 1,
) -> Assignment:
    """Hands out the slots of each group, greedily (V-MoE, Algorithms 1 and 2).

    In the order of the choices, all first choices come before all second choices. Among equal choices the token of
    larger priority comes first, then the earlier one. In the order of the tokens, all choices of a token come before
    those of later ones. The sequences of a group are served place by place. So no token depends on a later one of any
    sequence.

    Args:
      weights: [G, S, K], weights of the expert outputs.
      indices: [G, S, K], the first choice first; E for a choice that does not exist, which takes no slot.
      num_experts: E.
      capacity: C, slots of one expert for one group.
      priority: [G, S], e.g. the probability of the first choice (V-MoE's batch priority); None for none.
      real: [G, S], False for filler, which gets no slot and takes none; None if all tokens are real.
      order: ``"choices"`` (V-MoE) or ``"tokens"``, for causal models.
      num_sequences: sequences of a group, of S / num_sequences tokens each; only the order of the tokens heeds them.

    Raises:
      ValueError: num_experts or capacity below 1, shapes that do not fit, or a priority in the order of the tokens.
    """
    for field, value in (("num_experts", num_experts), ("capacity", capacity)):
        if value < 1:
            raise checks.error(field, "an integer >= 1", value)
    checks.shape("weights", weights.shape, indices.shape)
    groups, size, selected = indices.shape
    chosen = indices if real is None else jnp.where(real[..., None], indices, num_experts)
    if order == "tokens":
        if priority is not None:
            raise checks.error("priority", "None where slots are handed out in the order of the tokens", "an array")
        # [G, Q N, K] -> [G, N, Q, K]: place by place, the sequences' tokens side by side
        places = jnp.swapaxes(chosen.reshape(groups, num_sequences, -1, selected), 1, 2)
        positions = _positions(places.reshape(groups, -1), num_experts, capacity).reshape(places.shape)
        positions = jnp.swapaxes(positions, 1, 2).reshape(chosen.shape)
        return Assignment(weights, indices, positions, num_experts, capacity)
    if priority is not None:
        by_priority = jnp.argsort(-jax.lax.stop_gradient(priority), axis=-1, stable=True)
        chosen = jnp.take_along_axis(chosen, by_priority[..., None], axis=1)
    # [G, S, K] -> [G, K S]: choices in the order in which they are served
    served = jnp.swapaxes(chosen, 1, 2).reshape(groups, selected * size)
    positions = _positions(served, num_experts, capacity)
    # [G, K S] -> [G, S, K]
    positions = jnp.swapaxes(positions.reshape(groups, selected, size), 1, 2)
    if priority is not None:
        positions = jnp.take_along_axis(positions, jnp.argsort(by_priority, axis=-1)[..., None], axis=1)
    return Assignment(weights, indices, positions, num_experts, capacity)


def _positions(served: Int[Array, "G A"], num_experts: int, capacity: int) -> Int[Array, "G A"]:
    """Slots for choices in the order in which they are served; C for a choice that does not exist."""
    return jnp.where(served < num_experts, earlier_choices(served, num_experts), capacity)


def earlier_choices(experts: Int[Array, "G A"], num_experts: int) -> Int[Array, "G A"]:
    """For each entry the number of entries before it, in its row, that name the same expert.

    Args:
      experts: 0 to E; for E, which is no expert, the result means nothing.
      num_experts: E.
    """
    if num_experts < (_EXPERTS_TO_SORT_ON_TPUS if current_platform() == "tpu" else _EXPERTS_TO_SORT):
        one_hot = jax.nn.one_hot(experts, num_experts, dtype=jnp.int32)
        return jnp.sum((jnp.cumsum(one_hot, axis=1) - one_hot) * one_hot, axis=-1)
    numbers = jnp.broadcast_to(jnp.arange(experts.shape[1], dtype=experts.dtype), experts.shape)
    sorted_experts, order = jax.lax.sort((experts, numbers), dimension=1, num_keys=1, is_stable=True)
    starts = sorted_experts != jnp.roll(sorted_experts, 1, axis=1).at[:, 0].set(-1)
    first_of_run = jax.lax.cummax(jnp.where(starts, numbers, 0), axis=1)
    return jax.vmap(lambda at, rank: jnp.zeros_like(rank).at[at].set(rank, unique_indices=True))(
        order, numbers - first_of_run
    )
