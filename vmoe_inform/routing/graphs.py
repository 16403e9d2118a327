"""Token graphs: how the tokens of one image inform each other's choice of experts.

Every function takes the tokens of one image along N (decision 1: the graph spans one image, never a group of
several). The N x N forms here are the readable reference. All arithmetic is float32.
"""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Bool, Float, Int
from vmoe_inform.routing.products import float32_einsum, unit_vectors
from vmoe_inform.routing.steps import LayerSizes, Parameter, StepContext, register_inform

Temperature = checks.PositiveFloat | Literal["sqrt_dim"]
Metric = Literal["dot", "cosine"]
Heads = Literal["lowest_entropy", "posterior"]
Mask = Literal["none", "causal"]


def _identity(graph: Array) -> Array:
    """The graph, of the same shape and type, in which every token hears only itself."""
    return jnp.broadcast_to(jnp.eye(graph.shape[-1], dtype=graph.dtype), graph.shape)


def _allowed(mask: Bool[Array, "*batch N N"]) -> Bool[Array, "*batch N N"]:
    """A token whose row of the mask is empty hears only itself."""
    alone = ~jnp.any(mask, axis=-1, keepdims=True)
    return mask | (alone & _identity(mask))


def _softmax_of_scaled(
    numerators: Float[Array, "*batch N M"], scale: float | Float[Array, ""], log_prior: Float[Array, "*batch N M"]
) -> Float[Array, "*batch N M"]:
    """softmax_j(log_prior + numerators / scale) that stays finite for any scale > 0.

    Row constants cancel, so the largest allowed numerator is taken off before the division: what then overflows
    goes to -inf, a weight of 0, never to inf - inf.
    """
    possible = log_prior > -jnp.inf
    numerators = jnp.where(possible, numerators, -jnp.inf)
    largest = jax.lax.stop_gradient(jnp.max(numerators, axis=-1, keepdims=True))
    differences = jnp.where(possible, numerators - largest, 0.0) / scale
    return jax.nn.softmax(jnp.where(possible, differences + jnp.where(possible, log_prior, 0.0), -jnp.inf), axis=-1)


def _scale(temperature: float | str | Float[Array, ""], width: int) -> float | Float[Array, ""]:
    """The temperature as a number."""
    if isinstance(temperature, str):
        if temperature != "sqrt_dim":
            raise checks.error("temperature", "a number > 0 or 'sqrt_dim'", temperature)
        return width**0.5
    checks.positive("temperature", temperature)
    return temperature


def token_similarity(
    tokens: Float[Array, "*batch N D"],
    *,
    weight: Float[Array, "D D"] | None = None,
    temperature: float | str | Float[Array, ""] = 1.0,
    metric: str = "dot",
    mask: Bool[Array, "*#batch N N"] | None = None,
) -> Float[Array, "*batch N N"]:
    """Similarity graph S[i,j] = softmax_j(u_i' W_s u_j / tau) (Mutual-Inform SMoE, Eq. 5 and Definition 1).

    On LayerNormed tokens the literal setting (dot, identity weight, temperature 1) has S[i,i] close to 1, so that it
    hardly mixes: look at :func:`vmoe_inform.routing.effective_neighbours`.

    Args:
      tokens: [..., N, D].
      weight: W_s [D, D]; None is the identity.
      temperature: number or scalar array > 0, or ``"sqrt_dim"`` for sqrt(D).
      metric: ``"dot"``, or ``"cosine"``: tokens are scaled to length 1 first.
      mask: True where token i may hear token j; a row without any True hears only itself.

    Returns:
      graph [..., N, N], float32, rows sum to 1.

    Raises:
      ValueError: temperature not > 0, unknown metric, or a weight or mask whose shape does not fit.
    """
    num_tokens, width = tokens.shape[-2:]
    if metric not in ("dot", "cosine"):
        raise checks.error("metric", "one of 'dot', 'cosine'", metric)
    scale = _scale(temperature, width)
    if weight is not None:
        checks.shape("weight", weight.shape, (width, width))
    if mask is not None:
        checks.shape("mask", mask.shape, ("...", num_tokens, num_tokens))
    keys = tokens.astype(jnp.float32)
    keys = unit_vectors(keys) if metric == "cosine" else keys
    queries = keys if weight is None else float32_einsum("...id,de->...ie", keys, weight)
    products = float32_einsum("...id,...jd->...ij", queries, keys)
    log_prior = jnp.zeros_like(products) if mask is None else jnp.where(_allowed(mask), 0.0, -jnp.inf)
    return _softmax_of_scaled(products, scale, jnp.broadcast_to(log_prior, products.shape))


