"""Auxiliary losses of a router, over one group: the last two axes are its S tokens and its E experts.

All are float32, for inputs of any type. Tokens that are not ``real``, padding, count nowhere; None: all are.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Bool, Float, Int
from vmoe_inform.routing.chosen import largest, values_of
from vmoe_inform.routing.selection import check_num_selected
from vmoe_inform.routing.stats import mean_over_tokens
from vmoe_inform.routing.steps import LossContext, register_loss


def _squared_variation(values: Float[Array, "*batch E"]) -> Float[Array, "*batch"]:
    """Squared coefficient of variation of values >= 0, (standard deviation / mean)^2; 0 if all are zero."""
    mean = jnp.mean(values, axis=-1, keepdims=True)
    # The division comes before the square, which for small values would vanish in float32.
    return jnp.var(values / jnp.where(mean > 0, mean, 1.0), axis=-1)


Real = Bool[Array, "*batch S"] | None
Over = Literal["group", "batch"]  # the tokens whose loads are balanced


def _of_real(values: Float[Array, "..."], real: Real) -> Float[Array, "..."]:
    """The values [..., S, C] or [..., S, K, E], 0 for tokens that are not real."""
    return values if real is None else jnp.where(real.reshape(*real.shape, *[1] * (values.ndim - real.ndim)), values, 0)


def importance_loss(probabilities: Float[Array, "*batch S E"], real: Real = None) -> Float[Array, "*batch"]:
    r"""CV^2 over experts of the summed probabilities (V-MoE, arXiv 2106.05974, Eq. 10).

    $$\left( \frac{\operatorname{std}_k I_k}{\operatorname{mean}_k I_k} \right)^2, \quad I_k = \sum_i p_{ik}$$
    """
    return _squared_variation(jnp.sum(_of_real(probabilities.astype(jnp.float32), real), axis=-2))


def load_loss(
    logits: Float[Array, "*batch S E"],
    noisy_logits: Float[Array, "*batch S E"],
    real: Real = None,
    *,
    noise_std: float,
    k: int,
) -> Float[Array, "*batch"]:
    r"""CV^2 over experts of the chance to be among the top K if the noise were drawn again (V-MoE, Eq. 11 to 14).

    $$\left( \frac{\operatorname{std}_k P_k}{\operatorname{mean}_k P_k} \right)^2, \quad
    P_k = \frac{1}{S} \sum_i \Phi \left( \frac{\ell_{ik} - \tau_i}{\sigma} \right)$$

    tau_i is the K-th largest noisy logit of token i.

    Args:
      logits: without noise.
      noisy_logits: the logits that chose the experts.
      real: False for padding.
      noise_std: standard deviation of the noise > 0, in the units of the logits.
      k: K, experts per token.

    Raises:
      ValueError: noise_std not > 0 (the loss is not defined without noise), k outside 1..E, or different shapes.
    """
    checks.positive("noise_std", noise_std)
    check_num_selected(k, logits.shape[-1])
    checks.shape("noisy_logits", noisy_logits.shape, logits.shape)
    logits, noisy_logits = logits.astype(jnp.float32), noisy_logits.astype(jnp.float32)
    threshold = largest(noisy_logits, k)[0][..., -1:]
    # P(logit + noise > threshold) = 1 - Phi((threshold - logit) / std) = Phi((logit - threshold) / std). Written with
    # erf, whose error of 1e-7 is nothing in a mean over tokens: CPUs are slow with the tiny numbers of Phi's tail.
    chances = 0.5 * (1.0 + jax.lax.erf((logits - threshold) / (noise_std * 2.0**0.5)))
    return _squared_variation(mean_over_tokens(chances, real, axis=-2))


def _shares(indices: Int[Array, "*batch S K"], num_experts: int, real: Real) -> Float[Array, "*batch E"]:
    """Share of the assignments that each expert gets; sums to 1. An index E stands for no assignment."""
    hits = jnp.sum(_of_real(jax.nn.one_hot(indices, num_experts, dtype=jnp.float32), real), axis=(-3, -2))
    sums = jnp.sum(hits, axis=-1, keepdims=True)
    return hits / (sums if real is None else jnp.maximum(sums, 1.0))


def switch_loss(
    probabilities: Float[Array, "*batch S E"], indices: Int[Array, "*batch S K"], real: Real = None
) -> Float[Array, "*batch"]:
    r"""Balance loss of the Switch Transformer (arXiv 2101.03961, Eq. 4).

    $$E \sum_k f_k P_k$$

    f_k is the share of assignments of expert k (of tokens, if K = 1), and P_k its mean probability. The loss is 1 at
    perfect balance for any K. Gradients flow through P only.

    Raises:
      ValueError: indices of other tokens than the probabilities.
    """
    checks.shape("indices", indices.shape, (*probabilities.shape[:-1], "K"))
    num_experts = probabilities.shape[-1]
    means = mean_over_tokens(probabilities.astype(jnp.float32), real, axis=-2)
    return num_experts * jnp.sum(_shares(indices, num_experts, real) * means, axis=-1)


def gshard_loss(probabilities: Float[Array, "*batch S E"], real: Real = None) -> Float[Array, "*batch"]:
    r"""Balance loss of GShard (arXiv 2006.16668, Algorithm 1).

    $$\frac{E^2}{E} \sum_k f_k m_k$$

    f_k is the share of tokens whose first choice is k, and m_k the mean probability. The factor E^2 is that of GShard's
    and V-MoE's code. The loss is 1 at perfect balance.
    """
    num_experts = probabilities.shape[-1]
    first = jax.nn.one_hot(jnp.argmax(probabilities, axis=-1), num_experts, dtype=jnp.float32)
    probabilities = probabilities.astype(jnp.float32)
    products = mean_over_tokens(first, real, axis=-2) * mean_over_tokens(probabilities, real, axis=-2)
    return num_experts**2 * jnp.mean(products, axis=-1)


def balance_loss(
    logits: Float[Array, "*batch S E"], indices: Int[Array, "*batch S K"], real: Real = None
) -> Float[Array, "*batch"]:
    r"""Balance loss of StableMoE (arXiv 2204.08396, Sec. 3.1).

    $$\frac{1}{S} \sum_k \frac{a_k - \bar a}{\bar a} \sum_{i \in k} \operatorname{sigmoid}(\ell_{ik})$$

    a_k counts the tokens of expert k; the bar is the mean over experts. Experts with more tokens than the mean have
    their scores pushed down, the others up. The loss is 0 at perfect balance.

    Raises:
      ValueError: indices of other tokens than the logits.
    """
    checks.shape("indices", indices.shape, (*logits.shape[:-1], "K"))
    size, num_experts = logits.shape[-2:]
    count = size if real is None else jnp.maximum(jnp.sum(real, axis=-1, keepdims=True), 1)
    excess = _shares(indices, num_experts, real) * num_experts - 1.0
    chosen = jax.nn.sigmoid(values_of(logits.astype(jnp.float32), indices))
    one_hot = _of_real(jax.nn.one_hot(indices, num_experts, dtype=jnp.float32), real)
    scores = jnp.einsum("...sk,...ske->...e", chosen, one_hot, precision=jax.lax.Precision.HIGHEST) / count
    return jnp.sum(excess * scores, axis=-1)


def router_z_loss(logits: Float[Array, "*batch S E"], real: Real = None) -> Float[Array, "*batch"]:
    r"""Router z-loss (ST-MoE, arXiv 2202.08906, Eq. 5).

    $$\frac{1}{S} \sum_i \Big( \log \sum_k e^{\ell_{ik}} \Big)^2$$
    """
    return mean_over_tokens(jax.nn.logsumexp(logits.astype(jnp.float32), axis=-1) ** 2, real, axis=-1)


def of_whole_batch(*, over: Over, **options: Any) -> bool:
    """Whether a loss with these options is of the whole batch."""
    return over == "batch"


def _balanced(context: LossContext, over: Over, loss: Callable[[LossContext], Float[Array, " G"]]) -> Array:
    """The loss of each group, or of the whole batch for each (global-batch balance, arXiv 2501.11873, Sec. 3)."""
    if over == "group":
        return loss(context)
    return jnp.broadcast_to(loss(context.whole_batch), context.logits.shape[:1])


@register_loss("importance", needs_whole_batch=of_whole_batch)
def importance_step(
    context: LossContext, *, weight: checks.NonNegativeFloat = 0.005, over: Over = "group"
) -> Float[Array, " G"]:
    """Variation of the experts' summed probabilities (V-MoE, arXiv 2106.05974)."""
    return _balanced(context, over, lambda part: importance_loss(part.probabilities, part.real))


