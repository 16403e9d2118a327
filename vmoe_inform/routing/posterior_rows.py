"""The rows of a posterior over heads and keys, in blocks: what the public functions and the inform step share.

Products of outputs and means may be in any space; the layer computes them in the space of a head.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vmoe_inform.axes import Array, Bool, Float, Int, Tree
from vmoe_inform.routing.blocks import map_row_blocks
from vmoe_inform.routing.evidence import Compared, evidence
from vmoe_inform.routing.graphs import mix, weights_of_scaled
from vmoe_inform.routing.masks import GivenMask, MaskRows, map_rows_of_graph, rows_of_mask
from vmoe_inform.routing.products import float32_einsum
from vmoe_inform.routing.stats import softmax_entropy


class RowsOfHeads(NamedTuple):
    """What attention heads know of R tokens that attend to others: all H heads, or the only one that counts.

    Attributes:
      queries: unscaled.
      outputs: in any space of C numbers where their inner product with the means is u_i . m_hj.
      relative_keys: what is added to the key of a token that is 1, 2, ... P before; None for nothing.
    """

    queries: Float[Array, "*batch H R F"]
    outputs: Float[Array, "*batch #H R C"]
    relative_keys: Float[Array, "P F"] | None = None

    @property
    def span(self) -> int | None:
        """P; None where keys are not relative."""
        return None if self.relative_keys is None else self.relative_keys.shape[0]

    def mask_rows(self, mask: GivenMask) -> MaskRows:
        """Which tokens all tokens may attend to: those of the mask, or the P before where keys are relative."""
        return rows_of_mask(mask, self.queries.shape[-2], self.span)


class ColumnsOfHeads(NamedTuple):
    """What the same heads know of the N tokens that are attended to.

    Attributes:
      keys: unscaled.
      means: in the space of the outputs.
      squares: |m_hj|^2.
    """

    keys: Float[Array, "*batch H N F"]
    means: Float[Array, "*batch H N C"]
    squares: Float[Array, "*batch H N"]


def _logits(queries: Float[Array, "*batch H R F"], keys: Float[Array, "*batch H N F"]) -> Float[Array, "*batch H R N"]:
    return float32_einsum("...hif,...hjf->...hij", queries, keys) / queries.shape[-1] ** 0.5


def _relative_logits(
    queries: Float[Array, "*batch H R F"], relative_keys: Float[Array, "P F"], first: Int[Array, ""], num_tokens: int
) -> Float[Array, "*batch H R J"]:
    """q_i . r_(i-j) / sqrt(F) of R consecutive tokens and the first J; it has no meaning where i - j is not 1 to P.

    Args:
      queries: of the R tokens.
      relative_keys: r_1 to r_P.
      first: position of the first of them.
      num_tokens: J.
    """
    (rows, width), span = queries.shape[-2:], relative_keys.shape[0]
    products = float32_einsum("...if,pf->...ip", queries, relative_keys[::-1]) / width**0.5
    # Row i of [R, P] is to begin at column i of [R, P + R]: one number more to each row than the shape has.
    leading = [(0, 0, 0)] * (products.ndim - 1)
    shifted = jax.lax.pad(products, jnp.float32(0), [*leading, (0, rows + 1, 0)]).reshape(*products.shape[:-2], -1)
    shifted = shifted[..., : rows * (span + rows)].reshape(*products.shape[:-1], span + rows)
    # Its first column is the token P before the first row: so is column num_tokens here.
    padded = jax.lax.pad(shifted, jnp.float32(0), [*leading, (num_tokens, num_tokens, 0)])
    return jax.lax.dynamic_slice_in_dim(padded, num_tokens + span - first, num_tokens, axis=-1)


def _allowed_to_heads(mask_rows: MaskRows, shape: tuple[int, ...]) -> Bool[Array, "*batch H R N"] | None:
    allowed = mask_rows.allowed((*shape[:-3], *shape[-2:]))
    return None if allowed is None else jnp.broadcast_to(allowed[..., None, :, :], shape)


def head_entropies(
    queries: Float[Array, "*batch H N F"],
    keys: Float[Array, "*batch H N F"],
    mask_rows: MaskRows,
    block_size: int | None,
) -> Float[Array, "*batch H N 1"]:
    """Entropies of the rows of each head's attention, without a gradient."""
    queries, keys = jax.lax.stop_gradient((queries, keys))

    def entropies(rows: tuple[Array, MaskRows], keys: Array) -> Float[Array, "*batch H R 1"]:
        queries, mask_rows = rows
        logits = _logits(queries, keys)
        allowed = _allowed_to_heads(mask_rows, logits.shape)
        return softmax_entropy(logits if allowed is None else jnp.where(allowed, logits, -jnp.inf))[..., None]

    return map_rows_of_graph(entropies, queries, keys, mask_rows, block_size=block_size)


