"""Copies that a TPU begins ahead, so that they run while it computes."""

import math

from vmoe_inform.performance.costs import hlo
from vmoe_inform.performance.costs._instructions import COPIES_AHEAD
from vmoe_inform.performance.costs._scheduled import Schedule
from vmoe_inform.sharding.chips import Tpu


class Ahead:
    """The copies of a computation, in the order of its instructions.

    They have the bandwidth that other instructions leave. What is needed first is copied first. What is still to be
    copied where the result is needed is waited for.
    """

    def __init__(self, computation: hlo.Computation, chip: Tpu):
        self._computation = computation
        self._chip = chip
        done = {
            instruction.operands[0]: (place, instruction)
            for place, instruction in enumerate(computation.instructions.values())
            if instruction.opcode.endswith("-done") and instruction.operands
        }
        self._done = {name: at for name, at in done.items() if computation.instructions[name].opcode in COPIES_AHEAD}
        self._left: dict[str, int] = {}  # cycles of bandwidth by the name of the start

    def after(self, instruction: hlo.Instruction, own: Schedule) -> Schedule:
        """What is added to ``own``, the schedule of an instruction, by the copies around it."""
        if instruction.name in self._done:
            self._left[instruction.name] = cycles = self._cycles(instruction)
            return Schedule(by_bandwidth=cycles)
        start = instruction.operands[0] if instruction.opcode.endswith("-done") and instruction.operands else ""
        if start in self._left:
            waiting = self._left.pop(start)
            return Schedule(longest=waiting, waiting=waiting)
        free = max(0, own.longest - own.by_bandwidth)
        for name in sorted(self._left, key=lambda name: self._done[name][0]):
            used = min(free, self._left[name])
            self._left[name] -= used
            free -= used
        return Schedule()

    def _cycles(self, start: hlo.Instruction) -> int:
        """Cycles of bandwidth: what is copied is read, written, or both, in the chip's memory."""
        operands = [self._computation.instructions[name] for name in start.operands]
        result = self._done[start.name][1].shapes[0]
        updates = start.opcode.startswith("dynamic-update")
        copied = operands[1].num_bytes if updates else result.num_bytes
        source = operands[1 if updates else 0].shapes[0]
        num_bytes = copied * sum(not shape.on_chip for shape in (source, result))
        return math.ceil(num_bytes * self._chip.clock_hz / self._chip.hbm_bytes_per_second)
