"""Whether the kernel of the experts' MLPs, which is an option, can do a layer's work.

It is for experts with equally many rows, as ``gather``, ``einsum`` and slots have them. ``ragged`` and ``segments``
have products of their own.
"""

from typing import Any, Literal, TypeAlias

import jax

from vmoe_inform import checks
from vmoe_inform.dispatch import current_platform
from vmoe_inform.nn import fused_experts
from vmoe_inform.sharding.chips import Tpu, chip_of

Implementation: TypeAlias = Literal["xla", "fused"]


def check_kernel(num_rows: int, width: int, hidden_size: int, dtype: Any, dropout_rate: float) -> None:
    """Raises ValueError where the kernel cannot be had.

    Args:
      num_rows: T of an expert on one device.
      width: D.
      hidden_size: M.
      dtype: of the products.
      dropout_rate: of the hidden layer, 0 without dropout.
    """
    reason = unavailable()
    if not reason and not fused_experts.fits(num_rows, width, hidden_size, dtype, dropout_rate):
        name = jax.numpy.dtype(dtype).name
        sizes = f"{num_rows} rows, D = {width}, M = {hidden_size}, {name}, dropout {dropout_rate}"
        reason = f"the kernel cannot do {sizes}"
    if reason:
        raise checks.error("model.moe.expert_mlp", f"'xla' ({reason})", "fused")


def unavailable() -> str:
    """Why the device in use cannot have the kernel; empty if it can."""
    if current_platform() != "tpu":
        return "the kernel is for TPUs"
    device = jax.sharding.get_abstract_mesh().abstract_device
    kind = jax.devices()[0].device_kind if device is None else device.device_kind
    chip = chip_of(kind)
    if isinstance(chip, Tpu) and chip.vmem_bytes < fused_experts.VMEM_BYTES:
        return f"a {kind} has less than {fused_experts.VMEM_BYTES // 2**20} MiB of memory for a kernel"
    return ""