def head_of_each_token(
    entropies: Float[Array, "*batch H N 1"], mask_rows: MaskRows, block_size: int | None
) -> Int[Array, "*batch 1 R 1"]:
    """The head with the lowest mean entropy over the tokens that a token may know, of the rows' tokens."""
    if mask_rows.causal and mask_rows.positions.shape[-2] == entropies.shape[-2]:
        return jnp.argmin(jnp.cumsum(entropies, axis=-2), axis=-3, keepdims=True)

    def heads(mask_rows: MaskRows) -> Int[Array, "*batch 1 R 1"]:
        shape = (*entropies.shape[:-3], mask_rows.positions.shape[0], entropies.shape[-2])
        allowed = mask_rows.allowed(shape)
        assert allowed is not None  # there is a mask
        sums = float32_einsum("...ij,...hjo->...hio", allowed, entropies)
        return jnp.argmin(sums, axis=-3, keepdims=True)

    return map_row_blocks(heads, mask_rows, block_size=block_size)


def map_posterior(
    use: Callable[[Float[Array, "*batch H R J"], Tree], Array],
    of_rows: RowsOfHeads,
    of_columns: ColumnsOfHeads,
    columns: Tree,
    *,
    variance: float | Float[Array, ""],
    all_heads: bool,
    head: Int[Array, "*batch 1 R 1"] | None,
    mask_rows: MaskRows,
    block_size: int | None,
) -> Array:
    """``use`` of the posterior over heads and keys of :func:`attention_informed`, in blocks of the graph's rows.

    It is H'[i,h] A'_h[i,j] of Lemma 1 under the uniform prior 1/H. All but one head of a token may be ruled out.

    Args:
      use: the posterior of R tokens and ``columns`` of the first J tokens -> [..., R, C]. The posterior is up to a
        factor, the same for all heads of a token.
      of_rows: of the heads that count.
      of_columns: of the same heads.
      columns: arrays [..., N, *].
      variance: sigma^2.
      all_heads: whether heads are summed over, so that the prior of each has to be normalised.
      head: the only head that counts for a token; None where all these heads count.
      mask_rows: which tokens those of the rows may attend to.
      block_size: rows in memory at a time.
    """

    def used(rows: tuple[tuple[Array, Array, Array | None], MaskRows], known: tuple[Any, ...]) -> Array:
        ((queries, outputs, head), mask_rows), (keys, means, squares, columns) = rows, known
        logits = _logits(queries, keys)
        if of_rows.relative_keys is not None:
            logits += _relative_logits(queries, of_rows.relative_keys, mask_rows.positions[0, 0], keys.shape[-2])
        allowed = _allowed_to_heads(mask_rows, logits.shape)
        # Of a single head the constant of a row cancels.
        log_prior = jax.nn.log_softmax(logits, axis=-1, where=allowed) if all_heads else logits
        if allowed is not None:
            log_prior = jnp.where(allowed, log_prior, -jnp.inf)
        if head is not None:
            heads_of_rows = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 3)
            log_prior = jnp.where(heads_of_rows == head, log_prior, -jnp.inf)
        numerators = evidence(outputs, means, squares[..., 0])
        return use(weights_of_scaled(numerators, variance, log_prior, axis=(-3, -1)), columns)

    known = (of_columns.keys, of_columns.means, of_columns.squares[..., None], columns)
    rows = (of_rows.queries, of_rows.outputs, head)
    return map_rows_of_graph(used, rows, known, mask_rows, block_size=block_size)


def mix_heads(
    weights: Float[Array, "*batch H R J"], probabilities: Float[Array, "*batch J E"]
) -> Float[Array, "*batch R E"]:
    """Informed probabilities of R tokens from a posterior over heads and keys, as ``use`` of :func:`map_posterior`."""
    return mix(jnp.sum(weights, axis=-3), probabilities)


def expected_distances(
    compared: Compared,
    output_squares: Float[Array, "*batch 1 N"],
    posterior: Callable[[Callable[..., Array], Tree], Array],
) -> Float[Array, "*batch N"]:
    """Sum over h, j of the posterior times |u_i - m_hj|^2, in O(N) memory: the E-step of :func:`posterior_distances`.

    It is |u_i|^2 - 2 sum_h (u_i . M_ih - S_ih / 2), where M_ih and S_ih are the sums of means and of their squares,
    each weighted by the posterior.

    Args:
      compared: outputs and means at their lengths, not centered.
      output_squares: |u_i|^2.
      posterior: ``use`` and columns -> what :func:`map_posterior` makes of them.
    """
    outputs, means, squares = compared
    halves = 0.5 * squares.astype(jnp.float32)[..., None]
    columns = jnp.concatenate([means.astype(jnp.float32), halves, jnp.ones_like(halves)], axis=-1)

    def sums(weights: Array, columns: Array) -> Float[Array, "*batch H R C"]:
        return float32_einsum("...hij,...hjc->...hic", weights, columns)

    found = posterior(sums, columns)
    evidence_of_heads = jnp.sum(outputs * found[..., :-2], axis=-1) - found[..., -2]
    expected = jnp.sum(evidence_of_heads, axis=-2) / jnp.sum(found[..., -1], axis=-2)
    return jnp.maximum(output_squares[..., 0, :] - 2.0 * expected, 0.0)  # rounding may lead below 0
