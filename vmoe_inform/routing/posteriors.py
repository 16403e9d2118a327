"""The attention posterior as a token graph: the router learns from the attention of its block which tokens agree.

All arithmetic is float32. In the papers the means of the heads are vectors of D numbers. Products with them are the
same in the space of a head, of F = D / H numbers. The layer computes them there, since it has the kernels.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Bool, Float, Int, Tree
from vmoe_inform.routing.blocks import map_row_blocks
from vmoe_inform.routing.graphs import identity_graph, mix, normalize_rows, weights_of_scaled
from vmoe_inform.routing.masks import GivenMask, MaskRows, map_rows_of_graph, rows_of_mask
from vmoe_inform.routing.products import float32_einsum
from vmoe_inform.routing.stats import softmax_entropy


def _squared_lengths(vectors: Float[Array, "*batch C"]) -> Float[Array, "*batch"]:
    return jnp.sum(vectors.astype(jnp.float32) ** 2, axis=-1)


def _evidence(
    outputs: Float[Array, "*batch #H R C"], means: Float[Array, "*batch H N C"], squares: Float[Array, "*batch H N"]
) -> Float[Array, "*batch H R N"]:
    """u_i . m_hj - |m_hj|^2 / 2: the log-likelihood of u_i under N(m_hj, sigma^2), times sigma^2; |u_i|^2 cancels."""
    return float32_einsum("...hic,...hjc->...hij", outputs, means) - 0.5 * squares[..., None, :]


def _evidence_of_means(
    means: Float[Array, "*batch H N D"], outputs: Float[Array, "*batch N D"]
) -> Float[Array, "*batch H N N"]:
    return _evidence(outputs[..., None, :, :], means, _squared_lengths(means))


def _check_posterior_shapes(shape: tuple[int, ...], means: Array, outputs: Array) -> None:
    heads, num_tokens = shape[-3:-1]
    checks.shape("attention", shape, ("...", heads, num_tokens, num_tokens))
    checks.shape("means", means.shape, ("...", heads, num_tokens, "D"))
    checks.shape("outputs", outputs.shape, ("...", num_tokens, means.shape[-1]))


def _log_prior(attention: Float[Array, "*batch H N N"]) -> Float[Array, "*batch H N N"]:
    """log A with log 0 = -inf and a gradient of 0 there; a token with a zero row attends to itself alone."""
    attention = attention.astype(jnp.float32)
    silent = ~jnp.any(attention > 0, axis=-1, keepdims=True)
    attention = jnp.where(silent, identity_graph(attention), attention)
    nonzero = attention > 0
    return jnp.where(nonzero, jnp.log(jnp.where(nonzero, attention, 1.0)), -jnp.inf)


def _variance(sigma: float) -> float:
    """sigma^2, which has to fit into float32, too."""
    checks.positive("sigma", sigma)
    checks.positive("sigma squared", sigma * sigma)
    return sigma * sigma


def attention_posterior(
    attention: Float[Array, "*batch H N N"],
    means: Float[Array, "*batch H N D"],
    outputs: Float[Array, "*batch N D"],
    *,
    sigma: float = 1.0,
) -> Float[Array, "*batch H N N"]:
    r"""Posterior attention of each head (Mutual-Inform SMoE, Lemma 1).

    $$A^\prime_{hij} = \frac{A_{hij} \, \mathcal{N}(u_i \mid m_{hj}, \sigma^2 I)}
    {\sum_k A_{hik} \, \mathcal{N}(u_i \mid m_{hk}, \sigma^2 I)}$$

    Args:
      attention: prior A_h [..., H, N, N], rows sum to 1.
      means: m_hj [..., H, N, D].
      outputs: u_i [..., N, D].
      sigma: standard deviation > 0, in the units of the outputs.

    Returns:
      A' [..., H, N, N], float32, rows sum to 1; 0 where the prior is 0. A zero row attends to itself alone.

    Raises:
      ValueError: sigma not > 0, or shapes that do not fit.
    """
    variance = _variance(sigma)
    _check_posterior_shapes(attention.shape, means, outputs)
    return normalize_rows(weights_of_scaled(_evidence_of_means(means, outputs), variance, _log_prior(attention)))


def head_posterior(
    attention: Float[Array, "*batch H N N"],
    means: Float[Array, "*batch H N D"],
    outputs: Float[Array, "*batch N D"],
    *,
    sigma: float = 1.0,
) -> Float[Array, "*batch N H"]:
    r"""Responsibility of each head for each token, under the uniform prior 1/H (Mutual-Inform SMoE, Lemma 1).

    $$H^\prime_{ih} = \frac{\sum_j A_{hij} \, \mathcal{N}(u_i \mid m_{hj}, \sigma^2 I)}
    {\sum_g \sum_j A_{gij} \, \mathcal{N}(u_i \mid m_{gj}, \sigma^2 I)}$$

    Args and errors as :func:`attention_posterior`.

    Returns:
      H' [..., N, H], float32, rows sum to 1.
    """
    variance = _variance(sigma)
    _check_posterior_shapes(attention.shape, means, outputs)
    joint = weights_of_scaled(_evidence_of_means(means, outputs), variance, _log_prior(attention), axis=(-3, -1))
    return normalize_rows(jnp.moveaxis(jnp.sum(joint, axis=-1), -2, -1))


def lowest_entropy_head(attention: Float[Array, "*batch H N N"]) -> Int[Array, "*batch"]:
    r"""Head with the lowest mean row entropy, per image, without a gradient (Mutual-Inform SMoE, Eq. 15).

    $$h^* = \operatorname{arg}\min_h \; -\frac{1}{N} \sum_{i,j} A_{hij} \log A_{hij}$$
    """
    attention = attention.astype(jnp.float32)
    entropies = -jnp.sum(attention * jnp.log(jnp.where(attention > 0, attention, 1.0)), axis=-1)
    return jnp.argmin(jnp.mean(entropies, axis=-1), axis=-1)


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
    use: Callable[[Float[Array, "*batch R J"], Tree], Array],
    of_rows: RowsOfHeads,
    of_columns: ColumnsOfHeads,
    columns: Tree,
    *,
    sigma: float,
    all_heads: bool,
    head: Int[Array, "*batch 1 R 1"] | None,
    mask_rows: MaskRows,
    block_size: int | None,
) -> Array:
    """``use`` of the weights of the token graph of :func:`attention_informed`, in blocks of its rows.

    The graph is the posterior over (h, j), summed over h: H'[i,h] A'_h[i,j] of Lemma 1 under the uniform prior 1/H.
    All but one head of a token may be ruled out.

    Args:
      use: weights of R tokens, up to a factor of each row, and ``columns`` of the first J tokens -> [..., R, C].
      of_rows: of the heads that count.
      of_columns: of the same heads.
      columns: arrays [..., N, *].
      sigma: standard deviation.
      all_heads: whether heads are summed over, so that the prior of each has to be normalised.
      head: the only head that counts for a token; None where all these heads count.
      mask_rows: which tokens those of the rows may attend to.
      block_size: rows in memory at a time.
    """
    variance = _variance(sigma)

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
        evidence = _evidence(outputs, means, squares[..., 0])
        joint = weights_of_scaled(evidence, variance, log_prior, axis=(-3, -1))
        return use(jnp.sum(joint, axis=-3), columns)

    known = (of_columns.keys, of_columns.means, of_columns.squares[..., None], columns)
    rows = (of_rows.queries, of_rows.outputs, head)
    return map_rows_of_graph(used, rows, known, mask_rows, block_size=block_size)


def attention_informed(
    probabilities: Float[Array, "*batch N E"],
    queries: Float[Array, "*batch H N F"],
    keys: Float[Array, "*batch H N F"],
    means: Float[Array, "*batch H N D"],
    outputs: Float[Array, "*batch N D"],
    *,
    sigma: float = 1.0,
    heads: str = "lowest_entropy",
    mask: GivenMask = None,
    block_size: int | None = None,
) -> Float[Array, "*batch N E"]:
    r"""Probabilities mixed by the attention posterior (Mutual-Inform SMoE, Lemma 1, Eq. 15 to 17).

    $$p_i = \sum_j A^\prime_{h^* ij} \, r_j \quad \text{or} \quad
    p_i = \sum_h H^\prime_{ih} \sum_j A^\prime_{hij} \, r_j$$

    Args:
      probabilities: base probabilities r [..., N, E].
      queries: [..., H, N, F], unscaled.
      keys: [..., H, N, F]; the prior is softmax(q . k / sqrt(F)).
      means: m_hj [..., H, N, D].
      outputs: u_i [..., N, D].
      sigma: standard deviation > 0, in the units of the outputs.
      heads: ``"lowest_entropy"`` takes the one head of Eq. 15; ``"posterior"`` sums over all heads (Lemma 1). With a
        mask, the one head is that with the lowest mean entropy over the tokens that a token attends to.
      mask: True where token i may attend to token j. A row without True attends to itself alone. ``"causal"``: j <= i.
      block_size: rows of the graph in memory at a time, also for gradients; None: all N.

    Returns:
      informed probabilities [..., N, E], float32.

    Raises:
      ValueError: sigma not > 0, unknown heads or mask, block_size < 1, or shapes that do not fit.
    """
    if heads not in ("lowest_entropy", "posterior"):
        raise checks.error("heads", "one of 'lowest_entropy', 'posterior'", heads)
    checks.shape("probabilities", probabilities.shape, ("...", queries.shape[-2], "E"))
    checks.shape("keys", keys.shape, queries.shape)
    _check_posterior_shapes((*queries.shape[:-1], queries.shape[-2]), means, outputs)
    mask_rows, head = rows_of_mask(mask, queries.shape[-2]), None
    if heads == "lowest_entropy":
        entropies = head_entropies(queries, keys, mask_rows, block_size)
        if mask is None:
            index = jnp.argmin(jnp.mean(entropies, axis=(-2, -1)), axis=-1)[..., None, None, None]
            queries, keys, means = (jnp.take_along_axis(array, index, axis=-3) for array in (queries, keys, means))
        else:
            head = head_of_each_token(entropies, mask_rows, block_size)
    return map_posterior(
        mix,
        RowsOfHeads(queries, outputs[..., None, :, :]),
        ColumnsOfHeads(keys, means, _squared_lengths(means)),
        probabilities,
        sigma=sigma,
        all_heads=heads == "posterior",
        head=head,
        mask_rows=mask_rows,
        block_size=block_size,
    )
