"""One-hot dispatch and combine (GShard, arXiv 2006.16668): matrix products only; cost per token grows with S."""

import jax
import jax.numpy as jnp

from vmoe_inform.axes import Array, ExpertFunction, Float
from vmoe_inform.dispatch.capacity import Assignment


def dispatch_einsum(
    tokens: Float[Array, "G S D"], assignment: Assignment, experts: ExpertFunction
) -> Float[Array, "G S D"]:
    """Moves tokens by products with a [G, S, E, C] one-hot tensor."""
    expert = jax.nn.one_hot(assignment.indices, assignment.num_experts, dtype=tokens.dtype)
    # A position without a slot is >= C, which one_hot maps to zeros: dropped assignments contribute nothing.
    slot = jax.nn.one_hot(assignment.positions, assignment.capacity, dtype=tokens.dtype)
    dispatch = jnp.einsum("gske,gskc->gsec", expert, slot)
    combine = jnp.einsum("gsk,gske,gskc->gsec", assignment.weights.astype(tokens.dtype), expert, slot)
    outputs = experts(jnp.einsum("gsec,gsd->egcd", dispatch, tokens))
    return jnp.einsum("gsec,egcd->gsd", combine, outputs)
