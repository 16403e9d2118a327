"""Accelerators: peak rates and memory of each device."""

import dataclasses

from vmoe_inform.registry import Registry


@dataclasses.dataclass(frozen=True)
class Chip:
    """One JAX device: a whole chip, or one of the two cores of a TPU v2, v3 or TPU7x.

    Attributes:
      device_kinds: what ``jax.Device.device_kind`` may be; versions of JAX differ.
      hbm_bytes: its memory; the compiler keeps a little of that for itself.
      peak_flops: operations per second of bfloat16 matrix products, without sparsity.
      peak_flops_float32: the same of float32 products at JAX's default precision: one bfloat16 pass on TPUs, TF32
        on GPUs of NVIDIA, float32 on those of AMD.
    """

    device_kinds: tuple[str, ...]
    hbm_bytes: int
    peak_flops: float
    peak_flops_float32: float


@dataclasses.dataclass(frozen=True)
class Tpu(Chip):
    """A device of a TPU; it need not be there to compile for it.

    Attributes:
      clock_hz: cycles per second.
      vmem_bytes: the memory on the chip that kernels work in, of one core.
      hbm_bytes_per_second: at most so much is read and written.
      axes: lengths that the figure of a topology has.
      compiler_name: the compiler's name of the configuration in which a device is what JAX finds on a real machine.
    """

    clock_hz: float
    vmem_bytes: int
    hbm_bytes_per_second: float
    axes: int
    compiler_name: str = "default"

    @property
    def flops_per_cycle(self) -> float:
        """bfloat16 operations of one cycle at the peak."""
        return self.peak_flops / self.clock_hz


def _tpu(
    kinds: tuple[str, ...],
    gibibytes: int,
    peak: float,
    clock_hz: float,
    vmem_mebibytes: int,
    bandwidth: float,
    axes: int,
    compiler: str,
) -> Tpu:
    return Tpu(kinds, gibibytes * 2**30, peak, peak, clock_hz, vmem_mebibytes * 2**20, bandwidth, axes, compiler)


# Peaks, memory, clocks and bandwidths as the maker states them for a chip; a chip of v2, v3 or TPU7x is two devices.
# The memory for kernels is as JAX has it.
#
#   v2         Jouppi et al., "A Domain-Specific Supercomputer for Training Deep Neural Networks", CACM 63(7), 2020
#   v3, v4     Jouppi et al., arXiv 2304.01433, Table 4
#   v5e to v6e cloud.google.com/tpu/docs/v5e, v5p, v6e
#   tpu7x      cloud.google.com/tpu/docs/tpu7x. Its clock is not stated. Here it is the one at which the matrix units
#              of a v6e reach the peak, which fits the compiler's estimates of products.
#   A100       "NVIDIA A100 Tensor Core GPU Architecture", white paper, 2020, Table 1; A100 80GB data sheet
#   H100       "NVIDIA H100 Tensor Core GPU Architecture", white paper, 2022, Table 2 (SXM5, PCIe)
#   H200       data sheet of the H200 SXM: the H100's peaks
#   B200       "NVIDIA Blackwell" data sheet, HGX B200, a single GPU: half of the figures with sparsity
#   GB200      the same, GB200 NVL72
#   L40S       data sheet
#   MI300X     data sheet
CHIPS: Registry[Chip] = Registry("chip")
for _name, _chip in {
    "v2": _tpu(("TPU v2",), 8, 46e12 / 2, 0.7e9, 16, 700e9 / 2, 2, "default"),
    "v3": _tpu(("TPU v3",), 16, 123e12 / 2, 0.94e9, 16, 900e9 / 2, 2, "default"),
    "v4": _tpu(("TPU v4",), 32, 275e12, 1.05e9, 16, 1200e9, 3, "megacore"),
    "v5e": _tpu(("TPU v5 lite", "TPU v5e"), 16, 197e12, 1.5e9, 128, 819e9, 2, "default"),
    "v5p": _tpu(("TPU v5", "TPU v5p"), 95, 459e12, 1.75e9, 64, 2765e9, 3, "default"),
    "v6e": _tpu(("TPU v6 lite", "TPU v6e"), 32, 918e12, 1.75e9, 128, 1640e9, 2, "default"),
    "tpu7x": _tpu(("TPU7x",), 96, 2307e12 / 2, 2.2e9, 64, 7380e9 / 2, 3, "default"),
    "a100-40gb": Chip(("NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"), 40 * 10**9, 312e12, 156e12),
    "a100-80gb": Chip(("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe"), 80 * 10**9, 312e12, 156e12),
    "h100-sxm": Chip(("NVIDIA H100 80GB HBM3",), 80 * 10**9, 989.4e12, 494.7e12),
    "h100-pcie": Chip(("NVIDIA H100 PCIe",), 80 * 10**9, 756e12, 378e12),
    "h200": Chip(("NVIDIA H200",), 141 * 10**9, 989.4e12, 494.7e12),
    "b200": Chip(("NVIDIA B200",), 180 * 10**9, 2250e12, 1100e12),
    "gb200": Chip(("NVIDIA GB200",), 186 * 10**9, 2500e12, 1250e12),
    "l40s": Chip(("NVIDIA L40S",), 48 * 10**9, 362.05e12, 183e12),
    "mi300x": Chip(("AMD Instinct MI300X", "AMD Instinct MI300X OAM"), 192 * 10**9, 1307.4e12, 163.4e12),
}.items():
    CHIPS.add(_name, _chip)


def chip_of(device_kind: str) -> Chip | None:
    """The figures of a device; None if it is not in the table (a CPU)."""
    return next((CHIPS[name] for name in CHIPS if device_kind in CHIPS[name].device_kinds), None)
