"""Plug-in steps of a router, tried out on made-up inputs before a model of text relies on them.

A plug-in is free in what it does, and no loss shows what it does wrong with text. A token that knows of later ones
makes the loss smaller.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from vmoe_inform.config import ModelConfig, options_of
from vmoe_inform.nn.router import variable_steps
from vmoe_inform.routing import contract
from vmoe_inform.routing.steps import LayerSizes, all_steps

_PACKAGE = __name__.partition(".")[0]
_MOST_TOKENS, _MOST_WORDS = 5, 16  # of a trial


def check_trained(model: ModelConfig) -> None:
    """Raises ValueError for a plug-in step that in a causal model looks at later tokens, or in a classifier at padding.

    Args:
      model: of text.
    """
    if model.layer_sizes.causal:
        _try(model, contract.check_causal)
    if model.num_classes is not None:
        _try(model, contract.check_padding)


def check_reads(model: ModelConfig) -> None:
    """Raises ValueError for a plug-in step that says of a text token by token something else than of the whole text.

    Args:
      model: causal.
    """
    _try(model, contract.check_reading)


def _try(model: ModelConfig, check: Callable[..., Any]) -> None:
    sizes = model.layer_sizes
    words = None if sizes.vocabulary_size is None else min(sizes.vocabulary_size, _MOST_WORDS)
    sizes = dataclasses.replace(sizes, num_tokens=min(sizes.num_tokens, _MOST_TOKENS), vocabulary_size=words)
    for step in variable_steps(model.router):
        if step.function.__module__.partition(".")[0] != _PACKAGE:  # the tests try the package's own
            _try_once(check, step.name, step.function, sizes, tuple(options_of(model.router, step).items()))


@functools.lru_cache(maxsize=256)
def _try_once(
    check: Callable[..., Any], name: str, function: Callable[..., Any], sizes: LayerSizes, options: tuple[Any, ...]
) -> None:
    """Tries a step once in a process; a step of the same name with another function is another one."""
    del function
    check(all_steps()[name], sizes, dict(options))
