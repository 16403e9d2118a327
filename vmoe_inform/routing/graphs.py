"""Token graphs: how the tokens of one image inform each other's choice of experts.

Every function takes the tokens of one image along N; a graph never spans several images. All arithmetic is float32. A
graph is N x N, and the functions that apply it can do so in blocks of rows.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Float, Tree
from vmoe_inform.routing.masks import GivenMask, MaskRows, map_rows_of_graph, rows_of_mask, rows_of_next
from vmoe_inform.routing.products import float32_einsum, unit_vectors
from vmoe_inform.routing.steps import LayerSizes, Parameter, StepContext, register_inform

Temperature = checks.Scale | Literal["sqrt_dim"]
Metric = Literal["dot", "cosine"]


def identity_graph(graph: Array) -> Array:
    """The graph, of the same shape and type, in which every token attends to itself alone."""
    return jnp.broadcast_to(jnp.eye(graph.shape[-1], dtype=graph.dtype), graph.shape)


def weights_of_scaled(
    numerators: Float[Array, "*batch R N"],
    scale: float | Float[Array, ""],
    log_prior: Float[Array, "*batch R N"] | None = None,
    axis: int | tuple[int, ...] = -1,
) -> Float[Array, "*batch R N"]:
    """An unnormalised softmax: exp(log_prior + numerators / scale) over its largest entry along the axis.

    The weights are finite for any scale > 0, and no sum is below 1. Row constants cancel, so the largest allowed
    numerator is subtracted before the division. What then overflows becomes -inf, a weight of 0, never inf - inf.
    """
    if log_prior is None:
        return jnp.exp((numerators - _largest(numerators, axis)) / scale)
    possible = log_prior > -jnp.inf
    largest = _largest(jnp.where(possible, numerators, -jnp.inf), axis)
    exponents = jnp.where(possible, numerators - largest, 0.0) / scale + jnp.where(possible, log_prior, 0.0)
    exponents = jnp.where(possible, exponents, -jnp.inf)
    return jnp.exp(exponents - _largest(exponents, axis))


def _largest(array: Array, axis: int | tuple[int, ...]) -> Array:
    return jax.lax.stop_gradient(jnp.max(array, axis=axis, keepdims=True))


def normalize_rows(weights: Float[Array, "*batch R N"]) -> Float[Array, "*batch R N"]:
    """Rows of a token graph: the weights, scaled to sum 1."""
    return weights / jnp.sum(weights, axis=-1, keepdims=True)


def mix(weights: Float[Array, "*batch R N"], probabilities: Float[Array, "*batch N E"]) -> Float[Array, "*batch R E"]:
    """Informed probabilities of R tokens from their weights of all N tokens, up to a factor of each row.

    A column of ones in the same product yields the sums that the weights are divided by.
    """
    ones = jnp.ones((*probabilities.shape[:-1], 1), jnp.float32)
    columns = jnp.concatenate([probabilities.astype(jnp.float32), ones], axis=-1)
    mixed = float32_einsum("...ij,...je->...ie", weights, columns)
    return mixed[..., :-1] / mixed[..., -1:]


def _scale(temperature: float | str | Float[Array, ""], width: int) -> float | Float[Array, ""]:
    """The temperature as a number."""
    if isinstance(temperature, str):
        if temperature != "sqrt_dim":
            raise checks.error("temperature", "a number > 0 or 'sqrt_dim'", temperature)
        return width**0.5
    checks.positive("temperature", temperature)
    return temperature


class _Similarity(NamedTuple):
    """Tokens as queries and as keys: the graph is softmax_j(queries . keys / scale)."""

    queries: Float[Array, "*batch N D"]
    keys: Float[Array, "*batch N D"]
    scale: float | Float[Array, ""]


def _similarity_weights(
    queries: Float[Array, "*batch R D"],
    keys: Float[Array, "*batch J D"],
    scale: float | Float[Array, ""],
    mask_rows: MaskRows,
) -> Float[Array, "*batch R J"]:
    """Rows of the graph for the tokens with these queries, up to a factor of each row."""
    products = float32_einsum("...id,...jd->...ij", queries, keys)
    allowed = mask_rows.allowed(products.shape)
    return weights_of_scaled(products, scale, None if allowed is None else jnp.where(allowed, 0.0, -jnp.inf))


def _similarity(
    tokens: Float[Array, "*batch N D"],
    weight: Float[Array, "D D"] | None,
    temperature: float | str | Float[Array, ""],
    metric: str,
) -> _Similarity:
    width = tokens.shape[-1]
    if metric not in ("dot", "cosine"):
        raise checks.error("metric", "one of 'dot', 'cosine'", metric)
    scale = _scale(temperature, width)
    keys = unit_vectors(tokens) if metric == "cosine" else tokens
    if weight is None:
        return _Similarity(keys, keys, scale)
    checks.shape("weight", weight.shape, (width, width))
    return _Similarity(float32_einsum("...id,de->...ie", keys, weight), keys, scale)


def token_similarity(
    tokens: Float[Array, "*batch N D"],
    *,
    weight: Float[Array, "D D"] | None = None,
    temperature: float | str | Float[Array, ""] = 1.0,
    metric: str = "dot",
    mask: GivenMask = None,
) -> Float[Array, "*batch N N"]:
    r"""Similarity graph (Mutual-Inform SMoE, Eq. 5 and Definition 1).

    $$S_{ij} = \operatorname{softmax}_j \left( \frac{u_i^\top W_s u_j}{\tau} \right)$$

    On LayerNormed tokens the paper's setting (dot, identity weight, temperature 1) hardly mixes: S[i,i] is close to 1.
    :func:`vmoe_inform.routing.effective_neighbours` measures it.

    Args:
      tokens: [..., N, D].
      weight: W_s [D, D]; None is the identity.
      temperature: tau, a number or scalar array > 0, or ``"sqrt_dim"`` for sqrt(D).
      metric: ``"dot"``, or ``"cosine"``: tokens are scaled to length 1 first.
      mask: True where token i may attend to token j. A row without True attends to itself alone. ``"causal"``: j <= i.

    Returns:
      graph [..., N, N], float32, rows sum to 1.

    Raises:
      ValueError: temperature not > 0, unknown metric or mask, or a weight or mask whose shape does not fit.
    """
    mask_rows = rows_of_mask(mask, tokens.shape[-2])
    return normalize_rows(_similarity_weights(*_similarity(tokens, weight, temperature, metric), mask_rows))


def inform(probabilities: Float[Array, "*batch N E"], graph: Float[Array, "*batch N N"]) -> Float[Array, "*batch N E"]:
    r"""Mixes the probabilities of tokens (Mutual-Inform SMoE, Eq. 8), in float32.

    $$p_i = \sum_j S_{ij} \, r_j$$

    Args:
      probabilities: base probabilities r [..., N, E].
      graph: S [..., N, N], e.g. from :func:`token_similarity`.

    Returns:
      informed probabilities p [..., N, E].

    Raises:
      ValueError: the graph is not over the N tokens.
    """
    num_tokens = probabilities.shape[-2]
    checks.shape("graph", graph.shape, ("...", num_tokens, num_tokens))
    return float32_einsum("...ij,...je->...ie", graph, probabilities)


def similarity_informed(
    probabilities: Float[Array, "*batch N E"],
    tokens: Float[Array, "*batch N D"],
    *,
    weight: Float[Array, "D D"] | None = None,
    temperature: float | str | Float[Array, ""] = 1.0,
    metric: str = "dot",
    mask: GivenMask = None,
    block_size: int | None = None,
) -> Float[Array, "*batch N E"]:
    """Probabilities mixed over similar tokens (Mutual-Inform SMoE, Eq. 11).

    Equal to ``inform(probabilities, token_similarity(tokens))``, without the N x N graph in memory.

    Args:
      probabilities: base probabilities r [..., N, E].
      tokens: [..., N, D].
      weight: as in :func:`token_similarity`, like the next three.
      temperature: of the softmax.
      metric: ``"dot"`` or ``"cosine"``.
      mask: which tokens a token may attend to.
      block_size: rows of the graph in memory at a time, also for gradients; None: all N.

    Returns:
      informed probabilities [..., N, E], float32.

    Raises:
      ValueError: as :func:`token_similarity`, or block_size < 1.
    """
    num_tokens = tokens.shape[-2]
    checks.shape("probabilities", probabilities.shape, ("...", num_tokens, "E"))
    similarity = _similarity(tokens, weight, temperature, metric)
    columns = (similarity.keys, probabilities)
    return _mix_similar(similarity, columns, rows_of_mask(mask, num_tokens), block_size)


def _mix_similar(
    similarity: _Similarity, columns: tuple[Array, Array], mask_rows: MaskRows, block_size: int | None
) -> Float[Array, "*batch R E"]:
    """Informed probabilities of the R tokens whose queries these are, from keys and probabilities of all N."""

    def informed(rows: tuple[Array, MaskRows], columns: tuple[Array, Array]) -> Float[Array, "*batch R E"]:
        (queries, mask_rows), (keys, probabilities) = rows, columns
        return mix(_similarity_weights(queries, keys, similarity.scale, mask_rows), probabilities)

    return map_rows_of_graph(informed, similarity.queries, columns, mask_rows, block_size=block_size)


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


def _weight(context: StepContext, learned_weight: bool) -> Float[Array, "D D"] | None:
    return context.parameters["weight"] if learned_weight else None


def _similarity_graph(
    context: StepContext, *, learned_weight: bool, block_size: int | None, **options: Any
) -> Float[Array, "B N N"]:
    weight = _weight(context, learned_weight)
    return token_similarity(context.tokens, weight=weight, mask=context.graph_mask, **options)


def _similarity_columns(
    probabilities: Float[Array, "B n E"], context: StepContext, *, metric: str, **options: object
) -> Tree:
    return _similarity(context.tokens, None, 1.0, metric).keys, probabilities


def _similarity_rows(
    context: StepContext, columns: Tree, *, learned_weight: bool, block_size: int | None, **options: Any
) -> Float[Array, "B n E"]:
    similarity = _similarity(context.tokens, _weight(context, learned_weight), **options)
    return _mix_similar(similarity, columns, rows_of_next(context.tokens.shape[1], context.first), block_size)


@register_inform(
    "similarity",
    parameters=_similarity_parameters,
    graph=_similarity_graph,
    columns=_similarity_columns,
    rows=_similarity_rows,
    looks_ahead=False,
    literal={"temperature": 1.0, "metric": "dot", "learned_weight": False},
)
def similarity_step(
    probabilities: Float[Array, "B N E"],
    context: StepContext,
    *,
    temperature: Temperature = 1.0,
    metric: Metric = "dot",
    learned_weight: bool = False,
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
        mask=context.graph_mask,
        block_size=block_size,
    )
