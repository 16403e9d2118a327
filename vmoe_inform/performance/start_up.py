"""Processor time of a run from the start of its process to its end: with compiled programs, and without.

Each round starts a process for each way. What other programs do to the clock does next to nothing to processor time.
"""

import dataclasses
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

from vmoe_inform import checks
from vmoe_inform.performance import timing
from vmoe_inform.performance.timing import Spread

HERE = pathlib.Path(__file__).parents[2]
THIS, BEFORE = "this", "before"
WAYS = ("off", "kept", "found")  # compiled programs: not kept, kept for the first time, found
_SWITCH, _PLACE = "JAX_ENABLE_COMPILATION_CACHE", "JAX_COMPILATION_CACHE_DIR"


@dataclasses.dataclass(frozen=True)
class StartRow:
    """One way to start.

    Attributes:
      checkout: ``"this"`` or ``"before"``.
      programs: ``"off"``, ``"kept"`` for the first time, or ``"found"``.
      processor_seconds: of the process and its children, user and system.
      over_off: over the time with ``"off"``, in the first checkout that is measured.
    """

    checkout: str
    programs: str
    processor_seconds: Spread
    over_off: Spread


def measure(arguments: Sequence[str], before: pathlib.Path | None, *, repeats: int) -> Iterator[StartRow]:
    """Runs training in processes of its own, in turns.

    Args:
      arguments: of ``vmoe-train``, without the workdir.
      before: another checkout of this repository, which is measured first in each round.
      repeats: rounds.

    Raises:
      ValueError: no such checkout, or a run that fails, with the last line that it says.
    """
    checkouts = {THIS: HERE} if before is None else {BEFORE: before, THIS: HERE}
    if before is not None and not (before / "vmoe_inform" / "train.py").exists():
        raise checks.error("--before", "a folder with vmoe_inform/train.py", str(before))
    found: dict[tuple[str, str], list[float]] = {(name, way): [] for name in checkouts for way in WAYS}
    for _ in range(repeats):
        for name, folder in checkouts.items():
            with tempfile.TemporaryDirectory() as temporary:
                for way in WAYS:
                    found[name, way].append(_seconds(folder, arguments, way, pathlib.Path(temporary)))
    reference = found[next(iter(checkouts)), "off"]
    for (name, way), seconds in found.items():
        yield StartRow(name, way, timing.spread(seconds), timing.ratio(seconds, reference))


def _seconds(checkout: pathlib.Path, arguments: Sequence[str], way: str, temporary: pathlib.Path) -> float:
    """Processor seconds of one run with a workdir of its own; programs are those of ``temporary``.

    It runs in this folder, so that relative paths of its arguments are those of this process.
    """
    environment = {name: value for name, value in os.environ.items() if name not in (_SWITCH, _PLACE)}
    environment |= {_SWITCH: "false"} if way == "off" else {_PLACE: str(temporary / "compiled")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(checkout.absolute()), os.environ.get("PYTHONPATH"))))
    # -P: this folder may be a checkout, too
    command = [sys.executable, "-P", "-m", "vmoe_inform.train", *arguments, f"--workdir={temporary / way}"]
    start = _of_children()
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    if ended.returncode != 0:
        said = (ended.stderr.strip() or ended.stdout.strip() or f"exit code {ended.returncode}").splitlines()[-1]
        raise checks.InputError(f"benchmark start: expected a run that ends well; received {said!r}")
    return _of_children() - start


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
