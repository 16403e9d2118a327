"""Devices of TPUs to compile for on a machine that has none."""

import contextlib
import importlib.util
import os
import re
from collections.abc import Iterator, Sequence

import jax
from jax.experimental import topologies

from vmoe_inform import checks
from vmoe_inform.sharding.chips import CHIPS, Tpu

INSTALL = "pip install -e '.[tpu]'"


FORMS = "v2, v3, v5e and v6e with two lengths (v5e:4x4), v4, v5p and tpu7x with three (v4:2x2x2)"


def devices_of(topology: str, num_slices: int = 1) -> Sequence[jax.Device]:
    """Devices that programs can be compiled for, and not run on.

    Args:
      topology: TPU and figure of a slice's chips, e.g. ``"v5e:4x4"``, ``"v4:2x2x2"``.
      num_slices: of this figure, connected by the data centre's network.

    Raises:
      ValueError: another form, a figure that the TPU does not have, or no compiler for TPUs is installed.
    """
    match = re.fullmatch(r"(\w+):([1-9]\d*(?:x[1-9]\d*)+)", topology)
    chip = CHIPS[match[1]] if match is not None and match[1] in CHIPS else None
    if match is None or not isinstance(chip, Tpu):
        raise checks.error("topology", FORMS, topology)
    lengths = [int(length) for length in match[2].split("x")]
    if len(lengths) != chip.axes:
        raise checks.error("topology", FORMS, topology)
    if importlib.util.find_spec("libtpu") is None:
        raise checks.error("topology", f"libtpu, the compiler for TPUs ({INSTALL})", "a machine without it")
    _say_that_there_is_no_tpu()
    # Four chips on a host, in a square, if there are that many.
    bounds = (*(min(2, length) for length in lengths[:2]), 1)
    try:
        return topologies.get_topology_desc(
            topology,
            "tpu",
            chip_config_name=chip.compiler_name,
            chips_per_host_bounds=bounds,
            num_slices=num_slices,
        ).devices
    except jax.errors.JaxRuntimeError as problem:
        raise checks.error("topology", f"a figure that can be built ({problem})", topology) from None


@contextlib.contextmanager
def uncached() -> Iterator[None]:
    """Keeps programs for devices that are not there out of JAX's compilation cache on disk.

    They could be written to it but not read back.
    """
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
    values = {"ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    if os.environ.get("TPU_SKIP_MDS_QUERY"):  # set by JAX where it finds no chip
        values |= {"TPU_ACCELERATOR_TYPE": "v5litepod-4"}  # any known type will do: none is used
        values |= {"TPU_WORKER_HOSTNAMES": "localhost"}
    for name, value in values.items():
        os.environ[name] = os.environ.get(name) or value
