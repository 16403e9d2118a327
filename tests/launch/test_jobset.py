"""launch/gke_jobset.yaml against the fields of JobSet v1alpha2, batch/v1 and core/v1 that it uses."""

import copy
import pathlib
import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from configs.imagenet import get_config
from vmoe_inform import config as config_lib
from vmoe_inform import exit_codes
from vmoe_inform.data import batches, workers

ROOT = pathlib.Path(__file__).parents[2]
PATH = ROOT / "launch" / "gke_jobset.yaml"
INSTALL = re.compile("RUN .*launch/install.sh")
CODE = "COPY --chown=vmoe . ."
# Name of a field -> its type, a function that checks it, a schema, [schema of an item], or (alternatives).
Schema = dict[str, Any]


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
    "hostNetwork": lambda value: value is True,
    "dnsPolicy": one_of("ClusterFirstWithHostNet"),  # what a pod with hostNetwork needs to find the others by name
    "terminationGracePeriodSeconds": whole(1),
    "securityContext": {"runAsUser": whole(1), "fsGroup": whole(1), "fsGroupChangePolicy": one_of("OnRootMismatch")},
    "nodeSelector": TEXTS,
    "tolerations": [{"key": one_of("google.com/tpu"), "operator": one_of("Exists")}],
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
    "volumes": [
        (
            {"name": NAME, "persistentVolumeClaim": {"claimName": NAME}},
            {"name": NAME, "emptyDir": {"medium": one_of("Memory"), "sizeLimit": matches("[1-9][0-9]*[MG]i")}},
        )
    ],
}
CONDITIONS = [{"type": one_of("DisruptionTarget"), "status": one_of("True", "False")}]
EXIT_CODES = {"containerName": NAME, "operator": one_of("In", "NotIn"), "values": [whole(1)]}
JOB: Schema = {
    "parallelism": whole(1),
    "completions": whole(1),
    "completionMode": one_of("Indexed", "NonIndexed"),
    "backoffLimit": whole(0),
    "podFailurePolicy": {
        "rules": [
            (
                {"action": one_of("FailJob", "Ignore", "Count", "FailIndex"), "onExitCodes": EXIT_CODES},
                {"action": one_of("FailJob", "Ignore", "Count", "FailIndex"), "onPodConditions": CONDITIONS},
            )
        ]
    },
    "template": {"spec": POD},
}
RULE = {
    "name": matches("[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?"),  # the controller's, which refuses others
    "action": one_of("FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"),
    "onJobFailureReasons": [one_of("BackoffLimitExceeded", "DeadlineExceeded", "PodFailurePolicy")],
}
RULES = [(RULE, RULE | {"onJobFailureMessagePatterns": [str]})]
JOBSET: Schema = {
    "apiVersion": one_of("jobset.x-k8s.io/v1alpha2"),
    "kind": one_of("JobSet"),
    "metadata": {"name": NAME, "labels": {"kueue.x-k8s.io/queue-name": NAME}, "annotations": TEXTS},
    "spec": {
        "failurePolicy": {"maxRestarts": whole(1), "rules": RULES},
        "replicatedJobs": [{"name": NAME, "replicas": whole(1), "template": {"spec": JOB}}],
    },
}


def problems(value: Any, schema: Any, path: str = "") -> list[str]:
    if isinstance(schema, tuple):
        return min((problems(value, alternative, path) for alternative in schema), key=len)
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


def test_a_slice_is_a_node_pool_and_several_are_replicas_of_one_job(jobset):
    """JobSet and GKE then tell each pod its slice (MEGASCALE_*), and a lost host starts all slices again."""
    (replicated,) = jobset["spec"]["replicatedJobs"]
    assert replicated["replicas"] == 1
    topology = jobset["metadata"]["annotations"]["alpha.jobset.sigs.k8s.io/exclusive-topology"]
    assert topology == "cloud.google.com/gke-nodepool"
    assert all(rule["action"] != "RestartJob" for rule in jobset["spec"]["failurePolicy"]["rules"])


