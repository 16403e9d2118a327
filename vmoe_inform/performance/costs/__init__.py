"""Costs of a compiled program on one device: operations, bytes, memory, cycles and communication.

The compiler's own analysis counts the body of a loop once. Here the instructions of a body count as often as it runs,
wherever the text of the program states the number. ``unknown_loops`` is the number of loops that still count once.
"""

import dataclasses
from typing import Any

import jax

from vmoe_inform.performance.costs._counting import Counts, Work, count
from vmoe_inform.sharding.chips import Tpu, chip_of

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
    without_cycles: Counts
    unknown_loops: int


def of(compiled: Any) -> Costs:
    """Costs of ``jax.jit(f).lower(...).compile()``."""
    chip = _chip(compiled)
    counted = count(compiled.as_text(), chip)
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
        without_cycles={} if chip is None else counted.without_cycles,
        unknown_loops=counted.unknown_loops,
    )


def _chip(compiled: Any) -> Tpu | None:
    for sharding in jax.tree.leaves((compiled.input_shardings, compiled.output_shardings)):
        for device in sharding.device_set:
            chip = chip_of(device.device_kind)
            return chip if isinstance(chip, Tpu) else None
    return None
