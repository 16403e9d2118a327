"""StableMoE (arXiv 2204.08396): learn where tokens go, distil that into a light router, freeze it and train on.

In stage 1 the tokens of the layer decide. A light router sees only the pixels and the position of a patch, and learns
to agree. In stage 2, from ``switch_step`` on, the frozen light router decides, in evaluation too. So a patch keeps its
expert. In both stages the weight of the chosen expert is the sigmoid of the layer's own score, which keeps learning.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Float, Tree
from vmoe_inform.routing.products import float32_einsum
from vmoe_inform.routing.scores import linear_scores
from vmoe_inform.routing.steps import LayerSizes, Parameter, StepContext, register_score

_LIGHT = ("embedding", "position", "centroids")  # the parameters of the light router


def _parameters(sizes: LayerSizes, *, width: int, **options: Any) -> dict[str, Parameter]:
    kernel = jax.nn.initializers.lecun_normal()
    rows = jax.nn.initializers.lecun_normal(in_axis=-1, out_axis=-2)
    return {
        "kernel": Parameter((sizes.hidden_size, sizes.num_experts), kernel),
        "embedding": Parameter((sizes.raw_input_size, width), kernel),
        "position": Parameter((sizes.num_tokens, width), rows),
        "centroids": Parameter((sizes.num_experts, width), rows),
    }


def light_scores(
    patches: Float[Array, "*batch N P"],
    embedding: Float[Array, "P W"],
    position: Float[Array, "N W"],
    centroids: Float[Array, "E W"],
) -> Float[Array, "*batch N E"]:
    r"""Logits of StableMoE's light router (arXiv 2204.08396, Sec. 3.1), here of patches.

    $$\ell_{ik} = \tanh(x_i W + p_i) \cdot c_k$$

    The paper's light router looks up the embedding of a word. The word of an image is a patch.

    Args:
      patches: x, normalised pixels [..., N, P].
      embedding: W [P, W].
      position: p [N, W].
      centroids: c [E, W].

    Returns:
      logits [..., N, E], float32.

    Raises:
      ValueError: shapes that do not fit.
    """
    num_tokens, values = patches.shape[-2:]
    checks.shape("embedding", embedding.shape, (values, "W"))
    checks.shape("position", position.shape, (num_tokens, embedding.shape[-1]))
    checks.shape("centroids", centroids.shape, ("E", embedding.shape[-1]))
    embedded = float32_einsum("...np,pw->...nw", patches, embedding)
    features = jnp.tanh(embedded + jnp.broadcast_to(position.astype(jnp.float32), embedded.shape))
    return float32_einsum("...nw,ew->...ne", features, centroids)


def _initial_state(key: Array, sizes: LayerSizes, **options: Any) -> Tree:
    """Steps done, and the light router as it was at the switch; zeros before the switch."""
    declared = _parameters(sizes, **options)
    return {"step": jnp.zeros((), jnp.int32), **{name: jnp.zeros(declared[name].shape) for name in _LIGHT}}


def _update(state: Tree, observed: Tree, parameters: Mapping[str, Array], *, switch_step: int, **options: Any) -> Tree:
    step = state["step"] + 1
    copies = {name: jnp.where(step == switch_step, parameters[name], state[name]) for name in _LIGHT}
    return {"step": step, **copies}


def _learned(context: StepContext) -> Float[Array, "B N E"]:
    return linear_scores(context.tokens, context.parameters["kernel"])


def _gates(context: StepContext, **options: object) -> Float[Array, "B N E"]:
    return jax.nn.sigmoid(_learned(context))


def _losses(context: StepContext, *, switch_step: int, **options: Any) -> dict[str, Float[Array, " B"]]:
    """Cross-entropy of the light router to the learned choice, mean over tokens, in stage 1 (paper, Sec. 3.1)."""
    assert context.state is not None
    assert context.raw_inputs is not None
    light = light_scores(context.raw_inputs, *(context.parameters[name] for name in _LIGHT))
    chosen = jax.nn.one_hot(jnp.argmax(_learned(context), axis=-1), light.shape[-1])
    entropies = -jnp.sum(chosen * jax.nn.log_softmax(light, axis=-1), axis=-1)
    return {"distillation": jnp.where(context.state["step"] < switch_step, jnp.mean(entropies, axis=-1), 0.0)}


def _check_duration(total_steps: int, *, switch_step: int, **options: Any) -> None:
    if switch_step >= total_steps:
        raise checks.error("switch_step", f"less than the {total_steps} training steps", switch_step)


@register_score(
    "distilled",
    parameters=_parameters,
    initial_state=_initial_state,
    update_state=_update,
    needs_raw_inputs=True,
    gates=_gates,
    losses=_losses,
    loss_names=("distillation",),
    takes_noise=False,  # it would move tokens that stage 2 is to leave where they are
    check_duration=_check_duration,
    selects=("top_experts",),
)
def distilled_step(
    context: StepContext,
    *,
    switch_step: checks.PositiveInt = 1000,
    width: checks.Width = 50,
    distillation_weight: checks.PositiveFloat = 0.3,
) -> Float[Array, "B N E"]:
    """Learned for ``switch_step`` updates, then a frozen light router that sees pixels only (StableMoE).

    An update is one optimizer step, however many parts its batch has. Steps that are left out
    (``train.max_nonfinite_steps``) are no updates.

    ``width`` is that of the light router's embeddings, ``distillation_weight`` of its loss (paper: 50 and 0.3).
    """
    state = context.state
    assert state is not None  # declared by initial_state
    assert context.raw_inputs is not None  # declared by needs_raw_inputs
    light = light_scores(context.raw_inputs, *(state[name] for name in _LIGHT))
    return jnp.where(state["step"] >= switch_step, light, _learned(context))
