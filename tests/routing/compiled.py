"""The public functions of routing, each of them one program.

As they are, every operation of a function is compiled by itself, for every shape, which takes ten times as long. Hence
only test_public_functions.py and test_steps.py, which look at each function and each step, call them so.
"""

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import vmoe_inform.routing


@functools.cache
def _program(function: Callable[..., Any], fixed: tuple[tuple[str, type, Any], ...]) -> Callable[..., Any]:
    options = {name: value for name, _, value in fixed}  # types tell 1 from True
    return jax.jit(lambda arrays: function(**arrays, **options))


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as a program whose arguments are the arrays that it is given; all else is fixed."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        given = signature.bind(*arguments, **options).arguments
        arrays = {name: value for name, value in given.items() if isinstance(value, jax.Array | np.ndarray)}
        fixed = tuple((name, type(value), value) for name, value in given.items() if name not in arrays)
        return _program(function, fixed)(arrays)

    return call


routing = types.SimpleNamespace(
    **{name: compiled(getattr(vmoe_inform.routing, name)) for name in vmoe_inform.routing.__all__}
)
