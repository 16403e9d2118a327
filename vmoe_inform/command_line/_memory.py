"""Memory of a step on a CPU is kept for the next step, instead of being given back to the system."""

import ctypes
import os
import pathlib

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # glibc's M_TRIM_THRESHOLD, ..., see mallopt(3)
# Nothing is given back, nothing is mapped apart, and all threads have one heap.
_OPTIONS = {_TRIM_THRESHOLD: -1, _MMAP_MAX: 0, _ARENA_MAX: 1}
_DEVICES = pathlib.Path("/dev")
_ACCELERATORS = ("nvidia[0-9]*", "accel[0-9]*", "accel/accel*", "vfio/[0-9]*", "kfd")


def keep_between_steps() -> None:
    """Makes glibc keep what is freed, where steps run on CPUs.

    Otherwise it gives large arrays back, and the system clears their pages again for the next step. That can take more
    than half of the processor time. Where a variable of the environment sets up or replaces the allocation of memory,
    that holds. On machines with accelerators nothing is changed: there, steps need little memory of the host. To be
    called before threads are started.
    """
    if _is_set_up() or _has_accelerators():
        return
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return
    for option, value in _OPTIONS.items():
        set_option(option, value)


def _is_set_up() -> bool:
    """Whether the user has chosen an allocator, or settings of glibc's."""
    of_glibc = any(name.startswith("MALLOC_") for name in os.environ)
    return of_glibc or "LD_PRELOAD" in os.environ or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")


def _has_accelerators() -> bool:
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms:
        return platforms.split(",")[0] != "cpu"
    return any(next(_DEVICES.glob(name), None) for name in _ACCELERATORS)
