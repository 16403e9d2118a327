"""How long the compiler of a TPU makes a program, by its final schedules instead of its estimates.

The schedule of a fusion or kernel is a list of very long instructions, one for each cycle. The core runs it for every
part of the arrays. That says more than an estimate, and less than a clock: a schedule does not count waiting. The core
waits for memory, and for its matrix units. They take as long as operations at the chip's peak.
"""

import dataclasses
import math
import os
import pathlib
import re
from typing import Any

from vmoe_inform import checks
from vmoe_inform.performance.costs import _instructions as instructions
from vmoe_inform.performance.costs import hlo
from vmoe_inform.sharding.chips import Tpu

_LABEL = "schedule-analysis_final_bundles"


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Cycles of a program, summed over its fusions and kernels.

    Attributes:
      scheduled: instructions of one run, times the runs.
      at_peak: operations at the chip's peak.
      by_bandwidth: bytes that pass the chip's memory, at its bandwidth.
      longest: of each fusion the longest of these three, which is what it takes at the least.
      estimated: by the compiler, and operations at peak for kernels.
    """

    scheduled: int = 0
    at_peak: int = 0
    by_bandwidth: int = 0
    longest: int = 0
    estimated: int = 0

    def __add__(self, other: "Schedule") -> "Schedule":
        return Schedule(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))


def write_to(folder: pathlib.Path) -> None:
    """Makes the compiler write its schedules to a folder, for all programs of this process.

    It must be called before anything is compiled for a TPU.
    """
    options = f"--xla_jf_dump_to={folder} --xla_jf_dump_llo_text=true --xla_jf_dump_llo_pass_label_regex=.*final.*"
    os.environ["LIBTPU_INIT_ARGS"] = f"{os.environ.get('LIBTPU_INIT_ARGS', '')} {options}".strip()


def of(text: str, folder: pathlib.Path, chip: Tpu, within: str = "") -> Schedule:
    """Adds up the schedules of a program.

    Fusions that are alike share their code: only one of them has a schedule, which counts for each.

    Args:
      text: HLO, as the compiler prints it. Loops around fusions are not looked into.
      folder: of :func:`write_to`, with the schedules of this program alone.
      chip: that it is compiled for.
      within: a regular expression. Only instructions count in whose origin, names of modules with slashes, it is found.

    Raises:
      ValueError: the folder has no schedules.
    """
    found = {_name(path): path for path in folder.glob(f"*{_LABEL}*")}
    if not found:
        raise checks.error("libtpu", f"schedules in {folder}, from options before it was loaded", "none")
    module = hlo.parse(text)
    entry = module.computations[module.entry]
    alike = {
        _signature(module, entry, instruction): name
        for name, instruction in entry.instructions.items()
        if name in found
    }
    total = Schedule()
    for name, instruction in entry.instructions.items():
        origin = instruction.attribute(r'op_name="([^"]*)"') or ""
        if instructions.takes_time(module, instruction) and re.search(within, origin):
            code = name if name in found else alike.get(_signature(module, entry, instruction))
            if code is not None:
                total += _of_instruction(module, entry, instruction, found[code].read_text(), chip)
    return total


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


def _name(path: pathlib.Path) -> str:
    """Of the instruction: files are called NUMBER-NAME-NUMBER-schedule-analysis_final_bundles.txt."""
    match = re.fullmatch(rf"\d+-(.*)-\d+-{_LABEL}.*", path.name)
    return "" if match is None else match[1]


def _of_instruction(
    module: hlo.Module, computation: hlo.Computation, instruction: hlo.Instruction, analysis: str, chip: Tpu
) -> Schedule:
    stated = re.search(r"total scheduled bundles:\s+(\d+)", analysis)
    scheduled = (0 if stated is None else int(stated[1])) * _runs(instruction)
    at_peak = math.ceil(instructions.flops(module, computation, instruction) / chip.flops_per_cycle)
    num_bytes = instructions.num_bytes(module, computation, instruction, off_chip=True)
    by_bandwidth = math.ceil(num_bytes * chip.clock_hz / chip.hbm_bytes_per_second)
    estimated, _ = instructions.cycles(instruction, chip)
    return Schedule(scheduled, at_peak, by_bandwidth, max(scheduled, at_peak, by_bandwidth), estimated)


def _runs(instruction: hlo.Instruction) -> int:
    """How often the schedule of an instruction runs: for each part of a fusion, or as a kernel's author states."""
    bounds = instruction.attribute(r'"iteration_bounds":\[([^\]]*)\]')
    if bounds is not None:
        return math.prod(int(bound.strip('" ')) for bound in bounds.split(","))
    stated = instruction.attribute(r'op_name="[^"]*\bruns=(\d+)')
    return 1 if stated is None else int(stated)
