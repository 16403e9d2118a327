"""Which grouped product of rows and experts a program has: the compiler's own, or kernels for NVIDIA GPUs.

On GPUs the compiler's own may do every row's product with every expert. The library tokamax has kernels for Ampere,
Hopper and Blackwell (compute capability 8, 9 and 10). It needs Python 3.12, and comes with the extra ``cuda``.
"""

import importlib.util
from collections.abc import Callable

import jax
from jax import lax

from vmoe_inform.axes import Array

_CAPABILITIES = (8.0, 11.0)  # from the first, below the second


def has_kernels() -> bool:
    """Whether this machine's GPU has kernels for grouped products, and the library that they are in is installed."""
    device = jax.devices()[0]
    try:
        capability = float(getattr(device, "compute_capability", ""))
    except (TypeError, ValueError):  # no GPU, or one of AMD
        return False
    least, above = _CAPABILITIES
    return device.platform == "gpu" and least <= capability < above and importlib.util.find_spec("tokamax") is not None


def ragged_dot_general() -> Callable[..., Array]:
    """A function with the arguments of ``jax.lax.ragged_dot_general``.

    That of tokamax takes the compiler's own product itself, where a type, a shape or a precision has no kernel.
    """
    if not has_kernels():
        return lax.ragged_dot_general
    import tokamax

    return tokamax.ragged_dot_general
