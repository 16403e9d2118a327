"""Trip counts of loops, from the scalar integers that their conditions depend on."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vmoe_inform.performance.costs import hlo

# Values of scalar integers that are known before the program runs: numbers, or a tuple's elements by their index.
Known = int | dict[int, Any] | None
_LARGEST = 1_000_000  # runs of a loop that are looked at


def stated_trips(instruction: hlo.Instruction) -> int | None:
    """Trip count of a loop, where the compiler states it, or its author: a mean, in a scope such as ``runs=4``."""
    stated = instruction.attribute(r'"known_trip_count":\{"n":"(\d+)"') or instruction.attribute(
        r'op_name="[^"]*/runs=(\d+)/while"'
    )
    return None if stated is None else int(stated)


def trips(module: hlo.Module, condition: str, body: str, start: Known) -> int | None:
    """Trip count of a loop, by simulating its integers; None if they depend on unknown values."""
    state = start
    for number in range(_LARGEST):
        goes_on = Values(module, module.computations[condition], {0: state}).result()
        if not isinstance(goes_on, int):
            return None
        if not goes_on:
            return number
        state = Values(module, module.computations[body], {0: state}).result()
    return None


def invariant(module: hlo.Module, body: str, start: Known) -> Known:
    """Known values of a loop's tuple in every run: the elements that its body passes on unchanged."""
    computation = module.computations[body]
    if not isinstance(start, dict) or computation.root.opcode != "tuple":
        return None
    passed = {
        index
        for index, name in enumerate(computation.root.operands)
        if computation.instructions[name].opcode == "get-tuple-element"
        and computation.instructions[name].attribute(r"index=(\d+)") == str(index)
        and computation.instructions[computation.instructions[name].operands[0]].opcode == "parameter"
    }
    return {index: value for index, value in start.items() if index in passed}


class Values:
    """Scalar integers of a computation, worked out from what is known of its parameters."""

    def __init__(self, module: hlo.Module, computation: hlo.Computation, known: Mapping[int, Known]):
        self._module, self._computation, self._known = module, computation, known
        self._found: dict[str, Known] = {}

    def result(self) -> Known:
        return self.of(self._computation.root.name)

    def of(self, name: str) -> Known:
        if name not in self._found:
            self._found[name] = self._work_out(self._computation.instructions[name])
        return self._found[name]

    def _work_out(self, instruction: hlo.Instruction) -> Known:
        opcode, operands = instruction.opcode, instruction.operands
        if opcode == "parameter":
            return self._known.get(int(instruction.inside))
        if opcode == "tuple":
            elements = {index: self.of(name) for index, name in enumerate(operands)}
            return {index: value for index, value in elements.items() if value is not None}
        if opcode == "get-tuple-element":
            whole = self.of(operands[0])
            return whole.get(int(instruction.attribute(r"index=(\d+)") or 0)) if isinstance(whole, dict) else None
        if opcode in ("copy", "bitcast", "convert", "copy-start", "copy-done", "reshape"):
            return self.of(operands[0])
        if len(instruction.shapes) != 1 or instruction.shapes[0].sizes:
            return None
        if opcode == "constant":
            is_integer = re.fullmatch(r"-?\d+", instruction.inside) is not None
            return int(instruction.inside) if is_integer else _BOOLEANS.get(instruction.inside)
        if opcode in ("fusion", "call"):
            called = self._module.computations[instruction.computation("calls" if opcode == "fusion" else "to_apply")]
            return Values(self._module, called, {i: self.of(name) for i, name in enumerate(operands)}).result()
        return self._arithmetic(instruction, [self.of(name) for name in operands])

    def _arithmetic(self, instruction: hlo.Instruction, numbers: Sequence[Known]) -> int | None:
        if not all(isinstance(number, int) for number in numbers):
            return None
        operation = instruction.opcode
        if operation == "compare":
            operation = instruction.attribute(r"direction=(\w+)") or ""
        function = _OPERATIONS.get((operation, len(numbers)))
        return None if function is None else function(*numbers)


_BOOLEANS = {"true": 1, "false": 0}
_OPERATIONS: Mapping[tuple[str, int], Any] = {
    ("add", 2): lambda a, b: a + b,
    ("subtract", 2): lambda a, b: a - b,
    ("multiply", 2): lambda a, b: a * b,
    ("minimum", 2): min,
    ("maximum", 2): max,
    ("and", 2): lambda a, b: a & b,
    ("or", 2): lambda a, b: a | b,
    ("LT", 2): lambda a, b: int(a < b),
    ("LE", 2): lambda a, b: int(a <= b),
    ("GT", 2): lambda a, b: int(a > b),
    ("GE", 2): lambda a, b: int(a >= b),
    ("EQ", 2): lambda a, b: int(a == b),
    ("NE", 2): lambda a, b: int(a != b),
}
