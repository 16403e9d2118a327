r"""What tells a posterior that the output of a token came from the mean of a key: log-likelihoods and their scale.

The likelihood of Mutual-Inform SMoE is $\mathcal{N}(u_i \mid m_{hj}, \sigma^2 I)$. Its logarithm is
$(u_i \cdot m_{hj} - |m_{hj}|^2 / 2) / \sigma^2$ up to a constant of each row i, and the numerator is the *evidence*.
"""

from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Float
from vmoe_inform.routing.blocks import map_row_blocks
from vmoe_inform.routing.masks import MaskRows
from vmoe_inform.routing.products import float32_einsum

Normalize = Literal["none", "unit", "sqrt_dim"]
Sigma: TypeAlias = float | Literal["sqrt_dim"] | Float[Array, ""]

LEAST_VARIANCE = 1e-12  # of an estimate: the square of the smallest sigma that a config takes
_NORMALIZE = ("none", "unit", "sqrt_dim")


class Compared(NamedTuple):
    """Outputs of R tokens and means of N, in any space of C numbers where inner products are u_i . m_hj.

    Attributes:
      outputs: u_i.
      means: m_hj.
      squares: |m_hj|^2, or 0 where lengths do not count.
    """

    outputs: Float[Array, "*batch #H R C"]
    means: Float[Array, "*batch H N C"]
    squares: Float[Array, "*batch H N"]


def evidence(
    outputs: Float[Array, "*batch #H R C"], means: Float[Array, "*batch H N C"], squares: Float[Array, "*batch H N"]
) -> Float[Array, "*batch H R N"]:
    """u_i . m_hj - |m_hj|^2 / 2: the log-likelihood of u_i under N(m_hj, sigma^2), times sigma^2; |u_i|^2 cancels."""
    return float32_einsum("...hic,...hjc->...hij", outputs, means) - 0.5 * squares[..., None, :]


def squared_lengths(vectors: Float[Array, "*batch C"]) -> Float[Array, "*batch"]:
    """Of vectors along the last axis, in float32."""
    return jnp.sum(vectors.astype(jnp.float32) ** 2, axis=-1)


def variance_of(sigma: Sigma, width: int) -> float | Float[Array, ""]:
    """sigma^2, which has to fit into float32, too.

    Args:
      sigma: a number or scalar array > 0, or ``"sqrt_dim"`` for sqrt(D).
      width: D.

    Raises:
      ValueError: sigma not > 0, or another word.
    """
    if isinstance(sigma, str):
        if sigma != "sqrt_dim":
            raise checks.error("sigma", "a number > 0 or 'sqrt_dim'", sigma)
        return float(width)
    checks.positive("sigma", sigma)
    checks.positive("sigma squared", sigma * sigma)
    return sigma * sigma


def common_length(normalize: str, width: int) -> float | None:
    """The length that all outputs and means are scaled to; None: each keeps its own.

    Args:
      normalize: ``"none"``, ``"unit"`` for 1, or ``"sqrt_dim"`` for sqrt(D), as of a vector of LayerNorm.
      width: D.

    Raises:
      ValueError: another word.
    """
    if normalize not in _NORMALIZE:
        raise checks.error("normalize", f"one of {', '.join(map(repr, _NORMALIZE))}", normalize)
    return {"none": None, "unit": 1.0, "sqrt_dim": width**0.5}[normalize]


def factors_to_length(squares: Float[Array, "*batch"], length: float) -> Float[Array, "*batch"]:
    """What scales vectors of these squared lengths to a length; 0 for a zero vector, with a gradient of 0."""
    return jnp.where(squares > 0, length / jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)


def squares_at(length: float | None, squares: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Squared lengths of vectors that are scaled to a length; a zero vector stays zero."""
    return squares if length is None else jnp.where(squares > 0, length**2, 0.0)


def at_length(compared: Compared, output_squares: Float[Array, "*batch #H R"], length: float) -> Compared:
    """Outputs and means scaled to one length.

    Args:
      compared: with the squared lengths of the means.
      output_squares: |u_i|^2.
      length: of all but zero vectors.
    """
    outputs, means, squares = compared
    return Compared(
        outputs * factors_to_length(output_squares, length)[..., None],
        means * factors_to_length(squares, length)[..., None],
        squares_at(length, squares),
    )


def centered(compared: Compared, mean_outputs: Float[Array, "*batch #H #R C"]) -> Compared:
    r"""Evidence without what it says of a key for all tokens alike.

    The evidence is a part of the key alone and a part of token and key:

    $$u_i \cdot m_{hj} - \frac{|m_{hj}|^2}{2} = (u_i - \bar u) \cdot m_{hj} +
    \Bigl( \bar u \cdot m_{hj} - \frac{|m_{hj}|^2}{2} \Bigr)$$

    With the mean output of all tokens, the right part is the mean of the evidence over the tokens. It is
    $(|\bar u|^2 - |\bar u - m_{hj}|^2) / 2$, so that it favours the key nearest to the mean output in every row. What
    is left has the mean 0 for each key: it says how much better a key explains token i than it explains the others.

    Args:
      compared: outputs and means.
      mean_outputs: of the tokens that each token may know.
    """
    return Compared(compared.outputs - mean_outputs, compared.means, jnp.zeros_like(compared.squares))


def mean_over_known(
    vectors: Float[Array, "*batch N C"], mask_rows: MaskRows, block_size: int | None
) -> Float[Array, "*batch #R C"]:
    """Mean of the vectors of the tokens that each of R tokens may know; one row if all may know all."""
    vectors = vectors.astype(jnp.float32)
    num_rows, num_tokens = mask_rows.positions.shape[-2], vectors.shape[-2]
    if not mask_rows.causal and mask_rows.given is None:
        return jnp.mean(vectors, axis=-2, keepdims=True)
    if mask_rows.causal and num_rows == num_tokens:
        places = jax.lax.broadcasted_iota(jnp.float32, vectors.shape, vectors.ndim - 2)
        return jnp.cumsum(vectors, axis=-2) / (places + 1.0)

    def means(mask_rows: MaskRows) -> Float[Array, "*batch R C"]:
        allowed = mask_rows.allowed((*vectors.shape[:-2], mask_rows.positions.shape[-2], num_tokens))
        assert allowed is not None  # there is a mask
        return float32_einsum("...ij,...jc->...ic", allowed, vectors) / jnp.sum(allowed, axis=-1, keepdims=True)

    return map_row_blocks(means, mask_rows, block_size=block_size)
