"""The code of a fusion or kernel, as the compiler of a TPU prints it at last: a very long instruction in each line."""

import dataclasses
import re

_LINE = re.compile(r"\s*(?:0x[0-9a-f]+|0)\s+(?P<label>[A-Z]{2})?\s*:\s*(?P<depth>>*) \{(?P<empty>\})?")
_EXIT = re.compile(r"scmp\.\w+\.[su]32\.totalorder %\w+, (\d+) /\* loop exit test")


@dataclasses.dataclass
class _Loop:
    """A loop that is open; the code itself is one of depth 0.

    Attributes:
      depth: of loops around its instructions, itself included.
      instructions: so far, those of inner loops as often as they run.
      turns: by the comparison at its end, if that is with a number, else 1. Turns in which the core only begins copies,
        or waits for them, count as whole ones.
      ends: whether the branch back was there. Before it, instructions from around a loop may be among its own.
    """

    depth: int
    instructions: int = 0
    turns: int = 1
    ends: bool = False

    def read(self, line: str) -> None:
        """Looks for what a line says of the loop."""
        turns = _EXIT.search(line)
        if turns is not None:
            self.turns = int(turns[1])
        self.ends = self.ends or "sbr.rel (!" in line


def instructions_of(code: str) -> int:
    """Instructions that run, those of loops as often as the code states; inner loops of unknown length count once."""
    open_loops = [_Loop(0)]

    def close(depth: int) -> None:
        while open_loops[-1].depth > depth:
            loop = open_loops.pop()
            open_loops[-1].instructions += loop.turns * loop.instructions

    for line in code.splitlines():
        found = _LINE.match(line)
        if found is not None:
            depth = len(found["depth"])
            if found["label"] == "LB":
                close(depth - 1)
                open_loops.append(_Loop(depth))
            elif found["label"] or (open_loops[-1].ends and not found["empty"]):
                close(depth)
            open_loops[-1].instructions += 1
        open_loops[-1].read(line)
    close(0)
    return open_loops[0].instructions