def _evidence(means: Float[Array, "*batch H N D"], outputs: Float[Array, "*batch N D"]) -> Float[Array, "*batch H N N"]:
    """u_i . m_hj - |m_hj|^2 / 2: the log-likelihood of u_i under N(m_hj, sigma^2), times sigma^2; |u_i|^2 cancels."""
    means = means.astype(jnp.float32)
    products = float32_einsum("...id,...hjd->...hij", outputs, means)
    return products - 0.5 * jnp.sum(means**2, axis=-1)[..., None, :]


def _check_posterior_shapes(shape: tuple[int, ...], means: Array, outputs: Array) -> None:
    heads, num_tokens = shape[-3:-1]
    checks.shape("attention", shape, ("...", heads, num_tokens, num_tokens))
    checks.shape("means", means.shape, ("...", heads, num_tokens, "D"))
    checks.shape("outputs", outputs.shape, ("...", num_tokens, means.shape[-1]))


def _log_prior(attention: Float[Array, "*batch H N N"]) -> Float[Array, "*batch H N N"]:
    """log A with log 0 = -inf and a gradient of 0 there; a token whose row is all zero hears only itself."""
    attention = attention.astype(jnp.float32)
    silent = ~jnp.any(attention > 0, axis=-1, keepdims=True)
    attention = jnp.where(silent, _identity(attention), attention)
    nonzero = attention > 0
    return jnp.where(nonzero, jnp.log(jnp.where(nonzero, attention, 1.0)), -jnp.inf)


def _variance(sigma: float) -> float:
    """sigma^2, which float32 has to hold too."""
    checks.positive("sigma", sigma)
    checks.positive("sigma squared", sigma * sigma)
    return sigma * sigma


def _log_joint(
    log_attention: Float[Array, "*batch H N N"], evidence: Float[Array, "*batch H N N"], variance: float
) -> Float[Array, "*batch H N N"]:
    """Posterior over (h, j) of each token i, that is H'[i,h] A'_h[i,j] of Lemma 1 under the uniform prior 1/H."""
    heads, num_tokens = log_attention.shape[-3:-1]

    # [..., H, N, N] -> [..., N, H * N]
    def flat(array: Array) -> Array:
        return jnp.moveaxis(array, -3, -2).reshape(*array.shape[:-3], num_tokens, heads * num_tokens)

    joint = _softmax_of_scaled(flat(evidence), variance, flat(log_attention))
    return jnp.moveaxis(joint.reshape(*joint.shape[:-1], heads, num_tokens), -2, -3)


def attention_posterior(
    attention: Float[Array, "*batch H N N"],
    means: Float[Array, "*batch H N D"],
    outputs: Float[Array, "*batch N D"],
    *,
    sigma: float = 1.0,
) -> Float[Array, "*batch H N N"]:
    """Posterior attention A'_h[i,j] ~ A_h[i,j] N(u_i | m_hj, sigma^2 I) (Mutual-Inform SMoE, Lemma 1).

    Args:
      attention: prior A_h [..., H, N, N], rows sum to 1.
      means: m_hj [..., H, N, D].
      outputs: u_i [..., N, D].
      sigma: standard deviation > 0, in the units of the outputs.

    Returns:
      graph [..., H, N, N], float32, rows sum to 1; 0 where the prior is 0 (a row of zeros hears only itself).

    Raises:
      ValueError: sigma not > 0, or shapes that do not fit.
    """
    variance = _variance(sigma)
    _check_posterior_shapes(attention.shape, means, outputs)
    return _softmax_of_scaled(_evidence(means, outputs), variance, _log_prior(attention))