@register_loss("load", needs_noise=True, needs_whole_batch=of_whole_batch)
def load_step(
    context: LossContext, *, weight: checks.NonNegativeFloat = 0.005, over: Over = "group"
) -> Float[Array, " G"]:
    """Variation of the experts' expected loads under the noise (V-MoE, arXiv 2106.05974)."""

    def loss(part: LossContext) -> Float[Array, " G"]:
        assert part.noisy_logits is not None  # declared by needs_noise
        k = part.indices.shape[-1]
        return load_loss(part.logits, part.noisy_logits, part.real, noise_std=part.noise_std, k=k)

    return _balanced(context, over, loss)


@register_loss("switch", needs_whole_batch=of_whole_batch)
def switch_step(
    context: LossContext, *, weight: checks.NonNegativeFloat = 0.01, over: Over = "group"
) -> Float[Array, " G"]:
    """Shares of the assignments times mean probabilities (Switch Transformer, arXiv 2101.03961)."""
    return _balanced(context, over, lambda part: switch_loss(part.probabilities, part.indices, part.real))


@register_loss("gshard", needs_whole_batch=of_whole_batch)
def gshard_step(
    context: LossContext, *, weight: checks.NonNegativeFloat = 0.01, over: Over = "group"
) -> Float[Array, " G"]:
    """Shares of the first choices times mean probabilities (GShard, arXiv 2006.16668)."""
    return _balanced(context, over, lambda part: gshard_loss(part.probabilities, part.real))


@register_loss("z")
def z_step(context: LossContext, *, weight: checks.NonNegativeFloat = 0.001) -> Float[Array, " G"]:
    """Squared logsumexp of the logits, which keeps them small (ST-MoE, arXiv 2202.08906)."""
    return router_z_loss(context.logits, context.real)


@register_loss("balance", needs_whole_batch=of_whole_batch)
def balance_step(
    context: LossContext, *, weight: checks.NonNegativeFloat = 0.3, over: Over = "group"
) -> Float[Array, " G"]:
    """Pushes the scores of experts with too many tokens down (StableMoE, arXiv 2204.08396)."""
    return _balanced(context, over, lambda part: balance_loss(part.logits, part.indices, part.real))
