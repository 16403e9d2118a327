"""Kills training at random moments, again and again, and looks whether it ends with the same arrays all the same.

    python -m vmoe_inform.drill --kills=50 --seed=0 [--router=NAME] [--workdir=DIR] [--json=FILE]

Trains a small model on the digits once without a kill. Then starts the same training in a folder of its own, as a
process that is sent SIGKILL or SIGTERM at a random moment of its life, in a random part of a save, or of an evaluation,
and started again until all steps are done; and so on with new folders until there were so many kills. Of every finished
run, every array of the last checkpoint and the position in the data are compared with the uninterrupted run's, bit for
bit. Prints a table; the exit code is 0 only if all are identical. Compiled programs are kept in DIR, so that a start is
quick; DIR has to be new or empty.

NAME is a router as config files take it, such as ``stablemoe@distilled.switch_step=100``: a run has 400 steps. The
model has two blocks, of which the second has experts; a router that needs both says ``alternate_vmoe,where=0+1``.
"""

import collections
import dataclasses
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vmoe_inform import checks, command_line, storage
from vmoe_inform.config import presets

_KILLS = command_line.define("kills", checks.PositiveInt, 50, "How often training is killed.")
_SEED = command_line.define("seed", checks.Seed, 0, "Of the moments and the signals.")
_ROUTER = command_line.define("router", checks.Name, "symphony_vmoe", "Of the model that is trained.")
_WORKDIR = command_line.define_path("workdir", "Folder for the runs; by default one that is deleted at the end.")
_JSON = command_line.define_json("File for the result.")

_ROOT = pathlib.Path(__file__).parents[1]
_EVALUATION_STEPS = 40
_SMALL = (
    "--config.model.num_layers=2",
    "--config.model.hidden_size=16",
    "--config.model.mlp_size=32",
    "--config.model.num_heads=2",
    "--config.train.epochs=None",
    "--config.train.steps=400",
    "--config.train.batch_size=16",
    "--config.train.ema_decay=0.9",
    "--config.train.log_every_steps=20",
    "--config.optimizer.warmup_steps=10",
    "--config.checkpoint.every_steps=20",
    f"--config.evaluation.every_steps={_EVALUATION_STEPS}",
    "--config.evaluation.batch_size=64",
)
_POLL_SECONDS = 0.002
_STOP_SECONDS = 300.0  # that a process may take to end after SIGTERM
MOMENTS = ("any", "save", "evaluation")


@dataclasses.dataclass(frozen=True)
class Kill:
    """What was done to one process.

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


class Training:
    """One command line of training, started as often as wished."""

    def __init__(self, arguments: Sequence[str], cache: pathlib.Path):
        """Args:
        arguments: of ``vmoe_inform.train``, without ``--workdir``.
        cache: folder for compiled programs.
        """
        self._arguments = arguments
        self._environment = {
            **os.environ,
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }

    def start(self, workdir: pathlib.Path) -> subprocess.Popen[bytes]:
        """Its output is added to ``output.log`` in the workdir."""
        workdir.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "vmoe_inform.train", *self._arguments, f"--workdir={workdir}"]
        with (workdir / "output.log").open("ab") as output:
            return subprocess.Popen(command, cwd=_ROOT, env=self._environment, stdout=output, stderr=output)


def checkpoint_steps(workdir: pathlib.Path) -> list[int]:
    """Steps of the complete checkpoints of a run, ascending."""
    return sorted(int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdecimal())


def is_saving(workdir: pathlib.Path) -> bool:
    """Whether a checkpoint is being written now."""
    return any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp"))


def last_logged(workdir: pathlib.Path) -> dict[str, Any]:
    """The last whole line of the run's log."""
    path = workdir / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith(b"\n")]
    return json.loads(whole[-1]) if whole else {}


def is_evaluating(workdir: pathlib.Path, every_steps: int) -> bool:
    """Whether the last thing that was logged is a step after which there is an evaluation."""
    entry = last_logged(workdir)
    return "loss" in entry and entry["step"] % every_steps == 0


