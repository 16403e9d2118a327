"""Hands the runs of a study to a cluster's scheduler. Results are in the study's folder alone, as without a cluster.

Each run is a task of its own, started with the study's own flags and ``--array=RUN,RUN,...``. It does the run at its
position, and the task that finishes the study writes the comparison. Rerunning ``study --submit`` submits what is
neither finished nor in the cluster.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping, Sequence

from vmoe_inform import checks, storage
from vmoe_inform.sharding import launchers
from vmoe_inform.studies import measure
from vmoe_inform.studies.plan import PlannedRun
from vmoe_inform.studies.schedulers import SCHEDULERS, Request, Scheduler

FLAGS = ("submit", "job", "jobs", "workdir")  # of a study that its tasks do not get as they are


@dataclasses.dataclass(frozen=True)
class Submitted:
    """What was submitted.

    Attributes:
      job: its name in the cluster; None if there was nothing to submit.
      runs, queued, finished: runs in it, in the cluster since before, and finished.
    """

    job: str | None
    runs: int
    queued: int
    finished: int

    @property
    def nothing_left(self) -> bool:
        return not self.runs + self.queued

    def __str__(self) -> str:
        new = "nothing submitted" if self.job is None else f"{self.job}: submitted {self.runs} runs"
        return f"{new}; {self.queued} are in the cluster already, {self.finished} finished"


def scheduler(name: str | None, *, job: str | None, array: Sequence[str] | None) -> Scheduler | None:
    """The scheduler that ``--submit`` names; None without.

    Raises:
      ValueError: an unknown name, or flags that exclude each other.
    """
    if name is not None and array is not None:
        raise checks.error("--array", "nothing with --submit, which sets it for its tasks", ",".join(array))
    if name is None and job is not None:
        raise checks.error("--job", "a study with --submit", job)
    return None if name is None else SCHEDULERS[name]


def submit(
    runs: Sequence[PlannedRun],
    to: Scheduler,
    *,
    workdir: storage.Path,
    arguments: Sequence[str],
    job: str | None,
    at_a_time: int | None,
) -> Submitted:
    """Submits every run that is neither finished nor in the cluster.

    Args:
      runs: all of the study.
      to: the scheduler.
      workdir: of the study, at the same path on every machine of the cluster.
      arguments: the study's own, without those of submitting.
      job: file that states what a task needs; None for the scheduler's default.
      at_a_time: most runs at a time; None for no limit.

    Raises:
      ValueError: no such file, a cluster that refuses, or finished runs of other records than the config names.
    """
    file = pathlib.Path(to.job if job is None else job)
    if not file.is_file():
        raise checks.error("--job", "a file that states what a run needs, such as launch/study.sbatch", str(file))
    for run in runs:
        measure.put_damaged_aside(run)
    measure.check_data(runs)
    name = study_name(workdir)
    left = [run.place for run in runs if not run.is_finished]
    queued = to.queued(name, left, file) if left else set()
    new = tuple(place for place in left if place not in queued)
    identifier = None
    if new:
        every_task = (*arguments, f"--array={','.join(new)}")
        identifier = to.submit(Request(name, file, every_task, new, at_a_time))
    return Submitted(identifier, len(new), len(queued), len(runs) - len(left))


def study_name(workdir: storage.Path) -> str:
    """Name of a study in a cluster, the same for the same folder."""
    return f"vmoe-study-{hashlib.sha256(str(storage.resolved(workdir)).encode()).hexdigest()[:12]}"


def chosen(runs: Sequence[PlannedRun], array: Sequence[str], environment: Mapping[str, str]) -> PlannedRun:
    """The run that this process does.

    Args:
      runs: all of the study.
      array: names of the runs of the job.
      environment: in which the scheduler states the position.

    Raises:
      ValueError: no position, one without a run, or a task of several processes.
    """
    variables = [SCHEDULERS[name].position for name in SCHEDULERS]
    given = [environment[name] for name in variables if environment.get(name)]
    if len(given) != 1 or not given[0].isdecimal() or int(given[0]) >= len(array):
        expected = f"a position from 0 to {len(array) - 1} in {' or '.join(variables)}, as a scheduler sets it"
        raise checks.error("--array", expected, ", ".join(given) or checks.NOTHING)
    processes = launchers.count_processes(environment)
    if processes > 1:
        raise checks.error("--array", "one process for each run of a study", processes)
    place = array[int(given[0])]
    found = [run for run in runs if run.place == place]
    if not found:
        raise checks.error("--array", "runs of this study", place)
    return found[0]