def head_posterior(
    attention: Float[Array, "*batch H N N"],
    means: Float[Array, "*batch H N D"],
    outputs: Float[Array, "*batch N D"],
    *,
    sigma: float = 1.0,
) -> Float[Array, "*batch N H"]:
    """Responsibility H'[i,h] of each head for token i, with the uniform prior 1/H (Mutual-Inform SMoE, Lemma 1).

    Args and errors as :func:`attention_posterior`.

    Returns:
      heads [..., N, H], float32, rows sum to 1.
    """
    variance = _variance(sigma)
    _check_posterior_shapes(attention.shape, means, outputs)
    joint = _log_joint(_log_prior(attention), _evidence(means, outputs), variance)
    return jnp.moveaxis(jnp.sum(joint, axis=-1), -2, -1)


def _row_entropy(attention: Float[Array, "*batch H N N"]) -> Float[Array, "*batch H N"]:
    return -jnp.sum(attention * jnp.log(jnp.where(attention > 0, attention, 1.0)), axis=-1)


def lowest_entropy_head(attention: Float[Array, "*batch H N N"]) -> Int[Array, "*batch"]:
    """Head with the lowest mean row entropy, per image, without a gradient (Mutual-Inform SMoE, Eq. 15)."""
    return jnp.argmin(jnp.mean(_row_entropy(attention.astype(jnp.float32)), axis=-1), axis=-1)


def inform(probabilities: Float[Array, "*batch N E"], graph: Float[Array, "*batch N N"]) -> Float[Array, "*batch N E"]:
    """p_i = sum_j graph[i,j] r_j (Mutual-Inform SMoE, Eq. 8), float32.

    Raises:
      ValueError: the graph is not over the N tokens.
    """
    num_tokens = probabilities.shape[-2]
    checks.shape("graph", graph.shape, ("...", num_tokens, num_tokens))
    return float32_einsum("...ij,...je->...ie", graph, probabilities)


def _check_block_size(block_size: int | None) -> None:
    if block_size is not None and (isinstance(block_size, bool) or block_size < 1):
        raise checks.error("block_size", "None or an integer >= 1", block_size)


def similarity_informed(
    probabilities: Float[Array, "*batch N E"],
    tokens: Float[Array, "*batch N D"],
    *,
    weight: Float[Array, "D D"] | None = None,
    temperature: float | str | Float[Array, ""] = 1.0,
    metric: str = "dot",
    mask: Bool[Array, "*#batch N N"] | None = None,
    block_size: int | None = None,
) -> Float[Array, "*batch N E"]:
    """Probabilities smoothed over similar tokens (Mutual-Inform SMoE, Eq. 11).

    The same as ``inform(probabilities, token_similarity(tokens))``.

    Args:
      probabilities: base probabilities r [..., N, E].
      tokens: [..., N, D].
      weight, temperature, metric, mask: as in :func:`token_similarity`.
      block_size: a blockwise form is not built yet; any size gives the N x N form, which has the same result.

    Returns:
      informed probabilities [..., N, E], float32.

    Raises:
      ValueError: as :func:`token_similarity`, or block_size < 1.
    """
    _check_block_size(block_size)
    checks.shape("probabilities", probabilities.shape, ("...", tokens.shape[-2], "E"))
    return inform(
        probabilities, token_similarity(tokens, weight=weight, temperature=temperature, metric=metric, mask=mask)
    )


