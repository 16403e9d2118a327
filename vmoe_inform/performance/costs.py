"""What a compiled program costs on one device: operations, bytes, memory, cycles, and what devices say to each other.

The compiler's own analysis counts the body of a loop once, however often it runs. Here the instructions of a body count
as often as it does, wherever the number can be known from the text of the program; ``unknown_loops`` says how many
loops are left that count once.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from vmoe_inform.performance import hlo
from vmoe_inform.sharding.chips import Tpu, chip_of

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)
Counts = Mapping[str, tuple[int, int]]  # name -> (how often, bytes of all of them)


@dataclasses.dataclass(frozen=True)
class Costs:
    """One run of a program, on each device.

    Attributes:
      flops: floating-point operations, loops as often as they run.
      bytes_accessed: read and written by the instructions, loops as often as they run.
      temp_bytes, argument_bytes, output_bytes: memory of intermediate values, of what goes in, and of what comes out.
      code_bytes: memory of the program itself.
      peak_bytes: memory that all of them need, with outputs that take the place of arguments counted once.
      estimated_cycles: the compiler's own estimates, summed over the instructions that run, plus the operations of
        kernels that have none (Pallas, ragged products) at the chip's peak; None where the compiler states none (CPU).
      collectives: how often each kind runs, and with how many bytes: the larger of what goes in and what comes out.
      without_cycles: instructions that do work which no estimate covers, by kind, and the bytes they read and write:
        on TPUs gathers, scatters, sorts and sums over windows. Collectives are not among them.
      unknown_loops: loops whose number of runs cannot be told; their bodies count once.
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
    """What the text of a program, or of a part of it, says.

    Attributes:
      once: work with every loop body once, as the compiler's analysis has it.
      loops: work that comes on top of that because loops run more than once.
      cycles: estimates of the compiler and of kernels.
      collectives, without_cycles, unknown_loops: see :class:`Costs`.
    """

    once: Work = Work()
    loops: Work = Work()
    cycles: int = 0
    collectives: Counts = dataclasses.field(default_factory=dict)
    without_cycles: Counts = dataclasses.field(default_factory=dict)
    unknown_loops: int = 0

    def __add__(self, other: "Counted") -> "Counted":
        return Counted(
            self.once + other.once,
            self.loops + other.loops,
            self.cycles + other.cycles,
            _sum(self.collectives, other.collectives),
            _sum(self.without_cycles, other.without_cycles),
            self.unknown_loops + other.unknown_loops,
        )

    def repeated(self, number: int) -> "Counted":
        """A loop that runs this so many times."""
        return Counted(
            self.once,
            self.loops.times(number) + self.once.times(number - 1),
            self.cycles * number,
            _times(self.collectives, number),
            _times(self.without_cycles, number),
            self.unknown_loops,
        )


def _sum(one: Counts, other: Counts) -> Counts:
    names = sorted({*one, *other})
    pairs = {name: (one.get(name, (0, 0)), other.get(name, (0, 0))) for name in names}
    return {name: (a + c, b + d) for name, ((a, b), (c, d)) in pairs.items()}


def _times(counts: Counts, number: int) -> Counts:
    return {name: (often * number, size * number) for name, (often, size) in counts.items() if number}


def count(text: str, chip: Tpu | None = None) -> Counted:
    """Adds up the instructions of a program.

    Args:
      text: HLO, as the compiler prints it.
      chip: turns operations of kernels into cycles; None if there is no need to.
    """
    module = hlo.parse(text)
    return functools.reduce(Counted.__add__, _parts(module, chip, module.entry, {}), Counted())


# Values of scalar integers that are known before the program runs: numbers, or a tuple's elements by their index.
Known = int | dict[int, Any] | None


def _parts(module: hlo.Module, chip: Tpu | None, name: str, known: dict[int, Known]) -> list[Counted]:
    """The instructions of a computation that runs. ``known``: what is known of its parameters."""
    computation = module.computations[name]
    values = _Values(module, computation, known)
    parts, chains = [], set()
    for instruction in computation.instructions.values():
        chain = _chain(module, instruction)
        parts.append(_cost(module, chip, computation, values, instruction, seen=chain is not None and chain in chains))
        chains.add(chain)
    return parts


