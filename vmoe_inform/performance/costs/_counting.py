"""Adds up the instructions of a program, those of loops as often as they run."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import TypeAlias

from vmoe_inform.performance.costs import _instructions as instructions
from vmoe_inform.performance.costs import _loops as loops
from vmoe_inform.performance.costs import hlo
from vmoe_inform.performance.costs._ahead import Ahead
from vmoe_inform.performance.costs._loops import Known
from vmoe_inform.performance.costs._scheduled import Code, Length, Schedule
from vmoe_inform.sharding.chips import Tpu

Counts: TypeAlias = Mapping[str, tuple[int, int]]  # name -> (how often, bytes of all of them)


@dataclasses.dataclass(frozen=True)
class Work:
    """Operations and bytes."""

    flops: float = 0.0
    num_bytes: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.num_bytes + other.num_bytes)

    def times(self, number: int) -> "Work":
        return Work(self.flops * number, self.num_bytes * number)


@dataclasses.dataclass(frozen=True)
class Counted:
    """Counts from the text of a program, or of a part of it.

    Attributes:
      once: work with every loop body once, as the compiler's analysis has it.
      loops: work that comes on top of that because loops run more than once.
      cycles: estimates of the compiler and of kernels.
      schedule: what the final schedules say, of those that were given.
      collectives, across_slices, without_cycles, unknown_loops: see :class:`Costs`.
    """

    once: Work = Work()
    loops: Work = Work()
    cycles: int = 0
    schedule: Schedule = dataclasses.field(default_factory=Schedule)
    collectives: Counts = dataclasses.field(default_factory=dict)
    across_slices: Counts = dataclasses.field(default_factory=dict)
    without_cycles: Counts = dataclasses.field(default_factory=dict)
    unknown_loops: int = 0

    def __add__(self, other: "Counted") -> "Counted":
        return Counted(
            self.once + other.once,
            self.loops + other.loops,
            self.cycles + other.cycles,
            self.schedule + other.schedule,
            _sum(self.collectives, other.collectives),
            _sum(self.across_slices, other.across_slices),
            _sum(self.without_cycles, other.without_cycles),
            self.unknown_loops + other.unknown_loops,
        )

    def repeated(self, number: int) -> "Counted":
        """A loop around this with a known number of runs."""
        return Counted(
            self.once,
            self.loops.times(number) + self.once.times(number - 1),
            self.cycles * number,
            self.schedule.times(number),
            _times(self.collectives, number),
            _times(self.across_slices, number),
            _times(self.without_cycles, number),
            self.unknown_loops,
        )


def _sum(one: Counts, other: Counts) -> Counts:
    names = sorted({*one, *other})
    pairs = {name: (one.get(name, (0, 0)), other.get(name, (0, 0))) for name in names}
    return {name: (a + c, b + d) for name, ((a, b), (c, d)) in pairs.items()}


def _times(counts: Counts, number: int) -> Counts:
    return {name: (often * number, size * number) for name, (often, size) in counts.items() if number}


@dataclasses.dataclass(frozen=True)
class _Program:
    """A program, and what it is counted with.

    Attributes:
      chip: see :func:`count`.
      code: its final schedules; None if they are not asked for.
    """

    module: hlo.Module
    chip: Tpu | None
    code: Code | None


def count(text: str, chip: Tpu | None = None, lengths: Mapping[str, Length] | None = None) -> Counted:
    """Adds up the instructions of a program.

    Args:
      text: HLO, as the compiler prints it.
      chip: turns operations of kernels into cycles; None if there is no need to.
      lengths: of its final schedules, see :class:`Code`, for which there has to be a chip.
    """
    module = hlo.parse(text)
    program = _Program(module, chip, None if lengths is None else Code(module, lengths))
    return functools.reduce(Counted.__add__, _parts(program, program.module.entry, {}), Counted())


def _parts(program: _Program, name: str, known: dict[int, Known]) -> list[Counted]:
    """The instructions of a computation that runs. ``known``: what is known of its parameters."""
    computation = program.module.computations[name]
    values = loops.Values(program.module, computation, known)
    parts, chains = [], set()
    ahead = None if program.code is None or program.chip is None else Ahead(computation, program.chip)
    for instruction in computation.instructions.values():
        chain = _chain(program.module, instruction)
        parts.append(_cost(program, computation, values, instruction, seen=chain is not None and chain in chains))
        if ahead is not None:
            parts.append(Counted(schedule=ahead.after(instruction, parts[-1].schedule)))
        chains.add(chain)
    return parts


def _chain(module: hlo.Module, instruction: hlo.Instruction) -> str | None:
    """A TPU carries a collective on while it computes: every fusion on the way has a copy of it, with a common name."""
    if instruction.opcode != "fusion":
        return None
    for inner in module.computations[instruction.computation("calls")].instructions.values():
        chain = inner.attribute(r'chain_id="(\w+)"')
        if chain is not None and inner.opcode in instructions.COLLECTIVES:
            return f"{inner.opcode} {chain}"
    return None


def _cost(
    program: _Program,
    computation: hlo.Computation,
    values: loops.Values,
    instruction: hlo.Instruction,
    *,
    seen: bool,
) -> Counted:
    """An instruction, with the computations that it runs. ``seen``: its collective is counted elsewhere."""

    def run(name: str, known: dict[int, Known]) -> Counted:
        return functools.reduce(Counted.__add__, _parts(program, name, known), Counted())

    if instruction.opcode == "while":
        start = values.of(instruction.operands[0])
        body, condition = instruction.computation("body"), instruction.computation("condition")
        invariant = loops.invariant(program.module, body, start)
        number = loops.stated_trips(instruction)
        if number is None:
            number = loops.trips(program.module, condition, body, start)
        counted = run(body, {0: invariant}).repeated(1 if number is None else number)
        return dataclasses.replace(counted, unknown_loops=counted.unknown_loops + (number is None))
    if instruction.opcode == "conditional":
        branches = [name.removeprefix("%") for name in _branches(instruction)]
        return max(
            (run(name, {}) for name in branches),
            key=lambda c: (c.schedule.longest, c.cycles, c.once.flops + c.loops.flops),
        )
    if instruction.opcode in ("call", "async-start"):
        called = instruction.computation("to_apply" if instruction.opcode == "call" else "calls")
        return run(called, {index: values.of(name) for index, name in enumerate(instruction.operands)})

    return _cost_of_one(program, computation, instruction, seen=seen)


def _cost_of_one(
    program: _Program,
    computation: hlo.Computation,
    instruction: hlo.Instruction,
    *,
    seen: bool,
) -> Counted:
    """An instruction that runs no other computation."""
    module, chip = program.module, program.chip
    cycles, states = instructions.cycles(instruction, chip)
    num_bytes = instructions.num_bytes(module, computation, instruction)
    work = Work(instructions.flops(module, computation, instruction), num_bytes)
    collective = None if seen else instructions.collective(module, computation, instruction)
    sent = instructions.sent_to_other_slices(computation, instruction)
    covered = states or seen or collective is not None or instructions.exchanges_with_slices(instruction)
    without: Counts = {}
    if num_bytes and not covered and instructions.takes_time(instruction):
        without = {instructions.kind(module, instruction): (1, num_bytes)}
    return Counted(
        once=work,
        cycles=cycles,
        schedule=Schedule()
        if program.code is None or chip is None
        else program.code.of(computation, instruction, chip),
        collectives={} if collective is None else {collective[0]: (1, collective[1])},
        across_slices={} if sent is None else {sent[0]: (1, sent[1])},
        without_cycles=without,
    )


def _branches(instruction: hlo.Instruction) -> list[str]:
    names = instruction.attribute(r"branch_computations=\{([^}]*)\}")
    if names is not None:
        return names.split(", ")
    return [instruction.computation("true_computation"), instruction.computation("false_computation")]
