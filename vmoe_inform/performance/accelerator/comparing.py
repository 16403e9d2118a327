"""Compares a fast path with its reference: outputs and gradients, on the device that JAX has."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from vmoe_inform.axes import Tree
from vmoe_inform.performance.accelerator.results import PathRow

Make: TypeAlias = Callable[[np.random.Generator], Tree]
Function: TypeAlias = Callable[[Tree], Tree]

# Rounding of sums of a few thousand products: of float32 at the highest precision, and of bfloat16
ALLOWED = {"float32": 1e-4, "bfloat16": 4e-2}
# An array that is much smaller than others of its kind, or zero but for rounding, is compared with those.
_LEAST_OF_LARGEST = 1e-2
_NOTE_LENGTH = 200


@dataclasses.dataclass(frozen=True)
class Path:
    """A fast path and the obvious way to compute the same.

    Attributes:
      group, name, reference_name: see :class:`PathRow`.
      make: random inputs, float32: a tree of arrays, for all of which there are gradients.
      fast: inputs, of the type that is compared -> outputs.
      reference: the same inputs as float32 -> the same outputs.
      dtypes: types to compare.
      unavailable: why this device cannot do it; empty if it can.
    """

    group: str
    name: str
    reference_name: str
    make: Make
    fast: Callable[[str], Function]
    reference: Function
    dtypes: Sequence[str] = ("float32",)
    unavailable: str = ""


def compare(path: Path, dtype: str) -> PathRow:
    """Runs both ways on the same numbers, rounded to ``dtype``; an error of the fast one is a note of the row."""
    allowed = ALLOWED[dtype]
    row = PathRow(path.group, path.name, path.reference_name, dtype, None, None, allowed, None, path.unavailable)
    if path.unavailable:
        return row
    random = np.random.default_rng(0)
    inputs = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), path.make(random))
    exact = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), inputs)
    shapes = jax.eval_shape(path.reference, exact)
    directions = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(np.float32), shapes)
    with jax.default_matmul_precision("highest"):
        expected = _with_gradients(path.reference)(exact, directions)
    try:
        with jax.default_matmul_precision("highest" if dtype == "float32" else None):
            found = _with_gradients(path.fast(dtype))(inputs, directions)
        error, gradient_error = (_error(*pair) for pair in zip(found, expected, strict=True))
    except Exception as problem:  # whatever a compiler or kernel says, the other paths are still compared
        return dataclasses.replace(row, agrees=False, note=in_short(problem))
    if error is None or gradient_error is None:
        return dataclasses.replace(row, error=error, gradient_error=gradient_error, agrees=False, note="not finite")
    agrees = max(error, gradient_error) <= allowed
    return dataclasses.replace(row, error=error, gradient_error=gradient_error, agrees=agrees)


def in_short(problem: BaseException) -> str:
    """An error of a compiler or library in one line."""
    line = next((line.strip() for line in str(problem).splitlines() if line.strip()), "")
    return f"{type(problem).__name__}: {line}"[:_NOTE_LENGTH]


@functools.cache  # several paths have one reference
def _with_gradients(function: Function) -> Callable[[Tree, Tree], tuple[Tree, Tree]]:
    """(inputs, directions) -> outputs, and the gradients of the sum of outputs times directions."""

    @functools.partial(jax.jit, compiler_options=_compiler_options())
    def run(inputs: Tree, directions: Tree) -> tuple[Tree, Tree]:
        outputs, pull_back = jax.vjp(function, inputs)
        typed = jax.tree.map(lambda direction, output: direction.astype(output.dtype), directions, outputs)
        return outputs, pull_back(typed)[0]

    return run


def _compiler_options() -> dict[str, int] | None:
    """On a GPU, no trials of which kernel is fastest: they are most of the time that compiling takes."""
    return {"xla_gpu_autotune_level": 0} if jax.devices()[0].platform == "gpu" else None


def _error(found: Tree, expected: Tree) -> float | None:
    """Largest difference over the largest value, of all arrays the largest; None if it is not finite."""
    pairs = [
        [np.asarray(array.astype(jnp.float32), np.float64) for array in pair]
        for pair in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    ]
    least = _LEAST_OF_LARGEST * max(_largest(wanted) for _, wanted in pairs)
    errors = [_largest(got - wanted) / (max(_largest(wanted), least) or 1.0) for got, wanted in pairs]
    return max(errors) if all(map(math.isfinite, errors)) else None


def _largest(array: np.ndarray) -> float:
    return float(np.max(np.abs(array), initial=0.0))
