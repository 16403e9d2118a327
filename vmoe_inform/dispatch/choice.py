"""The dispatcher that ``auto`` selects, by platform and shapes of a layer."""

import jax

from vmoe_inform.dispatch.products import LEAST_FOR_LOOP

# From this ratio of slots to assignments on, ragged products are faster than batched ones (docs/performance.md). The
# ratio is smaller on CPUs with many rows for each expert, where loops over large blocks lose little. It is larger on
# CPUs with few rows, and on TPUs, whose grouped kernels have nothing fused to them.
_SLOTS_THAT_COST_IN_LARGE_BLOCKS = 1.25
_SLOTS_THAT_COST = 3.0
_ROWS_FOR_LARGE_BLOCKS = 512  # of an expert
# On CPUs the loop over blocks pays for smaller matrices where no token is dropped: most slots are empty then.
_LEAST_WITHOUT_DROPS = 2**13


def current_platform() -> str:
    """``cpu``, ``gpu`` or ``tpu``: of the mesh in use, which need not be this machine's; else JAX's default."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def choose_dispatcher(
    platform: str,
    *,
    num_choices: int,
    num_groups: int,
    num_experts: int,
    capacity: int,
    kernel_size: int,
    expert_devices: int,
    drops: bool = True,
    grouped_kernels: bool = False,
) -> tuple[str, str]:
    """The name of a registered dispatcher, and the reason in words.

    Args:
      platform: from :func:`current_platform`.
      num_choices: S K of a group.
      num_groups: G of one device.
      num_experts: E.
      capacity: C.
      kernel_size: numbers in one matrix of an expert.
      expert_devices: devices over which the experts are spread.
      drops: whether a capacity factor limits the slots; otherwise there is one for each token.
      grouped_kernels: whether a GPU has kernels for grouped products of the layer, see
        :mod:`vmoe_inform.dispatch.grouped`.
    """
    share = num_experts * capacity / num_choices
    slots = f"{num_experts} x {capacity} slots for {num_choices} assignments of a group"
    if expert_devices > 1:
        return "gather", f"the experts are spread over {expert_devices} devices"
    small = platform == "cpu" and kernel_size < LEAST_FOR_LOOP
    large_blocks = platform == "cpu" and num_choices * num_groups >= num_experts * _ROWS_FOR_LARGE_BLOCKS and not small
    limit = _SLOTS_THAT_COST_IN_LARGE_BLOCKS if large_blocks else _SLOTS_THAT_COST
    if share <= limit:
        return "gather", f"{slots}, {share:.2f} times as many: sorting pays above {limit}"
    if small and (drops or kernel_size < _LEAST_WITHOUT_DROPS):
        return "gather", f"experts of {kernel_size} numbers are too small for a loop over blocks of their rows"
    if platform == "gpu" and not grouped_kernels:
        return "gather", f"{slots}, {share:.2f} times as many, but this GPU has no kernels for grouped products"
    name = "segments" if platform == "cpu" and not drops else "ragged"
    return name, f"{slots}, {share:.2f} times as many: empty ones would cost more than sorting"
