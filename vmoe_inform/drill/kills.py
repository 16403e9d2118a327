"""One kill: the moment of a training process at which it is sent a signal."""

import dataclasses
import json
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

from vmoe_inform import storage
from vmoe_inform.runs import saved_trees

_POLL_SECONDS = 0.002
_STOP_SECONDS = 300.0  # that a process may take to end after SIGTERM
MOMENTS = ("any", "save", "evaluation")


@dataclasses.dataclass(frozen=True)
class Kill:
    """One kill of a process.

    Attributes:
      run: number of the run, from 1.
      moment: of :data:`MOMENTS`, as planned.
      signal: name.
      after_seconds: after its start.
      step: newest checkpoint then; 0 if there was none.
      exit_code: negative for the signal that ended it.
    """

    run: int
    moment: str
    signal: str
    after_seconds: float
    step: int
    exit_code: int


def checkpoint_steps(workdir: storage.Path) -> list[int]:
    """Steps of the complete checkpoints of a run, ascending."""
    folder = workdir / "checkpoints"
    unfinished = {path.name for path in saved_trees.unfinished(folder)}
    return [step for step in storage.numbered_folders(folder) if str(step) not in unfinished]


def is_saving(workdir: storage.Path) -> bool:
    """Whether a checkpoint is being written now."""
    return bool(saved_trees.unfinished(workdir / "checkpoints"))


def last_logged(workdir: storage.Path) -> dict[str, Any]:
    """The last whole line of the run's log."""
    path = workdir / "metrics.jsonl"
    lines = storage.read_bytes(path).splitlines(keepends=True) if storage.exists(path) else []
    whole = [line for line in lines if line.endswith(b"\n")]
    return json.loads(whole[-1]) if whole else {}


def is_evaluating(workdir: storage.Path, every_steps: int) -> bool:
    """Whether the last thing that was logged is a step after which there is an evaluation."""
    entry = last_logged(workdir)
    return "loss" in entry and entry["step"] % every_steps == 0


def kill_one(
    process: subprocess.Popen[bytes],
    workdir: storage.Path,
    *,
    moment: str,
    number: signal.Signals,
    seconds: float,
    every_steps: int,
) -> tuple[float, int] | None:
    """Waits for the moment and sends the signal.

    Args:
      process: training in ``workdir``.
      moment: ``"save"`` and ``"evaluation"``: so long after the first of these that this process does; ``"any"``: so
        long after its start.
      number: what to send.
      seconds: see ``moment``.
      every_steps: between evaluations.

    Returns:
      seconds since its start, and the exit code; None if the process was done before.
    """
    started = time.monotonic()
    left = (last_logged(workdir), is_saving(workdir))  # by the process before, which is no moment of this one
    conditions: dict[str, Callable[[], bool]] = {
        "any": lambda: True,
        "save": lambda: is_saving(workdir),
        "evaluation": lambda: is_evaluating(workdir, every_steps),
    }
    reached = started if moment == "any" else None
    is_new = False
    while process.poll() is None:
        looked = time.monotonic()
        if reached is None:
            is_new = is_new or (last_logged(workdir), is_saving(workdir)) != left
            if is_new and conditions[moment]():
                reached = time.monotonic()
        elif time.monotonic() - reached >= seconds:
            process.send_signal(number)
            after = time.monotonic() - started
            return after, process.wait(_STOP_SECONDS)
        time.sleep(max(_POLL_SECONDS, time.monotonic() - looked))  # in a bucket, looking is work for the store too
    return None
