"""Checks a GPU or TPU in a few minutes: every fast path against its reference, speed, memory, resuming, and a trace.

    python -m vmoe_inform.accelerator_check [--minutes=8] [--json=FILE] [--trace=FOLDER] [--parts=NAMES] [--size=SIZE]

It needs JAX for the device, and of this package no more than a checkout: pip install absl-py flax jaxtyping
ml-collections optax. The parts run in this order while there is time: paths, training, resume, trace,
side_by_side. The file is written with every row. On a CPU the sizes are tiny. Exit codes: 0 nothing is wrong, 2 bad
input, 5 a finding. Findings are a path unlike its reference, a resumed run with other bits, and a part that failed.
"""

import os
import sys
import time
from typing import TYPE_CHECKING, Annotated

try:
    from absl import flags

    from vmoe_inform import checks, command_line, storage
except ModuleNotFoundError as _problem:
    _INSTALL = "pip install absl-py flax jaxtyping ml-collections optax"
    sys.exit(f"error: accelerator_check: expected the module {_problem.name} ({_INSTALL}); received none")

if TYPE_CHECKING:
    from vmoe_inform.performance.accelerator.results import Report

_STARTED = time.perf_counter()
_SECONDS_TO_END = 3.0  # of the minutes, for the last table
_MINUTES = command_line.define(
    "minutes", Annotated[float, checks.Bound(at_least=0.1, at_most=1440.0)], 8.0, "It ends within this time."
)
_JSON = command_line.define_output("json", "File for what was found; it is written with every row.")
_TRACE = command_line.define_run_path("trace", "Folder for a trace; by default beside the file of --json.")
_PARTS = command_line.define("parts", tuple[checks.Name, ...], None, "Parts to run; by default all.")
_SIZE = flags.DEFINE_enum("size", "auto", ["auto", "small", "full"], "Sizes; auto: small on a CPU, else full.")


def main(_: list[str]) -> int:
    """Returns the exit code."""
    file = _JSON()
    from vmoe_inform.performance.accelerator import run, sizes

    def end(report: "Report") -> None:
        """A compiler or kernel that is still at work cannot be asked to stop."""
        code = _show(report)
        sys.stdout.flush()
        os._exit(code)

    beside = None if file is None else file.with_suffix(".trace")
    trace = storage.path("--trace", _TRACE.value) if _TRACE.value else beside
    report = run.check(
        minutes=_MINUTES.value - _SECONDS_TO_END / 60,
        names=tuple(run.PARTS) if _PARTS.value is None else _PARTS.value,
        sizes={"auto": None, "small": sizes.SMALL, "full": sizes.FULL}[_SIZE.value],
        file=file,
        trace_folder=trace,
        started=_STARTED,
        at_deadline=end,
    )
    return _show(report)


def _show(report: "Report") -> int:
    """Prints the report, and returns the exit code."""
    from vmoe_inform.performance.accelerator import lines

    print("\n".join(lines.of_report(report)))
    return command_line.DIFFERS if report.disagreements else 0


if __name__ == "__main__":
    command_line.run(main)
