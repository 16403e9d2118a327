"""Scores: tokens -> logits over experts."""

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Float
from vmoe_inform.routing.products import float32_einsum, unit_vectors
from vmoe_inform.routing.steps import LayerSizes, Parameter, register_score


def linear_scores(
    tokens: Float[Array, "*batch N D"],
    kernel: Float[Array, "D E"],
    bias: Float[Array, " E"] | None = None,
) -> Float[Array, "*batch N E"]:
    """Linear router (V-MoE, arXiv 2106.05974, Eq. 2, without bias; SMoE of 003, Sec. 1.2, with bias).

    Args:
      tokens: [..., N, D].
      kernel: [D, E].
      bias: [E] or None.

    Returns:
      logits [..., N, E], float32, whatever the type of the tokens.

    Raises:
      ValueError: a kernel or bias whose shape does not fit.
    """
    checks.shape("kernel", kernel.shape, (tokens.shape[-1], "E"))
    if bias is not None:
        checks.shape("bias", bias.shape, kernel.shape[-1:])
    logits = float32_einsum("...nd,de->...ne", tokens, kernel)
    return logits if bias is None else logits + jnp.broadcast_to(bias.astype(jnp.float32), logits.shape)


def cosine_scores(
    tokens: Float[Array, "*batch N D"],
    projection: Float[Array, "D d"],
    expert_embeddings: Float[Array, "E d"],
    temperature: float | Float[Array, ""],
) -> Float[Array, "*batch N E"]:
    """Cosine router (X-MoE, arXiv 2204.09179, Eq. 4): cos(P u_i, e_k) / temperature.

    Args:
      tokens: [..., N, D].
      projection: [D, d], to the low dimension d in which experts have their embeddings.
      expert_embeddings: [E, d].
      temperature: number or scalar array > 0.

    Returns:
      logits [..., N, E], float32; a token whose projection is zero has zero logits.

    Raises:
      ValueError: if temperature is a number that is not > 0, or shapes do not fit.
    """
    checks.positive("temperature", temperature)
    checks.shape("projection", projection.shape, (tokens.shape[-1], "d"))
    checks.shape("expert_embeddings", expert_embeddings.shape, ("E", projection.shape[-1]))
    projected = linear_scores(tokens, projection)
    embeddings = unit_vectors(expert_embeddings)
    cosines = float32_einsum("...nd,ed->...ne", unit_vectors(projected), embeddings)
    return cosines / temperature


def _linear_parameters(sizes: LayerSizes, *, bias: bool) -> dict[str, Parameter]:
    parameters = {"kernel": Parameter((sizes.hidden_size, sizes.num_experts), jax.nn.initializers.lecun_normal())}
    if bias:
        parameters["bias"] = Parameter((sizes.num_experts,), jax.nn.initializers.zeros)
    return parameters


@register_score("linear", parameters=_linear_parameters)
def linear_step(
    tokens: Float[Array, "*batch N D"], parameters: dict[str, Array], *, bias: bool = False
) -> Float[Array, "*batch N E"]:
    """The learned linear router of V-MoE; ``bias=True`` is the SMoE of the papers."""
    return linear_scores(tokens, parameters["kernel"], parameters["bias"] if bias else None)