def _chain(module: hlo.Module, instruction: hlo.Instruction) -> str | None:
    """A TPU carries a collective on while it computes: every fusion on the way has a copy of it, with a common name."""
    if instruction.opcode != "fusion":
        return None
    for inner in module.computations[instruction.computation("calls")].instructions.values():
        chain = inner.attribute(r'chain_id="(\w+)"')
        if chain is not None and inner.opcode in COLLECTIVES:
            return f"{inner.opcode} {chain}"
    return None


def _cost(
    module: hlo.Module,
    chip: Tpu | None,
    computation: hlo.Computation,
    values: "_Values",
    instruction: hlo.Instruction,
    *,
    seen: bool,
) -> Counted:
    def run(name: str, known: dict[int, Known]) -> Counted:
        return functools.reduce(Counted.__add__, _parts(module, chip, name, known), Counted())

    if instruction.opcode == "while":
        start = values.of(instruction.operands[0])
        body, condition = instruction.computation("body"), instruction.computation("condition")
        invariant = _invariant(module, body, start)
        number = _stated_trips(instruction) or _trips(module, condition, body, start)
        counted = run(body, {0: invariant}).repeated(1 if number is None else number)
        return dataclasses.replace(counted, unknown_loops=counted.unknown_loops + (number is None))
    if instruction.opcode == "conditional":
        branches = [name.removeprefix("%") for name in _branches(instruction)]
        return max((run(name, {}) for name in branches), key=lambda c: (c.cycles, c.once.flops + c.loops.flops))
    if instruction.opcode in ("call", "async-start"):
        called = instruction.computation("to_apply" if instruction.opcode == "call" else "calls")
        return run(called, {index: values.of(name) for index, name in enumerate(instruction.operands)})

    cycles, states = _cycles(instruction, chip)
    work = Work(_flops(module, computation, instruction), _num_bytes(module, computation, instruction))
    collective = None if seen else _collective(module, computation, instruction)
    without: Counts = {}
    if not states and collective is None and not seen and work.num_bytes and _takes_time(module, instruction):
        without = {_kind(module, instruction): (1, int(work.num_bytes))}
    return Counted(
        once=work,
        cycles=cycles,
        collectives={} if collective is None else {collective[0]: (1, collective[1])},
        without_cycles=without,
    )


def _branches(instruction: hlo.Instruction) -> list[str]:
    names = instruction.attribute(r"branch_computations=\{([^}]*)\}")
    if names is not None:
        return names.split(", ")
    return [instruction.computation("true_computation"), instruction.computation("false_computation")]


# Cycles


def _cycles(instruction: hlo.Instruction, chip: Tpu | None) -> tuple[int, bool]:
    """Cycles of an instruction, and whether anything states them."""
    stated = instruction.attribute(r'"estimated_cycles":"(\d+)"')
    if stated is not None:
        return int(stated), True
    flops = _kernel_flops(instruction)
    if flops is not None and chip is not None:
        return math.ceil(flops / chip.flops_per_cycle), True
    return 0, False


def _kernel_flops(instruction: hlo.Instruction) -> float | None:
    """Operations of a kernel (Pallas, ragged product), as its author states them."""
    flops = instruction.attribute(r'"cost_estimate":\{[^}]*"flops":"(\d+)"')
    return None if flops is None or instruction.opcode != "custom-call" else float(flops)


_FREE = {
    *("after-all", "bitcast", "constant", "get-tuple-element", "parameter", "partition-id", "replica-id", "tuple"),
    # Copies between memories run beside the computation; their time is that of whoever waits for them.
    *("copy-start", "copy-done", "slice-start", "slice-done", "async-update", "async-done"),
}
_FREE_CALLS = {"AllocateBuffer", "ConcatBitcast"}


