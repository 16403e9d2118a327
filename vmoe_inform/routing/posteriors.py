"""The attention posterior as a token graph: the router learns from the attention of its block which tokens agree.

All arithmetic is float32. In the papers the means of the heads are vectors of D numbers. Products with them are the
same in the space of a head, of F = D / H numbers. The layer computes them there, since it has the kernels.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Float, Int, Tree
from vmoe_inform.routing import evidence as evidence_lib
from vmoe_inform.routing.evidence import Compared, Sigma
from vmoe_inform.routing.graphs import identity_graph, normalize_rows, weights_of_scaled
from vmoe_inform.routing.masks import GivenMask, rows_of_mask
from vmoe_inform.routing.posterior_rows import (
    ColumnsOfHeads,
    RowsOfHeads,
    expected_distances,
    head_entropies,
    head_of_each_token,
    map_posterior,
    mix_heads,
)


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


class _Likelihood(NamedTuple):
    """What a posterior weighs its prior by.

    Attributes:
      compared: outputs and means that the evidence is of.
      at_length: the same before they were centered.
      output_squares: |u_i|^2, at their length.
      variance: sigma^2.
    """

    compared: Compared
    at_length: Compared
    output_squares: Float[Array, "*batch 1 N"]
    variance: float | Float[Array, ""]

    def weights(
        self, log_prior: Float[Array, "*batch H N N"], axis: int | tuple[int, ...] = -1
    ) -> Float[Array, "*batch H N N"]:
        """The posterior up to a factor."""
        return weights_of_scaled(evidence_lib.evidence(*self.compared), self.variance, log_prior, axis=axis)


def _likelihood(
    means: Float[Array, "*batch H N D"],
    outputs: Float[Array, "*batch N D"],
    *,
    sigma: Sigma,
    normalize: str,
    center: bool,
    mask: GivenMask,
    block_size: int | None = None,
) -> _Likelihood:
    width = means.shape[-1]
    variance, length = evidence_lib.variance_of(sigma, width), evidence_lib.common_length(normalize, width)
    mask_rows = rows_of_mask(mask, outputs.shape[-2])
    compared = Compared(outputs[..., None, :, :], means, evidence_lib.squared_lengths(means))
    squares = evidence_lib.squared_lengths(compared.outputs)
    if length is not None:
        compared = evidence_lib.at_length(compared, squares, length)
    likelihood = _Likelihood(compared, compared, evidence_lib.squares_at(length, squares), variance)
    if not center:
        return likelihood
    known = evidence_lib.mean_over_known(compared.outputs[..., 0, :, :], mask_rows, block_size)
    return likelihood._replace(compared=evidence_lib.centered(compared, known[..., None, :, :]))


def attention_posterior(
    attention: Float[Array, "*batch H N N"],
    means: Float[Array, "*batch H N D"],
    outputs: Float[Array, "*batch N D"],
    *,
    sigma: Sigma = 1.0,
    normalize: str = "none",
    center: bool = False,
    mask: GivenMask = None,
) -> Float[Array, "*batch H N N"]:
    r"""Posterior attention of each head (Mutual-Inform SMoE, Lemma 1).

    $$A^\prime_{hij} = \frac{A_{hij} \, \mathcal{N}(u_i \mid m_{hj}, \sigma^2 I)}
    {\sum_k A_{hik} \, \mathcal{N}(u_i \mid m_{hk}, \sigma^2 I)}$$

    Args:
      attention: prior A_h [..., H, N, N], rows sum to 1.
      means: m_hj [..., H, N, D].
      outputs: u_i [..., N, D].
      sigma: standard deviation > 0, in the units of the outputs; ``"sqrt_dim"`` for sqrt(D).
      normalize: ``"unit"`` or ``"sqrt_dim"`` scales outputs and means to length 1 or sqrt(D) first.
      center: leaves out what the evidence says of a key for all tokens alike: outputs without their mean, and means
        without their lengths (:func:`vmoe_inform.routing.evidence.centered`).
      mask: for ``center``, which tokens a token may know; the mean output is over these.

    Returns:
      A' [..., H, N, N], float32, rows sum to 1; 0 where the prior is 0. A zero row attends to itself alone.

    Raises:
      ValueError: sigma not > 0, unknown normalize or mask, or shapes that do not fit.
    """
    _check_posterior_shapes(attention.shape, means, outputs)
    likelihood = _likelihood(means, outputs, sigma=sigma, normalize=normalize, center=center, mask=mask)
    return normalize_rows(likelihood.weights(_log_prior(attention)))


def head_posterior(
    attention: Float[Array, "*batch H N N"],
    means: Float[Array, "*batch H N D"],
    outputs: Float[Array, "*batch N D"],
    *,
    sigma: Sigma = 1.0,
    normalize: str = "none",
    center: bool = False,
    mask: GivenMask = None,
) -> Float[Array, "*batch N H"]:
    r"""Responsibility of each head for each token, under the uniform prior 1/H (Mutual-Inform SMoE, Lemma 1).

    $$H^\prime_{ih} = \frac{\sum_j A_{hij} \, \mathcal{N}(u_i \mid m_{hj}, \sigma^2 I)}
    {\sum_g \sum_j A_{gij} \, \mathcal{N}(u_i \mid m_{gj}, \sigma^2 I)}$$

    Args and errors as :func:`attention_posterior`.

    Returns:
      H' [..., N, H], float32, rows sum to 1.
    """
    _check_posterior_shapes(attention.shape, means, outputs)
    likelihood = _likelihood(means, outputs, sigma=sigma, normalize=normalize, center=center, mask=mask)
    joint = likelihood.weights(_log_prior(attention), axis=(-3, -1))
    return normalize_rows(jnp.moveaxis(jnp.sum(joint, axis=-1), -2, -1))


def lowest_entropy_head(attention: Float[Array, "*batch H N N"]) -> Int[Array, "*batch"]:
    r"""Head with the lowest mean row entropy, per image, without a gradient (Mutual-Inform SMoE, Eq. 15).

    $$h^* = \operatorname{arg}\min_h \; -\frac{1}{N} \sum_{i,j} A_{hij} \log A_{hij}$$
    """
    attention = attention.astype(jnp.float32)
    entropies = -jnp.sum(attention * jnp.log(jnp.where(attention > 0, attention, 1.0)), axis=-1)
    return jnp.argmin(jnp.mean(entropies, axis=-1), axis=-1)


def attention_informed(
    probabilities: Float[Array, "*batch N E"],
    queries: Float[Array, "*batch H N F"],
    keys: Float[Array, "*batch H N F"],
    means: Float[Array, "*batch H N D"],
    outputs: Float[Array, "*batch N D"],
    *,
    sigma: Sigma = 1.0,
    heads: str = "lowest_entropy",
    normalize: str = "none",
    center: bool = False,
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
      sigma: as of :func:`attention_posterior`, like ``normalize`` and ``center``.
      heads: ``"lowest_entropy"`` takes the one head of Eq. 15; ``"posterior"`` sums over all heads (Lemma 1). With a
        mask, the one head is that with the lowest mean entropy over the tokens that a token attends to.
      normalize: the length of outputs and means.
      center: whether the evidence is without its mean over the tokens that a token attends to.
      mask: True where token i may attend to token j. A row without True attends to itself alone. ``"causal"``: j <= i.
      block_size: rows of the graph in memory at a time, also for gradients; None: all N.

    Returns:
      informed probabilities [..., N, E], float32.

    Raises:
      ValueError: sigma not > 0, unknown heads, normalize or mask, block_size < 1, or shapes that do not fit.
    """
    checks.shape("probabilities", probabilities.shape, ("...", queries.shape[-2], "E"))
    posterior, _ = _posterior(
        queries,
        keys,
        means,
        outputs,
        sigma=sigma,
        heads=heads,
        normalize=normalize,
        center=center,
        mask=mask,
        block_size=block_size,
    )
    return posterior(mix_heads, probabilities)


