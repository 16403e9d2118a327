"""Sizes of the device mesh, and whether batches can be shared out over it."""

import math

from vmoe_inform import checks, dispatch
from vmoe_inform.config.settings import Config, ModelConfig


def mesh_sizes(config: Config, num_devices: int, num_slices: int = 1) -> dict[str, int]:
    """Sizes of the axes ``replica``, ``fsdp`` and ``expert`` of the mesh over ``num_devices`` devices.

    An ``expert`` of None becomes the greatest common divisor of the experts and the devices of a slice. With more
    devices than experts every device has one expert, in several replicas. Otherwise a device may have several experts.
    Where the dispatcher needs all experts on every device, it is 1. A ``replica`` of None takes the devices that
    are left.

    Raises:
      ValueError: the sizes do not multiply to the devices, or a batch cannot be shared out in whole groups.
    """
    replica, fsdp, expert = config.mesh.replica, config.mesh.fsdp, config.mesh.expert
    for field, size in (("mesh.replica", replica or 1), ("mesh.fsdp", fsdp), ("mesh.expert", expert or 1)):
        if num_devices % size:
            raise checks.error(field, f"a divisor of the {num_devices} devices", size)
    if expert is None:
        others = (num_slices if replica is None else replica) * fsdp
        left = num_devices // math.gcd(num_devices, others)
        expert = math.gcd(config.model.moe.num_experts, left) if spreads_experts(config.model) else 1
    if replica is None:
        replica = max(1, num_devices // (fsdp * expert))
    if replica * fsdp * expert != num_devices:
        raise checks.error("mesh", f"replica x fsdp x expert = {num_devices} devices", f"{replica} x {fsdp} x {expert}")
    accumulation = config.train.gradient_accumulation_steps
    _check_batch("train.batch_size", config.train.batch_size, config, num_devices, accumulation)
    check_evaluation_batch(config, num_devices)
    return {"replica": replica, "fsdp": fsdp, "expert": expert}


def check_evaluation_batch(config: Config, num_devices: int) -> None:
    """Raises ValueError if a batch of evaluation cannot be shared out over the devices in whole groups."""
    _check_batch("evaluation.batch_size", config.evaluation.batch_size, config, num_devices)


def _check_batch(field: str, size: int, config: Config, num_devices: int, parts: int = 1) -> None:
    group = config.model.moe.group_size_sequences
    if size % (num_devices * group * parts):
        raise checks.error(
            field,
            f"a multiple of {num_devices} devices x {group} sequences of a group"
            + (f" x {parts} accumulation steps" if parts > 1 else ""),
            size,
        )


def spreads_experts(model: ModelConfig) -> bool:
    """Whether the experts may lie on different devices."""
    return bool(model.moe_layers) and model.moe.dispatch not in dispatch.NEED_ALL_EXPERTS
