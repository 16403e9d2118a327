"""Slots that choose tokens: every slot of every expert holds one token, and a token may be in any number of them."""

import dataclasses

import jax
import jax.numpy as jnp

from vmoe_inform.axes import Array, Bool, ExpertFunction, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SlotChoice:
    """The token in each slot of each expert.

    Attributes:
      tokens: index of the token in the slot; distinct within an expert.
      slot_weights: weight of the slot's output; differentiable.
      filled: False for a slot that holds no token.
      size: S.
      k: K, choices by which a token's experts are listed in ``indices``.
    """

    tokens: Int[Array, "G E C"]
    slot_weights: Float[Array, "G E C"]
    filled: Bool[Array, "G E C"]
    size: int = dataclasses.field(metadata={"static": True})
    k: int = dataclasses.field(metadata={"static": True})

    def _of_tokens(self, values: Float[Array, "G E C"]) -> Float[Array, "G S E"]:
        """Numbers of slots, written where their tokens and experts meet."""
        groups, experts, _ = values.shape
        group, expert = jnp.arange(groups)[:, None, None], jnp.arange(experts)[None, :, None]
        table = jnp.zeros((groups, self.size, experts), values.dtype)
        return table.at[group, self.tokens, expert].add(jnp.where(self.filled, values, 0.0))

    @property
    def load(self) -> Float[Array, "G S E"]:
        """1 where an expert took the token."""
        return self._of_tokens(jnp.ones_like(self.slot_weights))

    @property
    def dropped(self) -> Float[Array, "G S"]:
        """1 for a token that no expert took."""
        return 1.0 - jnp.max(self.load, axis=-1)

    @property
    def choices(self) -> tuple[Float[Array, "G S K"], Int[Array, "G S K"]]:
        """Weights and indices of the K experts of largest weight that took the token; E, with weight 0, for none."""
        taken = self.load > 0
        weights, indices = jax.lax.top_k(jnp.where(taken, self._of_tokens(self.slot_weights), -1.0), self.k)
        return jnp.maximum(weights, 0.0), jnp.where(weights >= 0, indices, taken.shape[-1])


def dispatch_slots(tokens: Float[Array, "G S D"], choice: SlotChoice, experts: ExpertFunction) -> Float[Array, "G S D"]:
    """Gathers each slot's token, and adds the slots' outputs up where their tokens are."""
    groups, num_experts, capacity = choice.tokens.shape
    index = choice.tokens.reshape(groups, -1, 1)
    filled = choice.filled.reshape(groups, -1, 1)
    rows = jnp.where(filled, jnp.take_along_axis(tokens, index, axis=1), jnp.zeros((), tokens.dtype))
    # [G, E * C, D] -> [E, G, C, D]
    inputs = jnp.swapaxes(rows.reshape(groups, num_experts, capacity, -1), 0, 1)
    outputs = jnp.swapaxes(experts(inputs), 0, 1).reshape(groups, num_experts * capacity, -1)
    weights = jnp.where(filled, choice.slot_weights.reshape(groups, -1, 1), 0.0).astype(outputs.dtype)
    group = jnp.arange(groups)[:, None]
    return jnp.zeros_like(tokens, outputs.dtype).at[group, index[..., 0]].add(weights * outputs)
