"""SLURM: a job array, whose tasks SLURM starts, preempts and requeues by itself."""

import base64
import hashlib
import pathlib
from collections.abc import Sequence

from vmoe_inform import checks
from vmoe_inform.studies.schedulers.scheduler import Request, call

_SEPARATOR = "|"
_CODE_BYTES, _CODE_CHARACTERS = 3, 4
_MOST_RUNS = 1024 // _CODE_CHARACTERS  # slurmctld refuses longer comments


class Slurm:
    """``sbatch``, and ``squeue`` for what is there already.

    The job's comment has a short code for each run, so that the queue itself says which of them it has.
    """

    job = "launch/study.sbatch"
    position = "SLURM_ARRAY_TASK_ID"

    def queued(self, study: str, runs: Sequence[str], job: pathlib.Path) -> set[str]:
        """See :class:`Scheduler`."""
        fields = f"--format=%K{_SEPARATOR}%k"  # position, comment
        codes: set[str] = set()
        for line in call("squeue", "--noheader", "--me", "--array", f"--name={study}", fields).splitlines():
            position, _, comment = line.strip().partition(_SEPARATOR)
            if position.isdecimal():
                codes.add(comment[_CODE_CHARACTERS * int(position) :][:_CODE_CHARACTERS])
        return {run for run in runs if code(run) in codes}

    def submit(self, request: Request) -> str:
        """See :class:`Scheduler`."""
        if len(request.runs) > _MOST_RUNS:
            raise checks.error("--submit", f"at most {_MOST_RUNS} runs that are left, for SLURM", len(request.runs))
        limit = "" if request.at_a_time is None else f"%{request.at_a_time}"
        options = (
            "--parsable",
            f"--array=0-{len(request.runs) - 1}{limit}",
            f"--job-name={request.study}",
            f"--comment={''.join(map(code, request.runs))}",
        )
        return call("sbatch", *options, str(request.job), *request.arguments).strip().partition(";")[0]


def code(run: str) -> str:
    """What stands for a run's name in the comment of a job: four characters of its hash."""
    return base64.urlsafe_b64encode(hashlib.sha256(run.encode()).digest()[:_CODE_BYTES]).decode()
