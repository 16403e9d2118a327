"""Memory of a step on a CPU is kept for the next step, instead of being given back to the system."""

import ctypes
import os
import pathlib

from absl import logging

# Of glibc's mallopt: nothing is mapped apart, nothing is given back, and all threads have one heap (see `mallopt(3)`).
_OPTIONS = {-4: 0, -1: -1, -8: 1}
_OF_THE_USER = ("GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_ARENA_MAX", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_")
_DEVICES = pathlib.Path("/dev")
_ACCELERATORS = ("nvidia[0-9]*", "accel[0-9]*", "accel/accel*", "vfio/[0-9]*", "kfd")


def keep_between_steps() -> None:
    """Makes glibc keep what is freed, where steps run on CPUs.

    Otherwise it gives large arrays back, and the system clears their pages again for the next step. That can take more
    than half of the processor time. What is kept is as much as was needed at once. Where a variable of the environment
    sets up or replaces the allocation of memory, that holds. So does what a machine with accelerators does by itself:
    there, steps need little memory of the host. To be called before threads are started.
    """
    if any(name in os.environ for name in _OF_THE_USER) or _has_accelerators():
        return
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return
    for option, value in _OPTIONS.items():
        set_option(option, value)
    logging.info("memory is kept between steps; MALLOC_ARENA_MAX=0 is without")


def _has_accelerators() -> bool:
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms:
        return platforms.split(",")[0] != "cpu"
    return any(next(_DEVICES.glob(name), None) for name in _ACCELERATORS)