def test_names_refer_to_what_is_there(jobset):
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    codes = [rule["onExitCodes"] for rule in job["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert [each["containerName"] for each in codes] == [container["name"]] * 2
    assert [mount["name"] for mount in container["volumeMounts"]] == [volume["name"] for volume in pod["volumes"]]
    (mounted,) = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "share"]
    assert all(
        mounted in argument for argument in container["args"] if "workdir" in argument or "directory" in argument
    )
    assert container["command"][-2:] == ["-m", "vmoe_inform.train"]
    env = {variable["name"]: variable["value"] for variable in container["env"]}
    assert env["JAX_PLATFORMS"].split(",")[0] == "tpu"
    # Workers' names and numbers come from GKE itself: an own value would hide them from JAX.
    assert not any(name.startswith(("TPU_", "MEGASCALE_")) for name in env)


def what_follows(jobset: dict[str, Any], exit_code: int, disrupted: bool = False) -> str:
    """The JobSet's action when a pod ends, as Kubernetes (pod failure policy of batch/v1) and JobSet document it."""
    failure = jobset["spec"]["failurePolicy"]
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    reason, message = "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    for index, rule in enumerate(job["podFailurePolicy"]["rules"]):
        if "onPodConditions" in rule:
            fits, what = disrupted, "Pod default/pod has condition DisruptionTarget"
        else:
            listed = exit_code in rule["onExitCodes"]["values"]
            fits = listed == (rule["onExitCodes"]["operator"] == "In")
            what = f"Container train for pod default/pod failed with exit code {exit_code}"
        if fits:
            reason, message = "PodFailurePolicy", f"{what} matching FailJob rule at index {index}"
            break
    for rule in failure["rules"]:
        patterns = rule.get("onJobFailureMessagePatterns", [""])
        if reason in rule["onJobFailureReasons"] and any(re.search(pattern, message) for pattern in patterns):
            return rule["action"]
    return "RestartJobSet"


def test_preemptions_do_not_count_and_lasting_faults_end_the_run(jobset):
    for code in (exit_codes.STOPPED, 143):
        assert what_follows(jobset, code) == "RestartJobSetAndIgnoreMaxRestarts"
    for code in (1, 75, 137, 143):
        assert what_follows(jobset, code, disrupted=True) == "RestartJobSetAndIgnoreMaxRestarts"
    for code in (exit_codes.MISSING_PROCESS, exit_codes.STUCK, 134, 137):
        assert what_follows(jobset, code) == "RestartJobSet"
    for code in (1, exit_codes.BAD_INPUT, exit_codes.DIVERGED, exit_codes.STORAGE, 7, 175):
        assert what_follows(jobset, code) == "FailJobSet"


def test_data_workers_have_room_for_their_images(jobset):
    """Those of the recipe with the largest images, with half as much again."""
    pod = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    (mount,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["mountPath"] == "/dev/shm"]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == mount["name"]]
    assert volume["emptyDir"]["medium"] == "Memory"
    size = int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi")) * 2**30
    config = config_lib.parse(get_config("recipe=finetune384"))
    assert config.data.num_workers == 32
    chunk_bytes = batches.CHUNK_EXAMPLES * config.model.image_size_px**2 * 3
    assert size >= 1.5 * config.data.num_workers * workers.CHUNKS_OF_A_WORKER * chunk_bytes


def test_the_image_holds_the_code_and_runs_as_the_pods_user(jobset):
    docker = (ROOT / "launch/Dockerfile").read_text()
    pod = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert f"--uid {pod['securityContext']['runAsUser']} " in docker
    lines = docker.splitlines()
    user, install, code = (lines.index(line) for line in ("USER vmoe", next(filter(INSTALL.match, lines)), CODE))
    assert user < install < code  # a change of the code does not install the dependencies again
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    sent = {line[1:] for line in ignored if line.startswith("!")}
    assert all((ROOT / name).exists() for name in sent)
    copied = {name for line in lines[:install] if line.startswith("COPY") for name in line.split()[2:-1]}
    assert all((ROOT / name).exists() and name.partition("/")[0] in sent for name in copied)


def test_the_check_finds_what_is_wrong(jobset):
    broken = copy.deepcopy(jobset)
    broken["apiVersion"] = "jobset.x-k8s.io/v1alpha1"
    broken["spec"]["replicatedJobs"][0]["template"]["spec"]["paralelism"] = 4
    broken["metadata"]["name"] = "Pod_1"
    assert len(problems(broken, JOBSET)) == 3
