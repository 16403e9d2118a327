"""Steps for a text that is read token by token: what is kept of the tokens before, and what it says of the next.

A model reads a text so when it writes one. Each token is handed to the steps once. A step that keeps to each token
needs nothing else. One that mixes tokens by a graph is given what it needs of those before.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from vmoe_inform.axes import Array, Float, Tree
from vmoe_inform.routing.steps import InformStep, StepContext

_OF_TOKENS = ("queries", "keys", "values", "attended", "token_entropies")  # of a record of attention


def columns(
    step: InformStep, probabilities: Float[Array, "B n E"], context: StepContext, options: Mapping[str, Any]
) -> Tree:
    """What is to be kept of n tokens, arrays [B, n, ...], of a step that mixes tokens.

    Args:
      step: mixes tokens, and looks at none behind them.
      probabilities: of the n tokens.
      context: of the n tokens.
      options: of the step.
    """
    if step.columns is not None:
        return step.columns(probabilities, context, **options)
    record = context.attention
    return {
        "probabilities": probabilities,
        "tokens": context.tokens,
        "raw_inputs": context.raw_inputs,
        "previous": context.previous,
        "attention": None if record is None else {name: getattr(record, name) for name in _OF_TOKENS},
    }


def inform_next(
    step: InformStep, context: StepContext, columns: Tree, options: Mapping[str, Any]
) -> Float[Array, "B n E"]:
    """What the step's function gives for n tokens, in a pass over all tokens of the sequence.

    Args:
      step: as of :func:`columns`.
      context: of the n tokens.
      columns: arrays [B, N, ...] of all tokens, from :func:`columns`. Those behind the n are finite, and mean nothing.
      options: of the step.
    """
    if step.rows is not None:
        return step.rows(context, columns, **options)
    record = context.attention
    of_all = dataclasses.replace(
        context,
        tokens=columns["tokens"],
        raw_inputs=columns["raw_inputs"],
        previous=columns["previous"],
        attention=None if record is None else dataclasses.replace(record, **columns["attention"]),
        first=0,
    )
    informed = step.function(columns["probabilities"], of_all, **options)
    return jax.lax.dynamic_slice_in_dim(informed, context.first, context.tokens.shape[1], axis=1)
