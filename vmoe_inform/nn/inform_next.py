"""An inform step for the next tokens of a sequence, of which the tokens before are in the cache."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax

from vmoe_inform.axes import Array, Float
from vmoe_inform.nn import cache
from vmoe_inform.routing.steps import InformStep, StepContext

_OF_TOKENS = ("queries", "keys", "values", "attended", "token_entropies")  # of a record of attention


def inform_next(
    module: nn.Module,
    step: InformStep,
    probabilities: Float[Array, "B n E"],
    context: StepContext,
    options: dict[str, Any],
    most_tokens: int,
) -> Float[Array, "B n E"]:
    """What the step's function gives for n new tokens, in a pass over all tokens of the sequence.

    Args:
      module: router, whose cache is added to.
      step: mixes tokens, and looks at none behind them.
      probabilities: of the new tokens.
      context: of the new tokens.
      options: of the step.
      most_tokens: N.
    """
    record = context.attention
    new = {
        "probabilities": probabilities,
        "tokens": context.tokens,
        "raw_inputs": context.raw_inputs,
        "previous": context.previous,
        "attention": None if record is None else {name: getattr(record, name) for name in _OF_TOKENS},
    }
    seen, before = cache.append(module, f"before_{step.name}", new, most_tokens)
    of_all = dataclasses.replace(
        context,
        tokens=seen["tokens"],
        raw_inputs=seen["raw_inputs"],
        previous=seen["previous"],
        attention=None if record is None else dataclasses.replace(record, **seen["attention"]),
    )
    informed = step.function(seen["probabilities"], of_all, **options)
    return jax.lax.dynamic_slice_in_dim(informed, before, probabilities.shape[1], axis=1)
