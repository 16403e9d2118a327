"""Costs of one instruction of a program: operations, bytes, cycles, collectives."""

import math
import operator
import re
from collections.abc import Callable
from typing import TypeAlias

from vmoe_inform.performance.costs import hlo
from vmoe_inform.sharding.chips import Tpu

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)


def cycles(instruction: hlo.Instruction, chip: Tpu | None) -> tuple[int, bool]:
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


COPIES_AHEAD = ("copy-start", "slice-start", "dynamic-slice-start", "dynamic-update-slice-start")
_FREE = {
    *("after-all", "bitcast", "constant", "get-tuple-element", "parameter", "partition-id", "replica-id", "tuple"),
    # Copies between memories run in parallel with the computation; their time is that of the waiting instruction.
    *COPIES_AHEAD,
    "async-update",
}
_FREE_CALLS = {"AllocateBuffer", "ConcatBitcast"}


def is_free(instruction: hlo.Instruction) -> bool:
    """Whether an instruction does nothing, or only what runs in parallel with the others."""
    if instruction.opcode in _FREE or instruction.opcode.endswith("-done"):
        return True
    return instruction.attribute(r'custom_call_target="(\w+)"') in _FREE_CALLS


def takes_time(instruction: hlo.Instruction) -> bool:
    """Whether an instruction takes time of the device's own."""
    if is_free(instruction):
        return False
    return any(shape.elements > 1 for shape in instruction.shapes)  # numbers run in parallel with everything else


def kind(module: hlo.Module, instruction: hlo.Instruction) -> str:
    """The opcode, of a fusion that of the work in it that no estimate covers."""
    if instruction.opcode == "custom-call":
        return instruction.attribute(r'custom_call_target="(\w+)"') or instruction.opcode
    if instruction.opcode != "fusion":
        return instruction.opcode
    inner = {i.opcode for i in module.computations[instruction.computation("calls")].instructions.values()}
    return next((opcode for opcode in ("gather", "scatter", "sort") if opcode in inner), "fusion")


# Collectives


def collective(
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


def sent_to_other_slices(computation: hlo.Computation, instruction: hlo.Instruction) -> tuple[str, int] | None:
    """Kind and bytes of what a device hands to the network between slices.

    The compiler for TPUs writes the program of one slice. Of a collective over several, it leaves the part within the
    slice, and a send and a receive by which the runtime does the rest.
    """
    if instruction.opcode != "send" or not exchanges_with_slices(instruction):
        return None
    kind = instruction.attribute(r'_xla_megascale_transfer_type="(\w+)"') or instruction.opcode
    return kind.lower().replace("_", "-"), _operand_bytes(computation, instruction)


def exchanges_with_slices(instruction: hlo.Instruction) -> bool:
    """Whether an instruction sends to other slices, or receives from them."""
    handler = instruction.attribute(r'_xla_host_transfer_handler_name="(\w+)"')
    return instruction.opcode in ("send", "recv") and handler == "xla_megascale_runtime"


def _operand_bytes(computation: hlo.Computation, instruction: hlo.Instruction) -> int:
    return sum(computation.instructions[name].num_bytes for name in instruction.operands)


# Operations and bytes. The compiler's analysis is right but for loops, so that these matter in the bodies of loops.

_ARITHMETIC = {
    *("abs", "add", "and", "clamp", "compare", "convert", "divide", "maximum", "minimum", "multiply", "negate"),
    *("not", "or", "reduce", "remainder", "select", "sign", "subtract", "xor"),
    *("shift-left", "shift-right-arithmetic", "shift-right-logical"),
}


def flops(module: hlo.Module, computation: hlo.Computation, instruction: hlo.Instruction) -> float:
    """Floating-point operations of an instruction, of a fusion those of the instructions in it."""
    if instruction.opcode == "fusion":
        inner = module.computations[instruction.computation("calls")]
        return sum(flops(module, inner, each) for each in inner.instructions.values())
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


def num_bytes(
    module: hlo.Module, computation: hlo.Computation, instruction: hlo.Instruction, *, off_chip: bool = False
) -> int:
    """Read and written by an instruction that runs; a slice is read, not what it is cut from.

    Args:
      module, computation: of the instruction.
      instruction: any.
      off_chip: leaves out arrays that a TPU keeps in the memory of its core.
    """
    size = _OFF_CHIP if off_chip else _ALL
    if instruction.opcode in _FREE or instruction.opcode.endswith("-done"):
        return 0
    if instruction.opcode == "fusion":
        inner = module.computations[instruction.computation("calls")]
        read = sum(_read(module, inner, parameter, size) for parameter in inner.parameters.values())
        return read + _written(inner, inner.root, size)
    if instruction.opcode in ("dynamic-slice", "gather", "slice"):
        source = computation.instructions[instruction.operands[0]]
        return size(instruction) + (instruction.num_bytes if size(source) else 0)
    if instruction.opcode == "dynamic-update-slice":
        update = computation.instructions[instruction.operands[1]]
        return size(update) + (update.num_bytes if size(instruction) else 0)
    return size(instruction) + sum(size(computation.instructions[name]) for name in instruction.operands)


_Size: TypeAlias = Callable[[hlo.Instruction], int]  # bytes of a result that count
_ALL: _Size = operator.attrgetter("num_bytes")
_OFF_CHIP: _Size = operator.attrgetter("off_chip_bytes")


def _read(module: hlo.Module, computation: hlo.Computation, parameter: hlo.Instruction, size: _Size) -> int:
    """Bytes that a fusion reads of one of its parameters."""
    whole, found = size(parameter), 0
    if whole == 0:
        return 0
    for user in computation.users(parameter.name):
        if user.opcode in ("dynamic-slice", "gather", "slice") and user.operands[0] == parameter.name:
            found += user.num_bytes
        elif user.opcode == "fusion":
            inner = module.computations[user.computation("calls")]
            found += _read(module, inner, inner.parameters[user.operands.index(parameter.name)], size)
        elif user.opcode != "dynamic-update-slice" or user.operands[0] != parameter.name:
            found += whole
    return min(found, whole)


def _written(computation: hlo.Computation, instruction: hlo.Instruction, size: _Size) -> int:
    """Bytes that a fusion writes; where they go is said of its results, and not of what becomes one."""
    if size(instruction) == 0:
        return 0
    inner = [computation.instructions[name] for name in instruction.operands if name in computation.instructions]
    if instruction.opcode == "tuple":
        to = iter(instruction.shapes)  # of a part that is a tuple itself, one after the other
        pairs = [(part, [next(to) for _ in part.shapes]) for part in inner]
        off_chip = [part for part, shapes in pairs if size is _ALL or not all(shape.on_chip for shape in shapes)]
        return sum(_written(computation, part, _ALL) for part in off_chip)
    if instruction.opcode == "bitcast":
        return _written(computation, inner[0], _ALL)
    if instruction.opcode == "dynamic-update-slice":
        return inner[1].num_bytes
    return size(instruction)
