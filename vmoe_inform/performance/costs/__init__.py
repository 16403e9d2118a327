"""Costs of a compiled program on one device: operations, bytes, memory, cycles and communication.

The compiler's own analysis counts the body of a loop once. Here the instructions of a body count as often as it runs,
wherever the text of the program states the number. ``unknown_loops`` is the number of loops that still count once.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

import jax

from vmoe_inform import checks
from vmoe_inform.performance.costs._counting import Counts, Work, count
from vmoe_inform.sharding.chips import Tpu, chip_of
from vmoe_inform.sharding.mesh import slice_count

__all__ = ["Costs", "Work", "count", "of"]


@dataclasses.dataclass(frozen=True)
class Costs:
    """One run of a program, on each device.

    Attributes:
      flops: floating-point operations, loops as often as they run.
      bytes_accessed: read and written by the instructions, loops as often as they run.
      temp_bytes, argument_bytes, output_bytes: memory of intermediate values, of what goes in, and of what comes out.
      code_bytes: memory of the program itself.
      peak_bytes: memory that all of them need; outputs in the place of arguments count once.
      estimated_cycles: the compiler's own estimates, summed over the instructions that run. Kernels without one
        (Pallas, ragged products) add their operations at the chip's peak. None where the compiler states none (CPU).
      collectives: how often each kind runs, and its bytes, the larger of input and output.
      across_slices: what a device sends to other slices for each kind of collective: how often, and bytes. Empty
        with one slice. ``collectives`` has the parts of these collectives within a slice.
      without_cycles: instructions whose work no estimate covers, by kind, and the bytes they read and write. On TPUs
        these are gathers, scatters, sorts and sums over windows. Collectives are not among them.
      unknown_loops: loops with an unknown number of runs; their bodies count once.
    """

    flops: float
    bytes_accessed: float
    temp_bytes: int
    argument_bytes: int
    output_bytes: int
    code_bytes: int
    peak_bytes: int
    estimated_cycles: int | None
    collectives: Counts
    across_slices: Counts
    without_cycles: Counts
    unknown_loops: int


def of(compiled: Any) -> Costs:
    """Costs of ``jax.jit(f).lower(...).compile()``.

    Raises:
      ValueError: a program for several TPU slices that is not the program of one of them.
    """
    devices = _devices(compiled)
    chip = _tpu(devices)
    text = compiled.as_text()
    if chip is not None:
        _check_is_of_one_slice(text, devices)
    counted = count(text, chip)
    analysis, memory = compiled.cost_analysis() or {}, compiled.memory_analysis()
    live = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return Costs(
        flops=float(analysis.get("flops", 0.0)) + counted.loops.flops,
        bytes_accessed=float(analysis.get("bytes accessed", 0.0)) + counted.loops.num_bytes,
        temp_bytes=memory.temp_size_in_bytes,
        argument_bytes=memory.argument_size_in_bytes,
        output_bytes=memory.output_size_in_bytes,
        code_bytes=memory.generated_code_size_in_bytes,
        peak_bytes=live + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes,
        estimated_cycles=None if chip is None else counted.cycles,
        collectives=counted.collectives,
        across_slices=counted.across_slices,
        without_cycles={} if chip is None else counted.without_cycles,
        unknown_loops=counted.unknown_loops,
    )


def _devices(compiled: Any) -> list[jax.Device]:
    shardings = jax.tree.leaves((compiled.input_shardings, compiled.output_shardings))
    return list(shardings[0].device_set) if shardings else []


def _tpu(devices: Sequence[jax.Device]) -> Tpu | None:
    chip = chip_of(devices[0].device_kind) if devices else None
    return chip if isinstance(chip, Tpu) else None


def _check_is_of_one_slice(text: str, devices: Sequence[jax.Device]) -> None:
    """Otherwise ``across_slices`` would miss collectives whose groups reach across slices."""
    slices = slice_count(devices)
    stated = re.search(r"num_partitions=(\d+)", text.partition("\n")[0])
    partitions = 1 if stated is None else int(stated[1])
    if partitions * slices != len(devices):
        raise checks.error("libtpu", f"the program of one slice of {len(devices) // slices} devices", partitions)