def _takes_time(module: hlo.Module, instruction: hlo.Instruction) -> bool:
    if instruction.opcode in _FREE or instruction.opcode.endswith("-done"):
        return False
    if instruction.attribute(r'custom_call_target="(\w+)"') in _FREE_CALLS:
        return False
    return any(shape.elements > 1 for shape in instruction.shapes)  # numbers are computed beside everything else


def _kind(module: hlo.Module, instruction: hlo.Instruction) -> str:
    """The opcode, of a fusion that of the work in it that no estimate covers."""
    if instruction.opcode == "custom-call":
        return instruction.attribute(r'custom_call_target="(\w+)"') or instruction.opcode
    if instruction.opcode != "fusion":
        return instruction.opcode
    inner = {i.opcode for i in module.computations[instruction.computation("calls")].instructions.values()}
    return next((opcode for opcode in ("gather", "scatter", "sort") if opcode in inner), "fusion")


# Collectives


def _collective(
    module: hlo.Module, computation: hlo.Computation, instruction: hlo.Instruction
) -> tuple[str, int] | None:
    """Kind and bytes of a collective, which may be inside a fusion."""
    if instruction.opcode == "fusion":
        inner = module.computations[instruction.computation("calls")]
        for found in inner.instructions.values():
            if found.opcode in COLLECTIVES:
                kind, size = found.opcode, max(found.num_bytes, _operand_bytes(inner, found))
                # A TPU sums and keeps a part in one go; the text has a sum of everything, and a slice of that.
                sliced = kind == "all-reduce" and inner.root.opcode == "dynamic-slice"
                return ("reduce-scatter" if sliced else kind), size
        return None
    kind = instruction.opcode.removesuffix("-start")
    if kind not in COLLECTIVES:
        return None
    sent = _operand_bytes(computation, instruction)
    received = sum(shape.num_bytes for shape in instruction.shapes if shape.sizes)
    if instruction.opcode.endswith("-start") and kind != "all-reduce":
        received -= sent  # the result of a start holds its operands too
    return kind, max(sent, received)


def _operand_bytes(computation: hlo.Computation, instruction: hlo.Instruction) -> int:
    return sum(computation.instructions[name].num_bytes for name in instruction.operands)


# Operations and bytes. The compiler's analysis is right but for loops, so that these matter in the bodies of loops.

_ARITHMETIC = {
    *("abs", "add", "and", "clamp", "compare", "convert", "divide", "maximum", "minimum", "multiply", "negate"),
    *("not", "or", "reduce", "remainder", "select", "sign", "subtract", "xor"),
    *("shift-left", "shift-right-arithmetic", "shift-right-logical"),
}


def _flops(module: hlo.Module, computation: hlo.Computation, instruction: hlo.Instruction) -> float:
    if instruction.opcode == "fusion":
        inner = module.computations[instruction.computation("calls")]
        return sum(_flops(module, inner, each) for each in inner.instructions.values())
    if instruction.opcode in ("dot", "convolution"):
        left, right = (computation.instructions[name].shapes[0] for name in instruction.operands[:2])
        if instruction.opcode == "dot":
            contracted = instruction.attribute(r"lhs_contracting_dims=\{([\d,]*)\}")
            sizes = [left.sizes[int(axis)] for axis in filter(None, (contracted or "").split(","))]
            return 2.0 * instruction.shapes[0].elements * math.prod(sizes)
        return 2.0 * _multiplications(instruction, left, right)
    if instruction.opcode in _ARITHMETIC:
        shape = instruction.shapes[0]
        if instruction.opcode == "reduce":
            shape = computation.instructions[instruction.operands[0]].shapes[0]
        return float(shape.elements)
    return _kernel_flops(instruction) or 0.0


