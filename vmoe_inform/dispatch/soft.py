"""Soft slots: every slot holds a mixture of all tokens of an image, every token gets a mixture of all slots."""

import dataclasses

import jax
import jax.numpy as jnp

from vmoe_inform.axes import Array, ExpertFunction, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SoftSlots:
    """How much of each token is in each slot, and of each slot in each token's output (Soft MoE, arXiv 2308.00951).

    Attributes:
      into: share of token n in slot (e, p); sums to 1 over the tokens of an image.
      out_of: share of slot (e, p) in the output of token n; sums to 1 over the slots.
      groups: G; the tokens of B / G consecutive sequences form one group.
      k: K, choices by which a token's experts are listed in ``indices``.
    """

    into: Float[Array, "B N E P"]
    out_of: Float[Array, "B N E P"]
    groups: int = dataclasses.field(metadata={"static": True})
    k: int = dataclasses.field(metadata={"static": True})

    @property
    def load(self) -> Float[Array, "G S E"]:
        """Share of each expert in the output of the token."""
        # [B, N, E, P] -> [B, N, E] -> [G, S, E]
        shares = jnp.sum(self.out_of, axis=-1)
        return shares.reshape(self.groups, -1, shares.shape[-1])

    @property
    def dropped(self) -> Float[Array, "G S"]:
        """0: nothing is dropped."""
        return jnp.zeros(self.load.shape[:-1], jnp.float32)

    @property
    def choices(self) -> tuple[Float[Array, "G S K"], Int[Array, "G S K"]]:
        """Shares and indices of the K experts of largest share."""
        shares, indices = jax.lax.top_k(self.load, self.k)
        return shares, indices


def dispatch_soft(tokens: Float[Array, "G S D"], plan: SoftSlots, experts: ExpertFunction) -> Float[Array, "G S D"]:
    """Mixes tokens into slots and slots' outputs into tokens (Soft MoE, Eq. 1 to 3)."""
    images, num_tokens = plan.into.shape[:2]
    rows = tokens.reshape(images, num_tokens, -1)  # [G, S, D] -> [B, N, D]
    inputs = jnp.einsum("bnep,bnd->ebpd", plan.into.astype(rows.dtype), rows)
    outputs = experts(inputs)
    return jnp.einsum("bnep,ebpd->bnd", plan.out_of.astype(outputs.dtype), outputs).reshape(tokens.shape)
