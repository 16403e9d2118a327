"""TPU chips in figures, and their devices to compile for on a machine that has none."""

import contextlib
import dataclasses
import importlib.util
import os
import re
from collections.abc import Iterator, Sequence

import jax
from jax.experimental import topologies

from vmoe_inform import checks
from vmoe_inform.registry import Registry

INSTALL = "pip install -e '.[tpu]'"


@dataclasses.dataclass(frozen=True)
class Chip:
    """What JAX calls one device: a whole chip, or one of the two cores of a v3 chip.

    Attributes:
      device_kind: as ``jax.Device.device_kind`` has it.
      hbm_bytes: its memory; the compiler keeps a little of that for itself.
      peak_flops: bfloat16 operations per second of the matrix units.
      clock_hz: cycles per second.
      axes: lengths that the figure of a topology has.
      compiler_name: the compiler's name of the configuration in which a device is what JAX finds on a real machine.
    """

    device_kind: str
    hbm_bytes: int
    peak_flops: float
    clock_hz: float
    axes: int
    compiler_name: str = "default"

    @property
    def flops_per_cycle(self) -> float:
        """bfloat16 operations of one cycle at the peak."""
        return self.peak_flops / self.clock_hz


# Peaks, memory and clocks as the maker states them for a chip (Jouppi et al., arXiv 2304.01433, Table 4; documentation
# of Cloud TPU for the others); a v3 chip is two devices.
CHIPS: Registry[Chip] = Registry("TPU")
for _name, _chip in {
    "v3": Chip("TPU v3", 16 * 2**30, 123e12 / 2, 0.94e9, axes=2),
    "v4": Chip("TPU v4", 32 * 2**30, 275e12, 1.05e9, axes=3, compiler_name="megacore"),
    "v5e": Chip("TPU v5 lite", 16 * 2**30, 197e12, 1.5e9, axes=2),
    "v5p": Chip("TPU v5", 95 * 2**30, 459e12, 1.75e9, axes=3),
    "v6e": Chip("TPU v6 lite", 32 * 2**30, 918e12, 1.75e9, axes=2),
}.items():
    CHIPS.add(_name, _chip)

FORMS = "v3, v5e and v6e with two lengths (v5e:4x4), v4 and v5p with three (v4:2x2x2)"


def chip_of(device_kind: str) -> Chip | None:
    """The figures of a device; None if it is no TPU of the table (a CPU)."""
    return next((CHIPS[name] for name in CHIPS if CHIPS[name].device_kind == device_kind), None)


def devices_of(topology: str) -> Sequence[jax.Device]:
    """Devices that programs can be compiled for, and not run on.

    Args:
      topology: TPU and figure of its chips, e.g. ``"v5e:4x4"``, ``"v4:2x2x2"``.

    Raises:
      ValueError: another form, a figure that the TPU does not have, or no compiler for TPUs is installed.
    """
    match = re.fullmatch(r"(\w+):([1-9]\d*(?:x[1-9]\d*)+)", topology)
    if match is None or match[1] not in CHIPS:
        raise checks.error("topology", FORMS, topology)
    chip = CHIPS[match[1]]
    lengths = [int(length) for length in match[2].split("x")]
    if len(lengths) != chip.axes:
        raise checks.error("topology", FORMS, topology)
    if importlib.util.find_spec("libtpu") is None:
        raise checks.error("topology", f"libtpu, the compiler for TPUs ({INSTALL})", "a machine without it")
    _say_that_there_is_no_tpu()
    # Four chips on a host, in a square, as far as there are as many.
    bounds = (*(min(2, length) for length in lengths[:2]), 1)
    try:
        return topologies.get_topology_desc(
            topology, "tpu", chip_config_name=chip.compiler_name, chips_per_host_bounds=bounds
        ).devices
    except jax.errors.JaxRuntimeError as problem:
        raise checks.error("topology", f"a figure that can be built ({problem})", topology) from None


@contextlib.contextmanager
def uncached() -> Iterator[None]:
    """While programs are compiled for devices that are not there: they do not go to JAX's compilation cache on disk,
    from which they could be written but not read back."""
    name = "jax_persistent_cache_min_compile_time_secs"
    seconds = getattr(jax.config, name)
    jax.config.update(name, float("inf"))
    try:
        yield
    finally:
        jax.config.update(name, seconds)


def _say_that_there_is_no_tpu() -> None:
    """Tells libtpu what it would otherwise ask the metadata server of a TPU machine for, and complain that nobody
    answers. Values that are set already hold."""
    # Otherwise the first process that loads libtpu locks out all others, as if they shared a chip.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    if "TPU_SKIP_MDS_QUERY" in os.environ:  # set by JAX where it finds no chip
        os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")  # any known type will do: none is used
        os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
