"""StableMoE (arXiv 2204.08396): learn where tokens go, distil that into a light router, freeze it and train on.

In stage 1 the tokens of the layer decide. A light router learns to agree. Of text it sees only the word, of images only
the pixels and the position of a patch. In stage 2, from ``switch_step`` on, the frozen light router decides, in
evaluation too. So a word or a patch keeps its expert. In both stages the weight of the chosen expert is the sigmoid of
the layer's own score, which keeps learning.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vmoe_inform import checks
from vmoe_inform.axes import Array, Float, Int, Tree
from vmoe_inform.routing.products import float32_einsum
from vmoe_inform.routing.scores import linear_scores
from vmoe_inform.routing.stats import mean_over_tokens
from vmoe_inform.routing.steps import Duration, LayerSizes, Parameter, StepContext, register_score

_KERNEL = jax.nn.initializers.lecun_normal()
_ROWS = jax.nn.initializers.lecun_normal(in_axis=-1, out_axis=-2)


def _light_parameters(sizes: LayerSizes, width: int) -> dict[str, Parameter]:
    """Of the light router; one of words needs no positions."""
    centroids = Parameter((sizes.num_experts, width), _ROWS)
    if sizes.vocabulary_size is not None:
        return {"embedding": Parameter((sizes.vocabulary_size, width), _ROWS), "centroids": centroids}
    return {
        "embedding": Parameter((sizes.raw_input_size, width), _KERNEL),
        "position": Parameter((sizes.num_tokens, width), _ROWS),
        "centroids": centroids,
    }


def _parameters(sizes: LayerSizes, *, width: int, **options: Any) -> dict[str, Parameter]:
    kernel = Parameter((sizes.hidden_size, sizes.num_experts), _KERNEL)
    return {"kernel": kernel, **_light_parameters(sizes, width)}


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


def word_scores(
    words: Int[Array, "*batch N"], embedding: Float[Array, "V W"], centroids: Float[Array, "E W"]
) -> Float[Array, "*batch N E"]:
    r"""Logits of StableMoE's light router of words (arXiv 2204.08396, Sec. 3.1).

    $$\ell_{ik} = e_{x_i} \cdot c_k$$

    Args:
      words: x, token ids [..., N].
      embedding: e [V, W], of the light router alone.
      centroids: c [E, W].

    Returns:
      logits [..., N, E], float32.

    Raises:
      ValueError: centroids of another width than the embedding.
    """
    checks.shape("centroids", centroids.shape, ("E", embedding.shape[-1]))
    return float32_einsum("...nw,ew->...ne", embedding[words], centroids)


def _light(raw_inputs: Array, parameters: Mapping[str, Array]) -> Float[Array, "B N E"]:
    """Logits of the light router with these parameters, of patches or of words."""
    embedding, centroids = parameters["embedding"], parameters["centroids"]
    if "position" in parameters:
        return light_scores(raw_inputs, embedding, parameters["position"], centroids)
    return word_scores(raw_inputs, embedding, centroids)


def _initial_state(key: Array, sizes: LayerSizes, *, width: int, **options: Any) -> Tree:
    """Steps done, and the light router as it was at the switch; zeros before the switch."""
    declared = _light_parameters(sizes, width)
    return {"step": jnp.zeros((), jnp.int32), **{name: jnp.zeros(one.shape) for name, one in declared.items()}}


def _update(state: Tree, observed: Tree, parameters: Mapping[str, Array], *, switch_step: int, **options: Any) -> Tree:
    step = state["step"] + 1
    light = [name for name in state if name != "step"]  # no set: all processes have to lower the same program
    copies = {name: jnp.where(step == switch_step, parameters[name], state[name]) for name in light}
    return {"step": step, **copies}


def _learned(context: StepContext) -> Float[Array, "B N E"]:
    return linear_scores(context.tokens, context.parameters["kernel"])


def _gates(context: StepContext, **options: object) -> Float[Array, "B N E"]:
    return jax.nn.sigmoid(_learned(context))


def _losses(context: StepContext, *, switch_step: int, **options: Any) -> dict[str, Float[Array, " B"]]:
    """Cross-entropy of the light router to the learned choice, mean over real tokens, in stage 1 (paper, Sec. 3.1)."""
    assert context.state is not None
    assert context.raw_inputs is not None
    light = _light(context.raw_inputs, context.parameters)
    chosen = jax.nn.one_hot(jnp.argmax(_learned(context), axis=-1), light.shape[-1])
    entropies = -jnp.sum(chosen * jax.nn.log_softmax(light, axis=-1), axis=-1)
    return {
        "distillation": jnp.where(
            context.state["step"] < switch_step, mean_over_tokens(entropies, context.real, axis=-1), 0.0
        )
    }


def _check_duration(duration: Duration, *, switch_step: int, **options: Any) -> None:
    if switch_step >= duration.total_steps:
        raise checks.error("switch_step", f"less than the {duration.total_steps} training steps", switch_step)


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
    training_options=("distillation_weight",),
    selects=("top_experts",),
)
def distilled_step(
    context: StepContext,
    *,
    switch_step: checks.PositiveInt = 1000,
    width: checks.Width = 50,
    distillation_weight: checks.PositiveFloat = 0.3,
) -> Float[Array, "B N E"]:
    """Learned for ``switch_step`` updates, then a frozen light router that sees words or pixels only (StableMoE).

    An update is one optimizer step, however many parts its batch has. Steps that are left out
    (``train.max_nonfinite_steps``) are no updates.

    ``width`` is that of the light router's embeddings, ``distillation_weight`` of its loss (paper: 50 and 0.3).
    """
    state = context.state
    assert state is not None  # declared by initial_state
    assert context.raw_inputs is not None  # declared by needs_raw_inputs
    light = _light(context.raw_inputs, state)
    return jnp.where(state["step"] >= switch_step, light, _learned(context))
