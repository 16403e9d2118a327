"""Scores: tokens -> logits over experts."""

import math
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Bool, Float, Int
from vmoe_inform.routing.products import float32_einsum, unit_vectors
from vmoe_inform.routing.steps import Growth, LayerSizes, Parameter, StepContext, register_score

PositiveShare = Annotated[float, checks.Bound(at_least=1e-6, at_most=1.0)]

_NEVER = -1e4  # a logit whose probability is 0 in float32 if another logit is 0
_KERNEL = jax.nn.initializers.lecun_normal()
_EMBEDDINGS = jax.nn.initializers.lecun_normal(in_axis=-1, out_axis=-2)  # one row for each expert


def linear_scores(
    tokens: Float[Array, "*batch N D"],
    kernel: Float[Array, "D E"],
    bias: Float[Array, " E"] | None = None,
) -> Float[Array, "*batch N E"]:
    r"""Linear router (V-MoE, arXiv 2106.05974, Eq. 2, without bias; Mutual-Inform SMoE, Sec. 1.2, with bias).

    $$\ell_{ik} = u_i \cdot w_k + b_k$$

    Args:
      tokens: u [..., N, D].
      kernel: w [D, E].
      bias: b [E] or None.

    Returns:
      logits [..., N, E], float32, whatever the type of the tokens.

    Raises:
      ValueError: a kernel or bias whose shape does not fit.
    """
    checks.shape("kernel", kernel.shape, (tokens.shape[-1], "E"))
    if bias is not None:
        checks.shape("bias", bias.shape, kernel.shape[-1:])
    logits = float32_einsum("...nd,de->...ne", tokens, kernel)
    return logits if bias is None else logits + jnp.broadcast_to(bias.astype(jnp.float32), logits.shape)


def cosine_scores(
    tokens: Float[Array, "*batch N D"],
    projection: Float[Array, "D d"],
    expert_embeddings: Float[Array, "E d"],
    temperature: float | Float[Array, ""],
) -> Float[Array, "*batch N E"]:
    r"""Cosine router (X-MoE, arXiv 2204.09179, Eq. 4).

    $$\ell_{ik} = \frac{\cos(P^\top u_i, e_k)}{\tau}$$

    Args:
      tokens: u [..., N, D].
      projection: P [D, d], to the low dimension d of the expert embeddings.
      expert_embeddings: e [E, d].
      temperature: tau, a number or scalar array > 0.

    Returns:
      logits [..., N, E], float32; a token whose projection is zero has zero logits.

    Raises:
      ValueError: if temperature is a number that is not > 0, or shapes do not fit.
    """
    checks.positive("temperature", temperature)
    checks.shape("projection", projection.shape, (tokens.shape[-1], "d"))
    checks.shape("expert_embeddings", expert_embeddings.shape, ("E", projection.shape[-1]))
    projected = linear_scores(tokens, projection)
    embeddings = unit_vectors(expert_embeddings)
    cosines = float32_einsum("...nd,ed->...ne", unit_vectors(projected), embeddings)
    return cosines / temperature


def soft_slot_scores(
    tokens: Float[Array, "*batch N D"], slots: Float[Array, "E P D"], scale: float | Float[Array, ""]
) -> Float[Array, "*batch N E P"]:
    r"""Logits of tokens and slots (Soft MoE, arXiv 2308.00951, Algorithm 2).

    $$\ell_{ies} = \alpha \cos(u_i, \phi_{es})$$

    Args:
      tokens: u [..., N, D].
      slots: phi [E, P, D], the P slots of each expert.
      scale: alpha, a number or scalar array.

    Returns:
      slot logits [..., N, E, P], float32.

    Raises:
      ValueError: slots of another width than the tokens.
    """
    checks.shape("slots", slots.shape, ("E", "P", tokens.shape[-1]))
    return scale * float32_einsum("...nd,epd->...nep", unit_vectors(tokens), unit_vectors(slots))


