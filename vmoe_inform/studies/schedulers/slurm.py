"""SLURM: a job array, whose tasks SLURM starts, preempts and requeues by itself."""

from vmoe_inform.studies.schedulers.scheduler import Request, at, call

_SEPARATOR = "|"


class Slurm:
    """``sbatch``, and ``squeue`` for what is there already.

    The job's comment lists the runs, so that the queue itself says which of them it has.
    """

    job = "launch/study.sbatch"
    position = "SLURM_ARRAY_TASK_ID"

    def queued(self, study: str) -> set[str]:
        """See :class:`Scheduler`."""
        fields = f"--format=%K{_SEPARATOR}%k"  # position, comment
        found: set[str] = set()
        for line in call("squeue", "--noheader", "--me", "--array", f"--name={study}", fields).splitlines():
            position, _, runs = line.strip().partition(_SEPARATOR)
            if position.isdecimal():
                found |= at(runs.split(","), {int(position)})
        return found

    def submit(self, request: Request) -> str:
        """See :class:`Scheduler`."""
        limit = "" if request.at_a_time is None else f"%{request.at_a_time}"
        options = (
            "--parsable",
            f"--array=0-{len(request.runs) - 1}{limit}",
            f"--job-name={request.study}",
            f"--comment={','.join(request.runs)}",
        )
        return call("sbatch", *options, str(request.job), *request.arguments).strip().partition(";")[0]