def _attention_graph(
    queries: Float[Array, "*batch H N F"],
    keys: Float[Array, "*batch H N F"],
    means: Float[Array, "*batch H N D"],
    outputs: Float[Array, "*batch N D"],
    *,
    sigma: float,
    heads: str,
    mask: Bool[Array, "*#batch N N"] | None = None,
) -> Float[Array, "*batch N N"]:
    """The token graph of :func:`attention_informed`: one posterior head, or the sum over heads weighted by H'."""
    variance = _variance(sigma)
    if heads not in ("lowest_entropy", "posterior"):
        raise checks.error("heads", "one of 'lowest_entropy', 'posterior'", heads)
    checks.shape("keys", keys.shape, queries.shape)
    num_tokens, head_width = queries.shape[-2:]
    _check_posterior_shapes((*queries.shape[:-1], num_tokens), means, outputs)
    if mask is not None:
        checks.shape("mask", mask.shape, ("...", num_tokens, num_tokens))
    products = float32_einsum("...hif,...hjf->...hij", queries, keys)
    if mask is None:
        log_attention = jax.nn.log_softmax(products / head_width**0.5, axis=-1)
    else:
        allowed = jnp.broadcast_to(_allowed(mask)[..., None, :, :], products.shape)
        log_attention = jax.nn.log_softmax(products / head_width**0.5, axis=-1, where=allowed)
        log_attention = jnp.where(allowed, log_attention, -jnp.inf)
    if heads == "posterior":
        return jnp.sum(_log_joint(log_attention, _evidence(means, outputs), variance), axis=-3)
    if mask is not None:
        # A token may only know the heads' entropies at the tokens that it may hear, or a causal mask would leak.
        entropies = _row_entropy(jnp.exp(jax.lax.stop_gradient(log_attention)))
        heard = _allowed(jnp.broadcast_to(mask, (*entropies.shape[:-2], num_tokens, num_tokens))).astype(jnp.float32)
        head = jnp.argmin(float32_einsum("...ij,...hj->...hi", heard, entropies), axis=-2)
        posteriors = _softmax_of_scaled(_evidence(means, outputs), variance, log_attention)
        # [..., N] -> [..., 1, N, 1]
        return jnp.squeeze(jnp.take_along_axis(posteriors, head[..., None, :, None], axis=-3), axis=-3)
    head = lowest_entropy_head(jnp.exp(jax.lax.stop_gradient(log_attention)))
    # [...] -> [..., 1, 1, 1]; only the chosen head's means and prior are used from here on.
    index = head[..., None, None, None]
    chosen_prior = jnp.take_along_axis(log_attention, index, axis=-3)
    chosen_means = jnp.take_along_axis(means, index, axis=-3)
    posterior = _softmax_of_scaled(_evidence(chosen_means, outputs), variance, chosen_prior)
    return jnp.squeeze(posterior, axis=-3)


def attention_informed(
    probabilities: Float[Array, "*batch N E"],
    queries: Float[Array, "*batch H N F"],
    keys: Float[Array, "*batch H N F"],
    means: Float[Array, "*batch H N D"],
    outputs: Float[Array, "*batch N D"],
    *,
    sigma: float = 1.0,
    heads: str = "lowest_entropy",
    mask: Bool[Array, "*#batch N N"] | None = None,
    block_size: int | None = None,
) -> Float[Array, "*batch N E"]:
    """Probabilities smoothed by the attention posterior (Mutual-Inform SMoE, Lemma 1, Eq. 15 to 17).

    Args:
      probabilities: base probabilities r [..., N, E].
      queries, keys: [..., H, N, F], unscaled; the prior is softmax(q . k / sqrt(F)).
      means: m_hj [..., H, N, D].
      outputs: u_i [..., N, D].
      sigma: standard deviation > 0, in the units of the outputs.
      heads: ``"lowest_entropy"`` takes the one head of Eq. 15 (with a mask: for each token the head with the lowest
        mean entropy over the tokens that it may hear), ``"posterior"`` sums over all heads (Lemma 1).
      mask: True where token i may hear token j; a row without any True hears only itself.
      block_size: a blockwise form is not built yet; any size gives the N x N form, which has the same result.

    Returns:
      informed probabilities [..., N, E], float32.

    Raises:
      ValueError: sigma not > 0, unknown heads, block_size < 1, or shapes that do not fit.
    """
    _check_block_size(block_size)
    checks.shape("probabilities", probabilities.shape, ("...", queries.shape[-2], "E"))
    return inform(
        probabilities,
        _attention_graph(queries, keys, means, outputs, sigma=sigma, heads=heads, mask=mask),
    )


