"""The part of an instruction in the compiler's final schedules; :mod:`schedules` says what they are."""

import dataclasses
import functools
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from vmoe_inform.performance.costs import _instructions as instructions
from vmoe_inform.performance.costs import hlo
from vmoe_inform.sharding.chips import Tpu


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Cycles of a program, summed over its instructions.

    Attributes:
      scheduled: instructions of one run of a fusion or kernel, times the runs.
      at_peak: operations at the chip's peak.
      by_bandwidth: bytes that pass the chip's memory, at its bandwidth; those of copies begun ahead, too.
      longest: of each fusion the longest of these three, which is what it takes at the least, and ``waiting``.
      estimated: by the compiler, and operations at peak for kernels.
      without_schedule: the part of ``longest`` that is of instructions without a schedule.
      waiting: the part of ``longest`` in which copies begun ahead are waited for. Until they are needed, they have all
        of the bandwidth that instructions leave.
    """

    scheduled: int = 0
    at_peak: int = 0
    by_bandwidth: int = 0
    longest: int = 0
    estimated: int = 0
    without_schedule: int = 0
    waiting: int = 0

    def __add__(self, other: "Schedule") -> "Schedule":
        return Schedule(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))

    def times(self, number: int) -> "Schedule":
        """A loop around this."""
        return Schedule(*(number * cycles for cycles in dataclasses.astuple(self)))


class Length(NamedTuple):
    """Instructions of the code of a fusion or kernel.

    Attributes:
      once: every instruction once.
      looped: those of loops as often as they run, where the code states it.
    """

    once: int
    looped: int


@dataclasses.dataclass(frozen=True)
class Code:
    """The schedules of a program.

    Attributes:
      module: the program.
      lengths: by the name of a fusion or kernel.
    """

    module: hlo.Module
    lengths: Mapping[str, Length]

    def length(self, computation: hlo.Computation, instruction: hlo.Instruction) -> Length | None:
        """Of one run of an instruction; None without a schedule.

        Fusions that are alike share their code: only one of them has a schedule, which counts for each. It counts for
        none where several have one, of unequal lengths.
        """
        if instruction.name in self.lengths:
            return self.lengths[instruction.name]
        return self._alike.get(_signature(self.module, computation, instruction))

    @functools.cached_property
    def _alike(self) -> Mapping[tuple[Any, ...], Length]:
        found: dict[tuple[Any, ...], set[Length]] = {}
        for computation in self.module.computations.values():
            for name in self.lengths.keys() & computation.instructions.keys():
                signature = _signature(self.module, computation, computation.instructions[name])
                found.setdefault(signature, set()).add(self.lengths[name])
        return {signature: length for signature, (length, *others) in found.items() if not others}

    def of(self, computation: hlo.Computation, instruction: hlo.Instruction, chip: Tpu) -> Schedule:
        """What an instruction that runs no other computation adds."""
        estimated, _ = instructions.cycles(instruction, chip)
        if instructions.is_free(instruction):
            return Schedule(estimated=estimated)
        length = self.length(computation, instruction)
        if length is None and not instructions.takes_time(instruction):
            return Schedule(estimated=estimated)
        scheduled = 0 if length is None else _cycles(instruction, length)
        at_peak = math.ceil(instructions.flops(self.module, computation, instruction) / chip.flops_per_cycle)
        num_bytes = instructions.num_bytes(self.module, computation, instruction, off_chip=True)
        by_bandwidth = math.ceil(num_bytes * chip.clock_hz / chip.hbm_bytes_per_second)
        longest = max(scheduled, at_peak, by_bandwidth)
        without = longest if length is None else 0
        return Schedule(scheduled, at_peak, by_bandwidth, longest, estimated, without_schedule=without)


def _signature(module: hlo.Module, computation: hlo.Computation, instruction: hlo.Instruction) -> tuple[Any, ...]:
    """What instructions with the same code have in common: what they do, to which arrays, in how many parts."""
    operands = tuple(computation.instructions[name].type for name in instruction.operands)
    called: Any = None
    if instruction.opcode == "fusion":
        called = _body(module, instruction.computation("calls"))
    elif instruction.opcode == "custom-call":  # a kernel, which the end of its name tells from others
        called = instruction.attribute(r'op_name="[^"]*?([^/"]*/[^/"]*)"')
    bounds = instruction.attribute(r'"output_window_bounds":(\[[^\]]*\])')
    return instruction.opcode, instruction.type, operands, _settings(instruction), bounds, called


def _body(module: hlo.Module, name: str) -> tuple[Any, ...]:
    """The instructions of a computation, by their order instead of by their names."""
    numbers: dict[str, int] = {}
    lines = []
    for instruction in module.computations[name].instructions.values():
        numbers[instruction.name] = len(numbers)
        inside = re.sub(r"%([\w.\-]+)", lambda match: str(numbers.get(match[1])), instruction.inside)
        called = [
            _body(module, inner) for inner in re.findall(r"(?:calls|to_apply)=%?([\w.\-]+)", instruction.attributes)
        ]
        lines.append((instruction.opcode, instruction.type, inside, _settings(instruction), *called))
    return tuple(lines)


def _settings(instruction: hlo.Instruction) -> str:
    """The attributes of an instruction without names, origin and what the compiler notes at the end."""
    attributes = re.sub(r", metadata=\{[^}]*\}", "", instruction.attributes.partition(", backend_config=")[0])
    if instruction.opcode != "custom-call":
        attributes = re.sub(r", frontend_attributes=\{([^{}]|\{[^{}]*\})*\}", "", attributes)
    return re.sub(r"(calls|to_apply)=%?[\w.\-]+", "", attributes)


def _cycles(instruction: hlo.Instruction, length: Length) -> int:
    """Of all runs of the code: for each part of a fusion, as a kernel's author states, or as its loops say."""
    bounds = instruction.attribute(r'"iteration_bounds":\[([^\]]*)\]')
    if bounds is not None:
        return length.once * math.prod(int(bound.strip('" ')) for bound in bounds.split(",") if bound)
    stated = instruction.attribute(r'op_name="[^"]*\bruns=(\d+)')
    return length.looped if stated is None else length.once * int(stated)
