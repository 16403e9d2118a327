"""Kubernetes: an indexed Job, a pod for each run; Kubernetes makes another pod for one that was preempted."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import yaml

from vmoe_inform import checks
from vmoe_inform.studies.schedulers.scheduler import Request, at, call, positions

_STUDY = "vmoe-inform/study"  # label
_RUNS = "vmoe-inform/runs"  # annotation


class Kubernetes:
    """``kubectl``. The manifest states image, volumes, resources, and which exit codes start a run again.

    The Job's annotation lists the runs, so that the cluster itself says which of them it has.
    """

    job = "launch/study_job.yaml"
    position = "JOB_COMPLETION_INDEX"

    def queued(self, study: str, runs: Sequence[str], job: pathlib.Path) -> set[str]:
        """See :class:`Scheduler`."""
        namespace = _read(job).get("metadata", {}).get("namespace")  # else that of kubectl's context
        where = [] if namespace is None else [f"--namespace={namespace}"]
        answer = call("kubectl", "get", "jobs", *where, f"--selector={_STUDY}={study}", "--output=json")
        return set().union(*map(_left, json.loads(answer)["items"])).intersection(runs)

    def submit(self, request: Request) -> str:
        """See :class:`Scheduler`."""
        job = _fill(_read(request.job), request)
        return call("kubectl", "create", "--filename=-", "--output=name", given=json.dumps(job)).strip()


def _left(job: dict[str, Any]) -> set[str]:
    """Runs of a Job that have not ended there."""
    status = job.get("status", {})
    if any(
        each["type"] in ("Complete", "Failed") and each["status"] == "True" for each in status.get("conditions", ())
    ):
        return set()
    runs = job["metadata"].get("annotations", {}).get(_RUNS, "").split(",")
    ended = positions(status.get("completedIndexes", "")) | positions(status.get("failedIndexes", ""))
    return at(runs, set(range(len(runs))) - ended)


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        manifests = list(yaml.safe_load_all(path.read_text()))
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise checks.error("--job", f"a manifest ({' '.join(str(problem).split())})", str(path)) from None
    job: Any = manifests[0] if len(manifests) == 1 else None
    try:
        containers = job["spec"]["template"]["spec"]["containers"]
        fits = job["kind"] == "Job" and job["spec"]["completionMode"] == "Indexed" and "args" not in containers[0]
        fits = fits and isinstance(job.get("metadata", {}), dict)
    except (TypeError, KeyError, IndexError):
        fits = False
    if not fits:
        raise checks.error("--job", "one Job of completionMode Indexed, whose first container has no args", str(path))
    return job


def _fill(job: dict[str, Any], request: Request) -> dict[str, Any]:
    """The manifest with what a study decides; its name becomes the beginning of the Job's.

    Kubernetes puts variables into arguments, as for ``$(NAME)``, and makes ``$`` of ``$$``.
    """
    metadata, spec = dict(job.get("metadata", {})), dict(job["spec"])
    metadata["generateName"] = f"{metadata.pop('name', request.study)}-"
    metadata["labels"] = {**metadata.get("labels", {}), _STUDY: request.study}
    metadata["annotations"] = {**metadata.get("annotations", {}), _RUNS: ",".join(request.runs)}
    spec["completions"] = len(request.runs)
    spec["parallelism"] = min(request.at_a_time or len(request.runs), len(request.runs))
    pod = spec["template"]["spec"]
    first, *others = pod["containers"]
    containers = [{**first, "args": [word.replace("$", "$$") for word in request.arguments]}, *others]
    spec["template"] = {**spec["template"], "spec": {**pod, "containers": containers}}
    return {**job, "metadata": metadata, "spec": spec}
