"""Measures of what a router does."""

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Bool, Float, Int
from vmoe_inform.routing.selection import check_num_selected


def _entropy(rows: Float[Array, "*batch M"]) -> Float[Array, "*batch"]:
    """Entropy in nats of rows scaled to sum 1; 0 for a zero row."""
    sums = jnp.sum(rows, axis=-1)
    logs = jnp.sum(rows * jnp.log(jnp.where(rows > 0, rows, 1.0)), axis=-1)
    # Of shares p = r / s: -sum p log p = log s - sum r log r / s, which needs no array of shares.
    positive = sums > 0
    sums = jnp.where(positive, sums, 1.0)
    return jnp.where(positive, jnp.log(sums) - logs / sums, 0.0)


def routing_entropy(probabilities: Float[Array, "*batch N E"]) -> Float[Array, "*batch N"]:
    r"""Entropy in nats of each token's choice (Mutual-Inform SMoE, Sec. 3.3); rows are scaled to sum 1 (Symphony).

    $$H_i = -\sum_k p_{ik} \log p_{ik}$$
    """
    return _entropy(probabilities.astype(jnp.float32))


def effective_neighbours(graph: Float[Array, "*batch N N"]) -> Float[Array, "*batch N"]:
    r"""How many tokens each token mixes: exp(entropy) of its row of the graph.

    $$\exp \left( -\sum_j S_{ij} \log S_{ij} \right)$$

    It is 1 if a token attends to one token alone, and N if it attends to all alike.
    """
    return jnp.exp(_entropy(graph.astype(jnp.float32)))


def mean_over_tokens(
    values: Float[Array, "..."], real: Bool[Array, "*batch N"] | None, *, axis: int
) -> Float[Array, "..."]:
    """Mean over the real tokens, 0 where there is none.

    Args:
      values: [..., N] or [..., N, C].
      real: False for padding; None if all tokens are real.
      axis: of the tokens.
    """
    if real is None:
        return jnp.mean(values, axis=axis)
    real = real.reshape(*real.shape, *[1] * (values.ndim - real.ndim))
    return jnp.sum(jnp.where(real, values, 0.0), axis=axis) / jnp.maximum(jnp.sum(real, axis=axis), 1)


def softmax_entropy(logits: Float[Array, "*batch M"]) -> Float[Array, "*batch"]:
    """Entropy in nats of softmax(logits) along the last axis, in float32.

    It is logsumexp - mean logit, without the softmax. Logits may be -inf, but not all of a row.
    """
    logits = logits.astype(jnp.float32)
    below = logits - jnp.max(logits, axis=-1, keepdims=True)
    weights = jnp.exp(below)
    sums = jnp.sum(weights, axis=-1)
    return jnp.log(sums) - jnp.sum(weights * jnp.where(below > -jnp.inf, below, 0.0), axis=-1) / sums


def fluctuation_rate(
    indices_before: Int[Array, "*batch N K"], indices_after: Int[Array, "*batch N K"]
) -> Float[Array, ""]:
    """Share of tokens whose *set* of K experts changed (Mutual-Inform SMoE, Fig. 2), over all leading axes.

    Args:
      indices_before: experts of each token [..., N, K].
      indices_after: experts of the same tokens at another checkpoint.

    Raises:
      ValueError: the two have different shapes.
    """
    checks.shape("indices_after", indices_after.shape, indices_before.shape)
    changed = jnp.any(jnp.sort(indices_before, axis=-1) != jnp.sort(indices_after, axis=-1), axis=-1)
    return jnp.mean(changed.astype(jnp.float32))


def collapsed_sequences(
    indices: Int[Array, "*batch N K"], real: Bool[Array, "*batch N"] | None = None
) -> Bool[Array, "*batch"]:
    """Whether all tokens of a sequence (image) have the same first expert: the router does not tell them apart.

    A token without an expert (index E) counts as one with another expert than the rest.

    Args:
      indices: experts of each token, the first choice first.
      real: False for padding, which is left out; None if all tokens are real. Without any real token it is True.
    """
    first = indices[..., 0]
    if real is None:
        return jnp.all(first == first[..., :1], axis=-1)
    a_real_one = jnp.take_along_axis(first, jnp.argmax(real, axis=-1)[..., None], axis=-1)
    return jnp.all((first == a_real_one) | ~real, axis=-1)


def expert_load(indices: Int[Array, "*batch N K"], num_experts: int) -> Float[Array, " E"]:
    """Share of all assignments that each expert gets; sums to 1."""
    return jnp.mean(jax.nn.one_hot(indices.reshape(-1), num_experts, dtype=jnp.float32), axis=0)


def topk_margin(probabilities: Float[Array, "*batch N E"], k: int) -> Float[Array, "*batch N"]:
    r"""How far each token is from another choice: the margin of SymphonySMoE's Proposition 1.

    $$p_{(k)} - p_{(k+1)}$$

    These are the k-th and (k+1)-th largest probability. For k = E no other choice exists, and the margin is infinite.

    Raises:
      ValueError: k outside 1..E.
    """
    num_experts = probabilities.shape[-1]
    check_num_selected(k, num_experts)
    if k == num_experts:
        return jnp.full(probabilities.shape[:-1], jnp.inf, jnp.float32)
    largest = jax.lax.top_k(probabilities.astype(jnp.float32), k + 1)[0]
    return largest[..., k - 1] - largest[..., k]


def spectral_gap(adjacency: Float[Array, "E E"]) -> Float[Array, ""]:
    r"""Spectral gap of the adjacency (SymphonySMoE, Proposition 1); 1 for a single expert.

    $$1 - |\lambda_2|$$

    lambda_2 is the eigenvalue with the second largest magnitude. The matrix need not be symmetric. JAX computes its
    eigenvalues on the CPU backend only.

    Raises:
      ValueError: the adjacency is not square.
    """
    checks.shape("adjacency", adjacency.shape, (adjacency.shape[-1], adjacency.shape[-1]))
    magnitudes = jnp.sort(jnp.abs(jnp.linalg.eigvals(adjacency.astype(jnp.float32))))
    return 1.0 - (magnitudes[-2] if magnitudes.shape[0] > 1 else jnp.zeros(()))
