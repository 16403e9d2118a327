"""Compiled programs as the compiler prints them (HLO text), parsed for counting their costs."""

import dataclasses
import math
import re
from collections.abc import Mapping

_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\](\{[^}]*S\(1\)\})?")
_NAME = r"%?[\w.\-]+"


@dataclasses.dataclass(frozen=True)
class Shape:
    """An array.

    Attributes:
      bits: of an element.
      sizes: of its axes.
      on_chip: whether a TPU keeps it in the memory of its core; bytes from there do not pass the chip's memory.
    """

    bits: int
    sizes: tuple[int, ...]
    on_chip: bool = False

    @property
    def elements(self) -> int:
        return math.prod(self.sizes)

    @property
    def num_bytes(self) -> int:
        return -(-self.bits * self.elements // 8)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: unique in the module.
      opcode: what it does, e.g. ``all-gather-start``.
      type: of the result, as the compiler prints it.
      shapes: the result; several arrays for a tuple.
      operands: names.
      inside: the text between the parentheses (the value of a constant, the number of a parameter).
      attributes: the text after them.
    """

    name: str
    opcode: str
    type: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    inside: str
    attributes: str

    @property
    def num_bytes(self) -> int:
        return sum(shape.num_bytes for shape in self.shapes)

    @property
    def off_chip_bytes(self) -> int:
        """Those of the arrays that are in the chip's memory."""
        return sum(shape.num_bytes for shape in self.shapes if not shape.on_chip)

    def attribute(self, pattern: str) -> str | None:
        """The first group of a regular expression, searched in the attributes; None if it is not there."""
        match = re.search(pattern, self.attributes)
        return None if match is None else match[1]

    def computation(self, key: str) -> str:
        """Name of a computation that the instruction calls, e.g. ``body``.

        Raises:
          ValueError: it calls none by that key.
        """
        name = self.attribute(rf"\b{key}=({_NAME})")
        if name is None:
            raise ValueError(f"{self.name}: expected {key}=COMPUTATION; received {self.attributes!r}")
        return name.removeprefix("%")


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in order; ``root`` is the result."""

    instructions: Mapping[str, Instruction]
    root: Instruction

    @property
    def parameters(self) -> dict[int, Instruction]:
        return {int(i.inside): i for i in self.instructions.values() if i.opcode == "parameter"}

    def users(self, name: str) -> list[Instruction]:
        return [i for i in self.instructions.values() if name in i.operands]


@dataclasses.dataclass(frozen=True)
class Module:
    """All computations of a program by name, and which one runs."""

    computations: Mapping[str, Computation]
    entry: str


def parse(text: str) -> Module:
    """Reads what ``compiled.as_text()`` gives.

    Raises:
      ValueError: it has no entry computation.
    """
    computations: dict[str, Computation] = {}
    entry = name = ""
    instructions: dict[str, Instruction] = {}
    root: Instruction | None = None
    for line in text.splitlines():
        start = re.match(rf"(ENTRY )?({_NAME}) .*\{{$", line)
        if start is not None and " = " not in line.partition("(")[0]:
            name, instructions, root = start[2].removeprefix("%"), {}, None
            entry = name if start[1] else entry
        elif line.startswith("}") and root is not None:
            computations[name] = Computation(instructions, root)
            root = None
        elif name and line.startswith(" ") and " = " in line:
            instruction = _instruction(line)
            instructions[instruction.name] = instruction
            if root is None or line.lstrip().startswith("ROOT "):
                root = instruction
    if entry not in computations:
        raise ValueError(f"HLO text: expected an ENTRY computation; received {text[:80]!r}")
    return Module(computations, entry)


def shapes_of(text: str) -> tuple[Shape, ...]:
    """The arrays in the text of a type: ``(f32[2,3]{1,0}, u32[])``."""
    return tuple(
        Shape(
            8 if match[1] == "pred" else int(match[2]),
            tuple(map(int, filter(None, match[3].split(",")))),
            match[4] is not None,
        )
        for match in _ARRAY.finditer(text)
    )


def _instruction(line: str) -> Instruction:
    name, _, rest = line.strip().removeprefix("ROOT ").partition(" = ")
    # A tuple's type has spaces and parentheses of its own.
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    result, rest = rest[:end], rest[end:].lstrip()
    opening = rest.index("(")
    closing = _closing(rest, opening)
    inside = rest[opening + 1 : closing]
    return Instruction(
        name=name.removeprefix("%"),
        opcode=rest[:opening],
        type=result,
        shapes=shapes_of(result),
        operands=tuple(operand[1:] for operand in re.findall(r"%[\w.\-]+", inside)),
        inside=inside,
        attributes=rest[closing + 1 :],
    )


def _closing(text: str, opening: int) -> int:
    """Position of the parenthesis that closes the one at ``opening``."""
    depth = 0
    for match in re.compile(r"[()]").finditer(text, opening):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return match.start()
    raise ValueError(f"HLO text: expected a closing parenthesis; received {text[:80]!r}")
