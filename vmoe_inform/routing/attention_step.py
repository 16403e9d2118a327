"""The attention posterior as an inform step: options, graph, and what a training step observes for the state."""

from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Float, Int, Tree
from vmoe_inform.routing import attention_reading, attention_state, evidence
from vmoe_inform.routing.attention_heads import Options, posterior_of, raw_outputs, record_of
from vmoe_inform.routing.evidence import Normalize
from vmoe_inform.routing.graphs import normalize_rows
from vmoe_inform.routing.posterior_rows import expected_distances, mix_heads
from vmoe_inform.routing.steps import LayerSizes, StepContext, register_inform

Heads = Literal["lowest_entropy", "prefix", "running", "posterior"]
Sigma = checks.Scale | Literal["sqrt_dim", "estimated"]


def _posterior_graph(context: StepContext, **options: Any) -> Float[Array, "B N N"]:
    num_tokens = context.tokens.shape[1]

    def rows_of_graph(weights: Float[Array, "B H R J"], columns: None) -> Float[Array, "B R N"]:
        rows = normalize_rows(jnp.sum(weights, axis=-3))
        return jnp.pad(rows, ((0, 0), (0, 0), (0, num_tokens - rows.shape[-1])))

    return posterior_of(context, Options(**options)).apply(rows_of_graph, None)


def _key_squares(context: StepContext, **options: Any) -> Float[Array, "B N"]:
    """|m_hj|^2, the mean over the heads that count; over all heads where each token has one of its own."""
    return jnp.mean(posterior_of(context, Options(**options)).squares, axis=1)


def _check_heads(sizes: LayerSizes, *, heads: str, **options: object) -> None:
    if sizes.causal and heads == "lowest_entropy":
        expected = "'prefix', 'running' or 'posterior' in a causal model: the mean is over later tokens too"
        raise checks.error("heads", expected, heads)


def _keeps_state(*, heads: str, sigma: float | str, **options: object) -> bool:
    return attention_state.keeps(heads, sigma)


def _initial_state(
    key: Array, sizes: LayerSizes, *, heads: str, sigma: float | str, **options: object
) -> attention_state.State:
    return attention_state.initial(sizes.num_heads, heads, sigma)


def _observe(context: StepContext, indices: Int[Array, "B N K"], **options: Any) -> dict[str, Array]:
    """Sums of what the state is an average of, over sequences and over real tokens; see :mod:`attention_state`."""
    given, found = Options(**options), dict[str, Array]()
    if given.heads == "running":
        entropies = record_of(context).head_entropies
        found |= {"entropies": jnp.sum(entropies, 0), "sequences": jnp.asarray(len(entropies), jnp.float32)}
    if given.sigma == "estimated":
        context = jax.lax.stop_gradient(context)
        posterior = posterior_of(context, given)
        squares = evidence.squared_lengths(raw_outputs(record_of(context)))[:, None]
        squares = evidence.squares_at(given.length(context), squares)
        distances = expected_distances(posterior.at_length, squares, posterior.apply)
        real = jnp.ones(distances.shape, bool) if context.real is None else context.real
        distances = jnp.sum(jnp.where(real, distances, 0.0)) / context.tokens.shape[-1]
        found |= {"distances": distances, "tokens": jnp.sum(real, dtype=jnp.float32)}
    return found


def _update_state(
    state: attention_state.State, observed: Tree, parameters: Mapping[str, Array], *, decay: float, **options: object
) -> attention_state.State:
    return attention_state.updated(state, observed, decay)


@register_inform(
    "attention",
    needs_attention=True,
    graph=_posterior_graph,
    key_squares=_key_squares,
    columns=attention_reading.columns,
    rows=attention_reading.rows,
    looks_ahead=False,
    literal={"sigma": 1.0},
    check=_check_heads,
    initial_state=_initial_state,
    stateful=_keeps_state,
    observe=_observe,
    update_state=_update_state,
    training_options=("decay",),
)
def attention_step(
    probabilities: Float[Array, "B N E"],
    context: StepContext,
    *,
    sigma: Sigma = "sqrt_dim",
    heads: Heads = "lowest_entropy",
    head_factor: bool = True,
    normalize: Normalize = "none",
    center: bool = False,
    decay: checks.ShareBelowOne = 0.9,
    block_size: checks.PositiveInt | None = None,
) -> Float[Array, "B N E"]:
    r"""Tokens inform each other by the attention posterior (Mutual-Inform SMoE, Definition 2).

    ``heads`` says which heads count. ``"lowest_entropy"`` is the one with the lowest mean entropy over the sequence
    (Eq. 15), and ``"posterior"`` sums over all (Lemma 1). ``"prefix"`` is the head with the lowest mean entropy over
    the tokens that a token may know, in a causal model those up to itself. ``"running"`` is the one whose mean entropy
    was the lowest in training: a moving average with ``decay``, kept as a state. ``head_factor=False`` drops the factor
    H of the means (Eq. 1).

    ``sigma`` is the standard deviation of an output given its head and key. The paper has 1; ``"sqrt_dim"`` is sqrt(D),
    the widest of its Table 8, and the default.
    ``"estimated"`` is the maximum-likelihood estimate of the layer, by EM over the training steps. The posterior at the
    sigma so far yields $\sigma^2 = \sum_{ihj} w_{ihj} |u_i - m_{hj}|^2 / (N D)$ over all real tokens of the batch
    (:func:`vmoe_inform.routing.posterior_distances`). The state is the moving average of sigma^2 with ``decay``.
    Evaluation uses it as it is.

    ``normalize`` scales all outputs and means to length 1 (``"unit"``) or sqrt(D) (``"sqrt_dim"``). ``center`` leaves
    out what the likelihood says of a key for all tokens alike
    (:func:`vmoe_inform.routing.evidence.centered`). In a causal model the mean output is over the tokens so far.
    """
    given = Options(
        sigma=sigma,
        heads=heads,
        head_factor=head_factor,
        normalize=normalize,
        center=center,
        decay=decay,
        block_size=block_size,
    )
    return posterior_of(context, given).apply(mix_heads, probabilities)
