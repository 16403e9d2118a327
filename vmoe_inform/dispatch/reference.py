"""The obvious dispatcher: every expert processes every token, and weights of zero remove what was not assigned."""

import jax
import jax.numpy as jnp

from vmoe_inform.axes import Array, ExpertFunction, Float
from vmoe_inform.dispatch.capacity import Assignment


def dispatch_reference(
    tokens: Float[Array, "G S D"], assignment: Assignment, experts: ExpertFunction
) -> Float[Array, "G S D"]:
    """Costs E / K times the useful work; what the other dispatchers are tested against."""
    weights = jnp.where(assignment.kept, assignment.weights, 0.0)
    one_hot = jax.nn.one_hot(assignment.indices, assignment.num_experts, dtype=weights.dtype)
    per_expert = jnp.einsum("gsk,gske->gse", weights, one_hot)
    outputs = experts(jnp.broadcast_to(tokens, (assignment.num_experts, *tokens.shape)))
    return jnp.einsum("gse,egsd->gsd", per_expert.astype(outputs.dtype), outputs)