def _identity_initializer(
    key: Array, shape: Sequence[int], dtype: Any = jnp.float32, out_sharding: Any = None
) -> Array:
    """W_s starts as the identity, the papers' fixed weight."""
    return jnp.eye(shape[0], shape[1], dtype=dtype)


def _similarity_parameters(sizes: LayerSizes, *, learned_weight: bool, **options: object) -> dict[str, Parameter]:
    if not learned_weight:
        return {}
    shape = (sizes.hidden_size, sizes.hidden_size)
    return {"weight": Parameter(shape, _identity_initializer)}


def _causal(mask: str, context: StepContext) -> Bool[Array, "N N"] | None:
    """The mask that an option names: ``"causal"`` lets token i hear tokens j <= i only (decision 4)."""
    num_tokens = context.tokens.shape[-2]
    return jnp.tril(jnp.ones((num_tokens, num_tokens), bool)) if mask == "causal" else None


def _weight(context: StepContext, learned_weight: bool) -> Float[Array, "D D"] | None:
    return context.parameters["weight"] if learned_weight else None


def _similarity_graph(
    context: StepContext, *, learned_weight: bool, mask: str, block_size: int | None, **options: Any
) -> Float[Array, "B N N"]:
    weight, allowed = _weight(context, learned_weight), _causal(mask, context)
    return token_similarity(context.tokens, weight=weight, mask=allowed, **options)


@register_inform("similarity", parameters=_similarity_parameters, graph=_similarity_graph)
def similarity_step(
    probabilities: Float[Array, "B N E"],
    context: StepContext,
    *,
    temperature: Temperature = 1.0,
    metric: Metric = "dot",
    learned_weight: bool = False,
    mask: Mask = "none",
    block_size: checks.PositiveInt | None = None,
) -> Float[Array, "B N E"]:
    """Similar tokens inform each other (Mutual-Inform SMoE, Definition 1).

    The paper's setting is dot products, the identity as weight, and temperature 1.
    """
    return similarity_informed(
        probabilities,
        context.tokens,
        weight=_weight(context, learned_weight),
        temperature=temperature,
        metric=metric,
        mask=_causal(mask, context),
        block_size=block_size,
    )


def _attention_arrays(context: StepContext, head_factor: bool) -> tuple[Array, Array, Array, Array]:
    """Queries, keys, means and outputs of the block's attention."""
    assert context.attention is not None  # declared by needs_attention
    record = context.attention
    means = record.means if head_factor else record.means / record.means.shape[-3]
    return record.queries, record.keys, means, record.outputs


def _posterior_graph(
    context: StepContext, *, head_factor: bool, mask: str, block_size: int | None, **options: Any
) -> Float[Array, "B N N"]:
    return _attention_graph(*_attention_arrays(context, head_factor), mask=_causal(mask, context), **options)


@register_inform("attention", needs_attention=True, graph=_posterior_graph)
def attention_step(
    probabilities: Float[Array, "B N E"],
    context: StepContext,
    *,
    sigma: checks.PositiveFloat = 1.0,
    heads: Heads = "lowest_entropy",
    head_factor: bool = True,
    mask: Mask = "none",
    block_size: checks.PositiveInt | None = None,
) -> Float[Array, "B N E"]:
    """Tokens inform each other by the attention posterior (Mutual-Inform SMoE, Definition 2).

    ``head_factor=False`` drops the factor H of the means (Eq. 1).
    """
    arrays, allowed = _attention_arrays(context, head_factor), _causal(mask, context)
    return attention_informed(probabilities, *arrays, sigma=sigma, heads=heads, mask=allowed, block_size=block_size)
