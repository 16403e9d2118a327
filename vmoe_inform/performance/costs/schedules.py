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
      by_bandwidth: bytes read and written, at the bandwidth of the chip's memory.
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


def of(text: str, folder: pathlib.Path, chip: Tpu) -> Schedule:
    """Adds up the schedules of a program.

    Args:
      text: HLO, as the compiler prints it. Loops around fusions are not looked into.
      folder: of :func:`write_to`, with the schedules of this program alone.
      chip: that it is compiled for.

    Raises:
      ValueError: the folder has no schedules.
    """
    found = {_name(path): path for path in folder.glob(f"*{_LABEL}*")}
    if not found:
        raise checks.error("libtpu", f"schedules in {folder}, from options before it was loaded", "none")
    module = hlo.parse(text)
    entry = module.computations[module.entry]
    total = Schedule()
    for instruction in entry.instructions.values():
        if instruction.name in found and instructions.takes_time(module, instruction):
            total += _of_instruction(module, entry, instruction, found[instruction.name].read_text(), chip)
    return total


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
    num_bytes = instructions.num_bytes(module, computation, instruction)
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