def hash_scores(table: Int[Array, "N K"], num_experts: int) -> Float[Array, "N E"]:
    """Logits of a fixed table: the K experts of an id share it alike (hash layers, arXiv 2106.04426, Sec. 3).

    Args:
      table: distinct experts of each id [N, K]; for images the id is the position of the token.
      num_experts: E.

    Returns:
      logits [N, E]: 0 for the experts of the id, and -1e4 for the others, whose probability is then 0.
    """
    chosen = jnp.sum(jax.nn.one_hot(table, num_experts, dtype=jnp.float32), axis=-2)
    return jnp.where(chosen > 0, 0.0, _NEVER)


def balanced_table(key: Array, num_ids: int, num_experts: int, k: int) -> Int[Array, "N K"]:
    """A random table for :func:`hash_scores`, with every choice spread over the experts as evenly as N allows.

    Args:
      key: a JAX random key.
      num_ids: N.
      num_experts: E.
      k: K, experts of each id.

    Raises:
      ValueError: k outside 1..E.
    """
    if not 1 <= k <= num_experts:
        raise checks.error("k", f"an integer from 1 to {num_experts} (experts)", k)
    ids_key, order_key = jax.random.split(key)
    first = jax.random.permutation(ids_key, jnp.arange(num_ids) % num_experts)
    later = jax.random.permutation(order_key, jnp.arange(1, num_experts))[: k - 1]
    offsets = jnp.concatenate([jnp.zeros((1,), later.dtype), later])
    return (first[:, None] + offsets[None, :]) % num_experts


def linear_parameters(sizes: LayerSizes, *, bias: bool) -> dict[str, Parameter]:
    """Of a linear router."""
    parameters = {"kernel": Parameter((sizes.hidden_size, sizes.num_experts), _KERNEL)}
    if bias:
        parameters["bias"] = Parameter((sizes.num_experts,), jax.nn.initializers.zeros)
    return parameters


@register_score("linear", parameters=linear_parameters)
def linear_step(context: StepContext, *, bias: bool = False) -> Float[Array, "B N E"]:
    """The learned linear router of V-MoE; ``bias=True`` is the SMoE of the papers."""
    parameters = context.parameters
    return linear_scores(context.tokens, parameters["kernel"], parameters["bias"] if bias else None)


def _cosine_parameters(sizes: LayerSizes, *, width: int | None, temperature: float) -> dict[str, Parameter]:
    low = max(8, math.ceil(sizes.num_experts / 2)) if width is None else width
    return {
        "projection": Parameter((sizes.hidden_size, low), _KERNEL),
        "expert_embeddings": Parameter((sizes.num_experts, low), _EMBEDDINGS),
        "log_temperature": Parameter((), jax.nn.initializers.constant(math.log(temperature))),
    }


@register_score("cosine", parameters=_cosine_parameters)
def cosine_step(
    context: StepContext, *, width: checks.Width | None = None, temperature: checks.Scale = 0.3
) -> Float[Array, "B N E"]:
    """Cosine to expert embeddings in a low dimension (X-MoE, arXiv 2204.09179); the temperature is learned.

    ``width`` is that dimension, E/2 rounded up and at least 8 where it is None; ``temperature`` is where it starts.
    """
    parameters = context.parameters
    return cosine_scores(
        context.tokens,
        parameters["projection"],
        parameters["expert_embeddings"],
        jnp.exp(parameters["log_temperature"]),
    )


def _frozen_kernel(key: Array, sizes: LayerSizes, **options: object) -> Float[Array, "D E"]:
    return _KERNEL(key, (sizes.hidden_size, sizes.num_experts), jnp.float32)


def _growth(sizes: LayerSizes, *, k_start: int | None, k_end: int | None, growth_share: float) -> Growth | None:
    if k_start is None:
        return None
    return Growth(k_start, sizes.num_selected_experts if k_end is None else k_end, growth_share)


def _check_growth(sizes: LayerSizes, **options: Any) -> None:
    growth = _growth(sizes, **options)
    if growth is None:
        if options["k_end"] is not None:
            raise checks.error("k_end", "None when k_start is None (K does not grow)", options["k_end"])
        return
    if growth.k_end > sizes.num_experts:
        raise checks.error("k_end", f"at most model.moe.num_experts = {sizes.num_experts}", growth.k_end)
    if growth.k_start > growth.k_end:
        raise checks.error("k_start", f"at most the K at the end, {growth.k_end}", growth.k_start)


