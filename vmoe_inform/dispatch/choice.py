"""Which dispatcher ``auto`` is, for a platform and the shapes of a layer."""

import jax

from vmoe_inform.dispatch.products import LEAST_FOR_LOOP

# Where slots are this many times the assignments, a dispatcher that pays for assignments only is the faster one.
_SLOTS_THAT_COST = 1.25


def current_platform() -> str:
    """``cpu``, ``gpu`` or ``tpu``: of the mesh in use, which need not be this machine's; else JAX's default."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def choose_dispatcher(
    platform: str, *, num_choices: int, num_experts: int, capacity: int, kernel_size: int, expert_devices: int
) -> tuple[str, str]:
    """The name of a registered dispatcher, and in words why.

    Args:
      platform: from :func:`current_platform`.
      num_choices: S K of a group.
      num_experts: E.
      capacity: C.
      kernel_size: numbers in one matrix of an expert.
      expert_devices: devices over which the experts are spread.
    """
    share = num_experts * capacity / num_choices
    slots = f"{num_experts} x {capacity} slots for {num_choices} assignments of a group"
    if expert_devices > 1:
        return "gather", f"the experts are spread over {expert_devices} devices"
    if share <= _SLOTS_THAT_COST:
        return "gather", f"{slots}, {share:.2f} times as many: few stay empty"
    if platform == "cpu" and kernel_size < LEAST_FOR_LOOP:
        return "gather", f"experts of {kernel_size} numbers are too small for a loop over blocks of their rows"
    if platform == "gpu":
        return "gather", f"{slots}, {share:.2f} times as many, but no ragged product was measured on GPUs"
    return "ragged", f"{slots}, {share:.2f} times as many: empty ones would cost more than sorting"