def _multiplications(instruction: hlo.Instruction, left: hlo.Shape, right: hlo.Shape) -> int:
    """Of a convolution: every pair of positions of kernel and output at which there is an input, times the features."""
    names = instruction.attribute(r"dim_labels=(\S+?->\w+)")
    if names is None:
        raise ValueError(f"{instruction.name}: expected dim_labels; received {instruction.attributes!r}")
    inputs, kernel, output = re.split("_|->", names)
    window = instruction.attribute(r"window=\{([^}]*)\}") or ""
    pairs = 1
    for axis in sorted(set(inputs) - {"b", "f"}):
        index = int(axis)

        def setting(name: str, default: str, index: int = index) -> str:
            match = re.search(rf"\b{name}=(\S+)", window)
            return match[1].split("x")[index] if match else default

        low = int(setting("pad", "0_0").split("_")[0])
        stride, dilation, spread = (int(setting(key, "1")) for key in ("stride", "rhs_dilate", "lhs_dilate"))
        size = left.sizes[inputs.index(axis)]
        pairs *= sum(
            0 <= at < (size - 1) * spread + 1 and at % spread == 0
            for out in range(instruction.shapes[0].sizes[output.index(axis)])
            for at in (out * stride - low + k * dilation for k in range(right.sizes[kernel.index(axis)]))
        )
    batches = int(instruction.attribute(r"batch_group_count=(\d+)") or 1)
    batch, features = left.sizes[inputs.index("b")] // batches, right.sizes[kernel.index("o")]
    return pairs * batch * features * right.sizes[kernel.index("i")]


def _num_bytes(module: hlo.Module, computation: hlo.Computation, instruction: hlo.Instruction) -> int:
    """Read and written by an instruction that runs; a slice is read, not what it is cut from."""
    if instruction.opcode in _FREE or instruction.opcode.endswith("-done"):
        return 0
    if instruction.opcode == "fusion":
        inner = module.computations[instruction.computation("calls")]
        read = sum(_read(module, inner, parameter) for parameter in inner.parameters.values())
        return read + _written(inner, inner.root)
    if instruction.opcode in ("dynamic-slice", "gather", "slice"):
        return 2 * instruction.num_bytes
    if instruction.opcode == "dynamic-update-slice":
        return 2 * computation.instructions[instruction.operands[1]].num_bytes
    return instruction.num_bytes + _operand_bytes(computation, instruction)


def _read(module: hlo.Module, computation: hlo.Computation, parameter: hlo.Instruction) -> int:
    """Bytes that a fusion reads of one of its parameters."""
    size = 0
    for user in computation.users(parameter.name):
        if user.opcode in ("dynamic-slice", "gather", "slice") and user.operands[0] == parameter.name:
            size += user.num_bytes
        elif user.opcode == "fusion":
            inner = module.computations[user.computation("calls")]
            size += _read(module, inner, inner.parameters[user.operands.index(parameter.name)])
        elif user.opcode != "dynamic-update-slice" or user.operands[0] != parameter.name:
            size += parameter.num_bytes
    return min(size, parameter.num_bytes)


def _written(computation: hlo.Computation, instruction: hlo.Instruction) -> int:
    if instruction.opcode == "tuple":
        return sum(_written(computation, computation.instructions[name]) for name in instruction.operands)
    if instruction.opcode == "bitcast":
        return _written(computation, computation.instructions[instruction.operands[0]])
    if instruction.opcode == "dynamic-update-slice":
        return computation.instructions[instruction.operands[1]].num_bytes
    return instruction.num_bytes


# How often a loop runs

_LARGEST = 1_000_000  # runs of a loop that are looked at


def _stated_trips(instruction: hlo.Instruction) -> int | None:
    stated = instruction.attribute(r'"known_trip_count":\{"n":"(\d+)"')
    return None if stated is None else int(stated)


def _trips(module: hlo.Module, condition: str, body: str, start: Known) -> int | None:
    """How often a loop runs, by going through its integers; None if they depend on what is not known."""
    state = start
    for number in range(_LARGEST):
        goes_on = _Values(module, module.computations[condition], {0: state}).result()
        if not isinstance(goes_on, int):
            return None
        if not goes_on:
            return number
        state = _Values(module, module.computations[body], {0: state}).result()
    return None


def _invariant(module: hlo.Module, body: str, start: Known) -> Known:
    """What is known of a loop's tuple in every run: the elements that its body passes on as they are."""
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


class _Values:
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
            return _Values(self._module, called, {i: self.of(name) for i, name in enumerate(operands)}).result()
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