@register_score(
    "frozen",
    initial_state=_frozen_kernel,
    growth=_growth,
    check=_check_growth,
    training_options=("k_start", "k_end", "growth_share"),
)
def frozen_step(
    context: StepContext,
    *,
    k_start: checks.Width | None = None,
    k_end: checks.Width | None = None,
    growth_share: PositiveShare = 1.0,
) -> Float[Array, "B N E"]:
    """Random and never trained (SMoE-dropout, arXiv 2303.01610).

    In training K grows from ``k_start`` to ``k_end`` over ``growth_share`` of the steps. Without ``k_start`` it is
    constant. ``k_end`` None is the K of the layer, which evaluation always uses. The kernel is a state, out of the
    optimizer's reach.
    """
    assert context.state is not None  # declared by initial_state
    return linear_scores(context.tokens, context.state)


def _hash_table(key: Array, sizes: LayerSizes, *, ids: str) -> Float[Array, "N E"] | Bool[Array, "V E"]:
    """Logits of the positions; of a vocabulary, which may be large, only whether an expert is that of the id."""
    num_ids = sizes.num_tokens if ids == "position" else sizes.vocabulary_size
    assert num_ids is not None  # checked by _check_ids
    table = balanced_table(key, num_ids, sizes.num_experts, sizes.num_selected_experts)
    logits = hash_scores(table, sizes.num_experts)
    return logits if ids == "position" else logits == 0


def _check_ids(sizes: LayerSizes, *, ids: str) -> None:
    if ids == "vocabulary" and sizes.vocabulary_size is None:
        raise checks.error("ids", "'position' (the tokens of an image have no ids of a vocabulary)", ids)


@register_score("hash", initial_state=_hash_table, check=_check_ids, needs_raw_inputs=True)
def hash_step(context: StepContext, *, ids: Literal["position", "vocabulary"] = "position") -> Float[Array, "B N E"]:
    """A fixed random table of experts, balanced over these (hash layers, arXiv 2106.04426).

    ``ids`` says what has its experts: the position of a token, or its id in the vocabulary, the paper's choice.
    """
    assert context.state is not None  # declared by initial_state
    if ids == "position":
        num_tokens = context.tokens.shape[-2]  # a text may be shorter, and may be read in parts
        logits = jax.lax.dynamic_slice_in_dim(context.state, context.first, num_tokens)
        return jnp.broadcast_to(logits, (*context.tokens.shape[:-1], logits.shape[-1]))
    assert context.raw_inputs is not None  # declared by needs_raw_inputs
    return jnp.where(context.state[context.raw_inputs], 0.0, _NEVER)


def _soft_slots(sizes: LayerSizes, *, slots_per_expert: int | None) -> dict[str, Parameter]:
    # As many slots as tokens, the paper's setting, where E divides N.
    slots = math.ceil(sizes.num_tokens / sizes.num_experts) if slots_per_expert is None else slots_per_expert
    return {
        "slots": Parameter((sizes.num_experts, slots, sizes.hidden_size), _EMBEDDINGS),
        "scale": Parameter((), jax.nn.initializers.ones),
    }


def _slot_logits(context: StepContext, **options: object) -> Float[Array, "B N E P"]:
    return soft_slot_scores(context.tokens, context.parameters["slots"], context.parameters["scale"])


@register_score("soft_slots", parameters=_soft_slots, slot_logits=_slot_logits, takes_noise=False)
def soft_slots_step(context: StepContext, *, slots_per_expert: checks.Width | None = None) -> Float[Array, "B N E"]:
    """Cosine to the slots of each expert (Soft MoE); an expert's logit is the logsumexp over its slots.

    So the softmax over experts is the share of each expert's slots in the token's output. ``slots_per_expert`` None:
    N/E, rounded up.
    """
    return jax.nn.logsumexp(_slot_logits(context), axis=-1)
