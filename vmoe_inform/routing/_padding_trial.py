"""What steps keep to where texts have padding behind them, for contract.py: nothing of a text depends on it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vmoe_inform.axes import Array, Tree
from vmoe_inform.routing._trial import (
    IMAGES,
    Inputs,
    context,
    expect,
    loss_context,
    make_inputs,
    make_loss_inputs,
    of_text,
    of_tokens,
    said,
)
from vmoe_inform.routing.steps import ContextStep, InformStep, LayerSizes, LossStep, StepContext


def check_padding(step: ContextStep | LossStep, sizes: LayerSizes, options: dict[str, Any]) -> None:
    """A step says of texts with padding what it says of the texts alone: of each token, in losses, and for its state.

    Raises:
      ValueError: it does not: it looks at tokens that are not in ``context.real``.
    """
    sizes, first = of_text(sizes), max(sizes.num_tokens // 2, 1)
    real = jnp.broadcast_to(jnp.arange(sizes.num_tokens) < first, (IMAGES, sizes.num_tokens))
    if isinstance(step, LossStep):
        padded, alone = _of_loss(step, sizes, options, real, first)
    else:
        padded, alone = _of_layer(step, sizes, options, real, first)
    pairs = list(zip(*map(jax.tree.leaves, (padded, alone)), strict=True))
    same = all(np.allclose(one, other, rtol=1e-5, atol=1e-6) for one, other in pairs)
    expect(step.name, "nothing of padding behind a text (context.real)", "a difference", holds=same)


def _of_loss(step: LossStep, sizes: LayerSizes, options: dict[str, Any], real: Array, first: int) -> tuple[Tree, Tree]:
    """The loss of groups of padded texts, and of the texts alone."""
    whole = loss_context(make_loss_inputs(8, step, sizes))
    of_tokens_alone = jax.tree.map(lambda leaf: leaf[:, :first], dataclasses.replace(whole, parameters={}))
    alone = dataclasses.replace(of_tokens_alone, parameters=whole.parameters)
    tried = jax.jit(lambda here: step.function(here, **options))
    return tried(dataclasses.replace(whole, real=real)), tried(alone)


def _of_layer(
    step: ContextStep, sizes: LayerSizes, options: dict[str, Any], real: Array, first: int
) -> tuple[Tree, Tree]:
    """What the step says of padded texts, and of the texts alone."""
    inputs = make_inputs(8, step, sizes, options)
    k = min(max(sizes.num_selected_experts, step.observe_k), sizes.num_experts)
    indices = jnp.argsort(-inputs["learned"]["probabilities"], axis=-1)[..., :k]

    def of_all(here: StepContext, probabilities: Array, indices: Array) -> Tree:
        given = (probabilities,) if isinstance(step, InformStep) else ()
        losses = {} if step.losses is None else step.losses(*given, here, **options)
        observed = step.observe(here, indices, **options) if step.updates_state(options) else None
        return said(step, probabilities, here, options)[:, :first], losses, observed

    @jax.jit
    def both(inputs: Inputs) -> tuple[Tree, Tree]:
        whole, probabilities = context(inputs, sizes.mask), inputs["learned"]["probabilities"]
        with_padding = dataclasses.replace(whole, real=real)
        of_real = jnp.where(real[..., None], indices, sizes.num_experts)
        alone = of_tokens(whole, slice(0, first))
        padded = of_all(with_padding, probabilities, of_real)
        return padded, of_all(alone, probabilities[:, :first], indices[:, :first])

    return both(inputs)
