"""The drill: training that is killed until there were enough kills, and compared with training that was not."""

import collections
import dataclasses
import pathlib
import random
import signal
import subprocess
import time
from collections.abc import Callable

from vmoe_inform import checks, storage
from vmoe_inform.drill.compare import differing
from vmoe_inform.drill.kills import MOMENTS, Kill, checkpoint_steps, kill_one
from vmoe_inform.drill.training import Training
from vmoe_inform.exit_codes import BAD_INPUT, STOPPED


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a drill.

    Attributes:
      kills: in order.
      runs: of each killed run, the arrays and files that differ from the uninterrupted run's.
      seconds: of the whole drill.
      seconds_uninterrupted: of the run that was not killed, compilation included.
    """

    kills: list[Kill]
    runs: list[list[str]]
    seconds: float
    seconds_uninterrupted: float


def drill(
    training: Training,
    workdir: storage.Path,
    *,
    kills: int,
    seed: int,
    every_steps: int,
    tell: Callable[[str], None] = print,
) -> Result:
    """Trains, kills, and compares.

    Args:
      training: what is killed.
      workdir: holds ``uninterrupted`` and one folder for every other run.
      kills: how many.
      seed: of the moments.
      every_steps: between evaluations.
      tell: gets a line for everything that happens.

    Raises:
      ValueError: training refuses its arguments.
      RuntimeError: a process ended in another way than the signal, or what it stands for, can make it end.
    """
    chance = random.Random(seed)
    begun = time.monotonic()
    whole = workdir / "uninterrupted"
    _finish(training.start(whole), training.log_of(whole))  # which compiles
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
                _finish(process, training.log_of(folder))
                break
            moment = chance.choice(MOMENTS)
            number = chance.choice((signal.SIGKILL, signal.SIGTERM))
            seconds = chance.uniform(0, life) if moment == "any" else chance.uniform(0, 0.1)
            killed = kill_one(process, folder, moment=moment, number=number, seconds=seconds, every_steps=every_steps)
            if killed is None:
                _finish(process, training.log_of(folder))
                life = min(life, time.monotonic() - started)
                break
            after, code = killed
            newest = (checkpoint_steps(folder) or [0])[-1]
            done.append(Kill(len(runs) + 1, moment, number.name, round(after, 3), newest, code))
            tell(f"kill {len(done)}: {number.name} ({moment}) after {after:.1f} s, at step {newest}: exit code {code}")
            if code not in (0, -number, STOPPED) or (number == signal.SIGKILL and code != -number):
                raise RuntimeError(f"{number.name}: exit code {code}; see {training.log_of(folder)}")
        runs.append(differing(folder, whole))
        tell(f"run {len(runs)}: {'DIFFERS in ' + ', '.join(runs[-1]) if runs[-1] else 'identical'}")
    return Result(done, runs, time.monotonic() - begun, cold)


def _finish(process: subprocess.Popen[bytes], log: pathlib.Path) -> None:
    code = process.wait()
    if code == BAD_INPUT:
        raise checks.InputError(log.read_text().splitlines()[-1].removeprefix("error: "))
    if code != 0:
        raise RuntimeError(f"training ended with exit code {code}; see {log}")


def table(result: Result) -> str:
    """The kills by moment and signal, and how their processes ended."""
    counts = collections.Counter((kill.moment, kill.signal, kill.exit_code) for kill in result.kills)
    lines = ["| moment | signal | exit code | kills |", "|---|---|---|---|"]
    lines += [f"| {moment} | {name} | {code} | {count} |" for (moment, name, code), count in sorted(counts.items())]
    identical = sum(not differences for differences in result.runs)
    lines.append(
        f"\n{len(result.kills)} kills in {len(result.runs)} runs; {identical} ended bit-identical to the "
        f"uninterrupted one; {result.seconds / 60:.1f} min"
    )
    return "\n".join(lines)
