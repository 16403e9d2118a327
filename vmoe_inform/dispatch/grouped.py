"""Which grouped product of rows and experts a program has: the compiler's own, or kernels for NVIDIA GPUs.

On GPUs the compiler's own does every row's product with every expert. The library tokamax has kernels for Ampere,
Hopper and Blackwell (compute capability 8, 9 and 10). It needs Python 3.12, and comes with the extra ``cuda``.

Its kernel for sums over the rows of each expert is not used. On an H100 that of tokamax 0.0.17 gave other sums each
time, and wrong ones.
"""

import importlib.util
import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from vmoe_inform.axes import Array

_CAPABILITIES = (8.0, 11.0)  # from the first, below the second
_TYPES = ("bfloat16", "float16")
_TILE = 128  # other sizes of a kernel's sides end with an error of the library, or were not tried


def has_kernels(dtype: Any, width: int, features: int) -> bool:
    """Whether this machine's GPU has kernels for these grouped products, and their library is installed.

    Args:
      dtype: of rows and kernels: bfloat16 or float16.
      width, features: the sides of each kernel, D and M: multiples of 128.
    """
    device = jax.devices()[0]
    try:
        capability = float(getattr(device, "compute_capability", ""))
    except (TypeError, ValueError):  # no GPU, or one of AMD
        return False
    least, above = _CAPABILITIES
    fits = jnp.dtype(dtype).name in _TYPES and not (width % _TILE or features % _TILE)
    has = device.platform == "gpu" and least <= capability < above
    return has and fits and importlib.util.find_spec("tokamax") is not None


def ragged_dot_general(dtype: Any, width: int, features: int) -> Callable[..., Array]:
    """A function with the arguments of ``jax.lax.ragged_dot_general``, for products of rows with their expert's kernel.

    Arguments as :func:`has_kernels`. The function of tokamax takes the compiler's own product itself, where a precision
    has no kernel.
    """
    if not has_kernels(dtype, width, features):
        return lax.ragged_dot_general
    import tokamax

    def product(*arguments: Any, **options: Any) -> Array:
        # Not its other kernels, which need one more library in a version that fits
        return tokamax.ragged_dot_general(*arguments, implementation=("mosaic", "xla"), **options)

    logging.getLogger("absl").addFilter(_is_of_interest)  # the same one is added once
    return product


def _is_of_interest(record: logging.LogRecord) -> bool:
    """Not what tokamax says of each product, at length, whose shape it has not been tuned for."""
    return not str(record.msg).startswith("Autotuning cache miss")
