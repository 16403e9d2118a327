"""Eigen-router (EMoE, arXiv 2601.12137): tokens by the shares of their energy along a learned orthonormal basis."""

from typing import Any

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Float
from vmoe_inform.routing.products import float32_einsum
from vmoe_inform.routing.steps import LayerSizes, Parameter, StepContext, register_score

_RANK = 128  # of the basis, as in the authors' code
_LEAST = 1e-6


def orthonormal_basis(basis: Float[Array, "*batch D R"]) -> Float[Array, "*batch D R"]:
    """The columns made orthonormal one after the other: Q of the QR decomposition, by Cholesky.

    Args:
      basis: [..., D, R], R at most D, of full rank.
    """
    basis = basis.astype(jnp.float32)
    products = float32_einsum("...dr,...ds->...rs", basis, basis)
    mean = jnp.trace(products, axis1=-2, axis2=-1)[..., None, None] / products.shape[-1]
    ridge = jnp.broadcast_to(_LEAST * mean + jnp.finfo(jnp.float32).tiny, products.shape)
    lower = jnp.linalg.cholesky(products + ridge * jnp.broadcast_to(jnp.eye(products.shape[-1]), products.shape))
    # Q = B L^-T
    return jax.lax.linalg.triangular_solve(lower, basis, left_side=False, lower=True, transpose_a=True)


def eigenbasis_scores(
    tokens: Float[Array, "*batch N D"],
    basis: Float[Array, "D R"],
    gains: Float[Array, " R"],
    masks: Float[Array, "E R"],
    bias: Float[Array, " E"],
    *,
    temperature: float = 1.0,
) -> Float[Array, "*batch N E"]:
    r"""Logits of EMoE's eigen-router (arXiv 2601.12137; formula of the authors' code, Belis0811/EMoE).

    $$\ell_{ik} = \frac{1}{\tau} \Big( b_k + \sum_r \epsilon_{ir} \gamma_r m_{kr} \Big), \quad
    \epsilon_{ir} = \frac{(q_r \cdot u_i)^2}{\sum_s (q_s \cdot u_i)^2}, \quad
    m_{kr} = \frac{e^{a_{kr}}}{\sum_j e^{a_{jr}}}$$

    q are the orthonormal columns of the basis.

    Args:
      tokens: u [..., N, D].
      basis: [D, R], whose columns are made orthonormal here.
      gains: gamma [R].
      masks: a [E, R].
      bias: b [E].
      temperature: tau > 0.

    Returns:
      logits [..., N, E], float32.

    Raises:
      ValueError: shapes that do not fit, or a temperature that is not > 0.
    """
    checks.positive("temperature", temperature)
    width, rank = basis.shape
    checks.shape("basis", basis.shape, (tokens.shape[-1], "R"))
    if rank > width:
        raise checks.error("basis", f"at most {width} columns, of the width of the tokens", rank)
    checks.shape("gains", gains.shape, (rank,))
    checks.shape("masks", masks.shape, ("E", rank))
    checks.shape("bias", bias.shape, masks.shape[:1])
    along = float32_einsum("...nd,dr->...nr", tokens, orthonormal_basis(basis))
    # Scaled before the square, which for large or small tokens float32 does not hold
    scale = jax.lax.stop_gradient(jnp.max(jnp.abs(along), axis=-1, keepdims=True))
    energies = (along / jnp.where(scale > 0, scale, 1.0)) ** 2
    energies = energies / (jnp.sum(energies, axis=-1, keepdims=True) + _LEAST)
    weights = jax.nn.softmax(masks.astype(jnp.float32), axis=0) * jnp.broadcast_to(gains, masks.shape)
    logits = float32_einsum("...nr,er->...ne", energies, weights)
    return (logits + jnp.broadcast_to(bias.astype(jnp.float32), logits.shape)) / temperature


def _rank(sizes: LayerSizes, rank: int | None) -> int:
    return min(_RANK, sizes.hidden_size) if rank is None else rank


def _parameters(sizes: LayerSizes, *, rank: int | None, **options: Any) -> dict[str, Parameter]:
    directions = _rank(sizes, rank)
    return {
        "basis": Parameter((sizes.hidden_size, directions), jax.nn.initializers.orthogonal()),
        "gains": Parameter((directions,), jax.nn.initializers.ones),
        "masks": Parameter((sizes.num_experts, directions), jax.nn.initializers.normal(1.0)),
        "bias": Parameter((sizes.num_experts,), jax.nn.initializers.zeros),
    }


def _check(sizes: LayerSizes, *, rank: int | None, **options: Any) -> None:
    if _rank(sizes, rank) > sizes.hidden_size:
        raise checks.error("rank", f"at most model.hidden_size = {sizes.hidden_size}", rank)


@register_score("eigenbasis", parameters=_parameters, check=_check)
def eigenbasis_step(
    context: StepContext, *, rank: checks.Width | None = None, temperature: checks.Scale = 1.0
) -> Float[Array, "B N E"]:
    """Scores by a token's energy along a learned orthonormal basis (the eigen-router of EMoE, arXiv 2601.12137).

    ``rank`` is the number of directions, by default 128 or the width. The authors' code replaces the basis by its Q of
    QR before each step and adds a penalty, which is then 0. Here that Q is part of the function, which gradients pass.
    """
    parameters = context.parameters
    names = ("basis", "gains", "masks", "bias")
    return eigenbasis_scores(context.tokens, *(parameters[name] for name in names), temperature=temperature)