def kill_one(
    process: subprocess.Popen[bytes],
    workdir: pathlib.Path,
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
        if reached is None:
            is_new = is_new or (last_logged(workdir), is_saving(workdir)) != left
            if is_new and conditions[moment]():
                reached = time.monotonic()
        elif time.monotonic() - reached >= seconds:
            process.send_signal(number)
            after = time.monotonic() - started
            return after, process.wait(_STOP_SECONDS)
        time.sleep(_POLL_SECONDS)
    return None


def differing(workdir: pathlib.Path, other: pathlib.Path) -> list[str]:
    """What is not the same to the last bit in the last checkpoints of two runs: paths of arrays and files."""
    from vmoe_inform.runs import saved_trees
    from vmoe_inform.runs.checkpoints import Checkpoints

    found: list[str] = []
    trees, positions = list[dict[str, Any]](), list[dict[str, Any]]()
    for folder in (workdir, other):
        with Checkpoints(folder) as checkpoints:
            step, arrays = checkpoints.load_arrays()
        trees.append(saved_trees.by_path(arrays) | {"step of the checkpoint": np.int64(step)})
        data = folder / "checkpoints" / str(step) / "data"
        positions.append({path.name: path.read_bytes() for path in data.glob("process_*")})
    for one, two in (trees, positions):
        found += [name for name in sorted(one.keys() | two.keys()) if not _identical(one.get(name), two.get(name))]
    return found


def _identical(one: Any, two: Any) -> bool:
    if isinstance(one, np.ndarray | np.generic) and isinstance(two, np.ndarray | np.generic):
        return one.dtype == two.dtype and one.shape == two.shape and one.tobytes() == two.tobytes()
    return type(one) is type(two) and one == two


def drill(
    training: Training,
    workdir: pathlib.Path,
    *,
    kills: int,
    seed: int,
    every_steps: int,
    tell: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Runs it all.

    Args:
      training: what is killed.
      workdir: holds ``uninterrupted`` and one folder for every other run.
      kills: how many.
      seed: of the moments.
      every_steps: between evaluations.
      tell: gets a line for everything that happens.

    Returns:
      ``kills`` (as :class:`Kill`), ``runs`` (of each the arrays that differ), ``seconds``, ``seconds_uninterrupted``.

    Raises:
      ValueError: training refuses its arguments.
      RuntimeError: a process ended in another way than the signal, or what it stands for, can make it end.
    """
    chance = random.Random(seed)
    begun = time.monotonic()
    whole = workdir / "uninterrupted"
    _finish(training.start(whole), whole)  # which compiles
    cold = time.monotonic() - begun
    tell(f"uninterrupted: {checkpoint_steps(whole)[-1]} steps in {cold:.0f} s")
    life = cold  # of a process; those after the first find everything compiled
    done: list[Kill] = []
    runs: list[list[str]] = []
    while len(done) < kills:
        folder = workdir / f"killed_{len(runs) + 1}"
        while True:
            started = time.monotonic()
            process = training.start(folder)
            if len(done) == kills:
                _finish(process, folder)
                break
            moment = chance.choice(MOMENTS)
            number = chance.choice((signal.SIGKILL, signal.SIGTERM))
            seconds = chance.uniform(0, life) if moment == "any" else chance.uniform(0, 0.1)
            killed = kill_one(process, folder, moment=moment, number=number, seconds=seconds, every_steps=every_steps)
            if killed is None:
                _finish(process, folder)
                life = min(life, time.monotonic() - started)
                break
            after, code = killed
            newest = (checkpoint_steps(folder) or [0])[-1]
            done.append(Kill(len(runs) + 1, moment, number.name, round(after, 3), newest, code))
            tell(f"kill {len(done)}: {number.name} ({moment}) after {after:.1f} s, at step {newest}: exit code {code}")
            if code not in (0, -number, command_line.STOPPED) or (number == signal.SIGKILL and code != -number):
                raise RuntimeError(f"{number.name}: exit code {code}; see {folder / 'output.log'}")
        runs.append(differing(folder, whole))
        tell(f"run {len(runs)}: {'DIFFERS in ' + ', '.join(runs[-1]) if runs[-1] else 'identical'}")
    return {
        "kills": [dataclasses.asdict(kill) for kill in done],
        "runs": runs,
        "seconds": time.monotonic() - begun,
        "seconds_uninterrupted": cold,
    }


def _finish(process: subprocess.Popen[bytes], workdir: pathlib.Path) -> None:
    code = process.wait()
    if code == command_line.BAD_INPUT:
        raise checks.InputError((workdir / "output.log").read_text().splitlines()[-1].removeprefix("error: "))
    if code != 0:
        raise RuntimeError(f"training ended with exit code {code}; see {workdir / 'output.log'}")


def table(result: dict[str, Any]) -> str:
    """The kills by moment and signal, and how their processes ended."""
    counts = collections.Counter((kill["moment"], kill["signal"], kill["exit_code"]) for kill in result["kills"])
    lines = ["| moment | signal | exit code | kills |", "|---|---|---|---|"]
    lines += [f"| {moment} | {name} | {code} | {count} |" for (moment, name, code), count in sorted(counts.items())]
    identical = sum(not differences for differences in result["runs"])
    lines.append(
        f"\n{len(result['kills'])} kills in {len(result['runs'])} runs; {identical} ended bit-identical to the "
        f"uninterrupted one; {result['seconds'] / 60:.1f} min"
    )
    return "\n".join(lines)


def main(_: list[str]) -> int:
    """Returns the exit code."""
    file = _JSON()
    if _ROUTER.value == "help":  # training would end well at once, without a checkpoint
        print(presets.describe_routers())
        return 0
    config = _ROOT / "configs" / "digits.py"
    if not config.is_file():
        raise FileNotFoundError(f"drill: expected the repository, with {config}; received a package without it")
    argument = f"variant=Ti/16,experts=4,router={_ROUTER.value}"
    with tempfile.TemporaryDirectory() as temporary:
        workdir = pathlib.Path(_WORKDIR.value or temporary).absolute()
        if workdir.is_dir() and any(workdir.iterdir()):
            raise checks.error("--workdir", "a new or empty folder", str(workdir))
        storage.check_writable(workdir, "--workdir")
        training = Training([f"--config={config}:{argument}", *_SMALL], workdir / "compiled")
        result = drill(training, workdir, kills=_KILLS.value, seed=_SEED.value, every_steps=_EVALUATION_STEPS)
    print(table(result))
    if file is not None:
        file.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if any(result["runs"]) else 0


if __name__ == "__main__":
    command_line.run(main)