def posterior_distances(
    queries: Float[Array, "*batch H N F"],
    keys: Float[Array, "*batch H N F"],
    means: Float[Array, "*batch H N D"],
    outputs: Float[Array, "*batch N D"],
    *,
    sigma: Sigma = 1.0,
    heads: str = "lowest_entropy",
    normalize: str = "none",
    center: bool = False,
    mask: GivenMask = None,
    block_size: int | None = None,
) -> Float[Array, "*batch N"]:
    r"""Expected squared distance of an output from the means, by dimension: one step of EM for sigma^2.

    Lemma 1 is a mixture of Gaussians with known means m_hj and known weights A_h[i,j] / H. Its log-likelihood is

    $$L(\sigma^2) = \sum_i \log \sum_{h,j} \frac{A_{hij}}{H} \, \mathcal{N}(u_i \mid m_{hj}, \sigma^2 I)$$

    The E-step takes the posterior $w_{ihj} = H^\prime_{ih} A^\prime_{hij}$ at the sigma so far. By Jensen's inequality
    L is at least, up to a constant and with equality at that sigma,

    $$Q(\sigma^2) = \sum_i \sum_{h,j} w_{ihj} \Bigl( -\frac{D}{2} \log \sigma^2 -
    \frac{|u_i - m_{hj}|^2}{2 \sigma^2} \Bigr)$$

    The M-step sets the derivative to 0. The new sigma^2 is the mean over tokens of what this function returns:

    $$\sigma^2 = \frac{1}{N D} \sum_i \sum_{h,j} w_{ihj} \, |u_i - m_{hj}|^2$$

    L never falls from step to step. Where one head counts for a token, the sum is over its keys alone. With ``center``
    the weights are not those of this mixture, and the same mean is no more than a scale of the distances.

    Args and errors as :func:`attention_informed`.

    Returns:
      distances [..., N], float32, >= 0.
    """
    posterior, likelihood = _posterior(
        queries,
        keys,
        means,
        outputs,
        sigma=sigma,
        heads=heads,
        normalize=normalize,
        center=center,
        mask=mask,
        block_size=block_size,
    )
    distances = expected_distances(likelihood.at_length, likelihood.output_squares, posterior)
    return distances / means.shape[-1]


def _posterior(
    queries: Float[Array, "*batch H N F"],
    keys: Float[Array, "*batch H N F"],
    means: Float[Array, "*batch H N D"],
    outputs: Float[Array, "*batch N D"],
    *,
    sigma: Sigma,
    heads: str,
    normalize: str,
    center: bool,
    mask: GivenMask,
    block_size: int | None,
) -> tuple[Callable[[Callable[..., Array], Tree], Array], _Likelihood]:
    """What makes ``use`` and columns an array by the posterior, and the likelihood in it."""
    if heads not in ("lowest_entropy", "posterior"):
        raise checks.error("heads", "one of 'lowest_entropy', 'posterior'", heads)
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
    likelihood = _likelihood(
        means, outputs, sigma=sigma, normalize=normalize, center=center, mask=mask, block_size=block_size
    )
    compared = likelihood.compared
    posterior = functools.partial(
        map_posterior,
        of_rows=RowsOfHeads(queries, compared.outputs),
        of_columns=ColumnsOfHeads(keys, compared.means, compared.squares),
        variance=likelihood.variance,
        all_heads=heads == "posterior",
        head=head,
        mask_rows=mask_rows,
        block_size=block_size,
    )
    return lambda use, columns: posterior(use, columns=columns), likelihood
