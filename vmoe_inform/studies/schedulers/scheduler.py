"""What a study asks of a cluster's scheduler: which runs wait or are done there, and to take more."""

import dataclasses
import pathlib
import subprocess
from collections.abc import Sequence
from typing import Protocol

from vmoe_inform import checks


@dataclasses.dataclass(frozen=True)
class Request:
    """Runs for a scheduler, as one job with a task for each.

    Attributes:
      study: name of the study in the cluster, the same each time.
      job: file that states what a task needs.
      arguments: of ``vmoe_inform.study`` for every task; a task finds its run by the position in ``runs``.
      runs: names, see :attr:`vmoe_inform.studies.plan.PlannedRun.place`.
      at_a_time: most tasks that run at a time; None for no limit.
    """

    study: str
    job: pathlib.Path
    arguments: tuple[str, ...]
    runs: tuple[str, ...]
    at_a_time: int | None


class Scheduler(Protocol):
    """A kind of cluster, reached by its own command line.

    Attributes:
      job: default of :attr:`Request.job`, from the root of the repository.
      position: environment variable in which a task finds its position, from 0.
    """

    job: str
    position: str

    def queued(self, study: str, runs: Sequence[str], job: pathlib.Path) -> set[str]:
        """Those of the study's runs, by their names, that wait or are done in the cluster now; ``job`` as in Request.

        Raises:
          ValueError: the cluster refuses to say so, or the file is not as it should be.
        """

    def submit(self, request: Request) -> str:
        """Submits a job; returns its name in the cluster.

        Raises:
          ValueError: the cluster refuses it, or there are more runs than one job can have.
        """


def call(*words: str, given: str | None = None) -> str:
    """What a command of the cluster prints.

    Args:
      *words: of the command.
      given: its standard input.

    Raises:
      ValueError: it is not installed or fails.
    """
    try:
        done = subprocess.run(words, input=given, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise checks.error("--submit", f"a machine with the command {words[0]}", "none on the path") from None
    if done.returncode:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        received = said[-1] if said else f"exit code {done.returncode}"  # what comes before are its attempts
        raise checks.error(words[0], "a cluster that takes this command", received)
    return done.stdout


def positions(text: str) -> set[int]:
    """The numbers in a list of numbers and ranges such as ``0,3-5``."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def at(runs: Sequence[str], which: set[int]) -> set[str]:
    """Names at some positions; positions that are none are left out."""
    return {name for position, name in enumerate(runs) if position in which}
