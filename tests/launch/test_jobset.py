"""launch/gke_jobset.yaml against the fields of JobSet v1alpha2, batch/v1 and core/v1 that it uses."""

import copy
import pathlib
import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml

PATH = pathlib.Path(__file__).parents[2] / "launch" / "gke_jobset.yaml"
Schema = dict[str, Any]  # name of a field -> its type, a function that checks it, a schema, or [schema of an item]


def matches(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def one_of(*values: str) -> Callable[[Any], bool]:
    return lambda value: value in values


def whole(at_least: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and value >= at_least


NAME = matches(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123
TEXTS = lambda value: isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
# Every field is required: the schema is that of this file, so that none is lost or added without a look.
POD: Schema = {
    "restartPolicy": one_of("Never"),  # a podFailurePolicy needs it
    "terminationGracePeriodSeconds": whole(1),
    "nodeSelector": TEXTS,
    "containers": [
        {
            "name": NAME,
            "image": str,
            "command": [str],
            "args": [str],
            "env": [{"name": matches("[A-Z_]+"), "value": str}],
            "ports": [{"containerPort": lambda port: whole(1)(port) and port < 2**16}],
            "resources": {"requests": {"google.com/tpu": whole(1)}, "limits": {"google.com/tpu": whole(1)}},
            "volumeMounts": [{"name": NAME, "mountPath": matches("/.+")}],
        }
    ],
    "volumes": [{"name": NAME, "persistentVolumeClaim": {"claimName": NAME}}],
}
EXIT_CODES = {"containerName": NAME, "operator": one_of("In", "NotIn"), "values": [whole(1)]}
JOB: Schema = {
    "parallelism": whole(1),
    "completions": whole(1),
    "completionMode": one_of("Indexed", "NonIndexed"),
    "backoffLimit": whole(0),
    "podFailurePolicy": {
        "rules": [{"action": one_of("FailJob", "Ignore", "Count", "FailIndex"), "onExitCodes": EXIT_CODES}]
    },
    "template": {"spec": POD},
}
RULE = {
    "name": matches("[A-Za-z]([A-Za-z0-9_,:-]*[A-Za-z0-9_])?"),
    "action": one_of("FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"),
    "onJobFailureReasons": [one_of("BackoffLimitExceeded", "DeadlineExceeded", "PodFailurePolicy")],
}
JOBSET: Schema = {
    "apiVersion": one_of("jobset.x-k8s.io/v1alpha2"),
    "kind": one_of("JobSet"),
    "metadata": {"name": NAME, "annotations": TEXTS},
    "spec": {
        "failurePolicy": {"maxRestarts": whole(1), "rules": [RULE]},
        "replicatedJobs": [{"name": NAME, "replicas": whole(1), "template": {"spec": JOB}}],
    },
}


def problems(value: Any, schema: Any, path: str = "") -> list[str]:
    if isinstance(schema, dict):
        if not isinstance(value, dict) or value.keys() != schema.keys():
            return [f"{path}: expected the fields {sorted(schema)}"]
        return [found for name in schema for found in problems(value[name], schema[name], f"{path}.{name}")]
    if isinstance(schema, list):
        if not isinstance(value, list) or not value:
            return [f"{path}: expected a list"]
        return [found for number, item in enumerate(value) for found in problems(item, schema[0], f"{path}[{number}]")]
    fits = isinstance(value, schema) if isinstance(schema, type) else schema(value)
    return [] if fits else [f"{path}: {value!r}"]


@pytest.fixture(scope="module")
def jobset() -> dict[str, Any]:
    return yaml.safe_load(PATH.read_text())


def test_every_field_is_one_of_the_interface(jobset):
    assert problems(jobset, JOBSET) == []


def test_the_pods_of_a_slice_are_all_of_its_hosts(jobset):
    (replicated,) = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert job["completions"] == job["parallelism"]
    assert job["completionMode"] == "Indexed"
    assert job["backoffLimit"] == 0
    rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert rows * columns == chips * job["parallelism"]
    assert container["resources"]["requests"] == container["resources"]["limits"]


def test_names_refer_to_what_is_there(jobset):
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["containerName"] == container["name"]
    assert [mount["name"] for mount in container["volumeMounts"]] == [volume["name"] for volume in pod["volumes"]]
    mounted = container["volumeMounts"][0]["mountPath"]
    assert all(
        mounted in argument for argument in container["args"] if "workdir" in argument or "directory" in argument
    )
    assert container["command"][-2:] == ["-m", "vmoe_inform.train"]
    env = {variable["name"]: variable["value"] for variable in container["env"]}
    assert env["JAX_PLATFORMS"].split(",")[0] == "tpu"
    # Workers' names and numbers come from GKE itself: an own value would hide them from JAX.
    assert not any(name.startswith("TPU_") for name in env)


def test_the_check_finds_what_is_wrong(jobset):
    broken = copy.deepcopy(jobset)
    broken["apiVersion"] = "jobset.x-k8s.io/v1alpha1"
    broken["spec"]["replicatedJobs"][0]["template"]["spec"]["paralelism"] = 4
    broken["metadata"]["name"] = "Pod_1"
    assert len(problems(broken, JOBSET)) == 3
