"""Runs handed to a cluster: what is left, what the cluster is asked, and which run a task does."""

import dataclasses
import functools
import json
import os
import pathlib
import re

import pytest
import yaml

from tests.launch.stand_ins import stand_in
from tests.studies import sample
from tests.studies.test_plan import make
from vmoe_inform import command_line
from vmoe_inform.studies import plan, results, submit
from vmoe_inform.studies.schedulers import SCHEDULERS, kubernetes, scheduler, slurm

ROOT = pathlib.Path(__file__).parents[2]
PLACES = ("vmoe/seed_0", "attention_vmoe/seed_0", "vmoe/seed_1", "attention_vmoe/seed_1")
FLAGS = ("--workdir=/s", "--routers=vmoe,attention_vmoe")


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The runs of a study of which the first is finished, and a path on which stand-ins come first."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    runs = plan.every(make(tmp_path / "study", "vmoe", "attention_vmoe"))
    assert tuple(run.place for run in runs) == PLACES
    results.write(runs[0].folder / plan.RESULT_FILE, sample.result("vmoe", 0), within=runs[0].folder)
    return runs


def hand_over(tmp_path, runs, name: str, at_a_time: int | None = None) -> submit.Submitted:
    return submit.submit(
        runs,
        SCHEDULERS[name],
        workdir=tmp_path / "study",
        arguments=FLAGS,
        job=str(ROOT / SCHEDULERS[name].job),
        at_a_time=at_a_time,
    )


def test_slurm_gets_an_array_of_what_is_neither_finished_nor_queued(study, tmp_path):
    name = submit.study_name(tmp_path / "study")
    earlier = "".join(map(slurm.code, ("vmoe/seed_0", "attention_vmoe/seed_1")))
    queue = f"1|{earlier}\n 7|{earlier}\nN/A|other\n"  # run in an earlier array, and strangers
    stand_in(tmp_path / "bin", "squeue", f"printf '{queue}'")
    stand_in(tmp_path / "bin", "sbatch", "echo '12;cluster'")
    made = hand_over(tmp_path, study, "slurm", at_a_time=3)
    assert made == submit.Submitted("12", runs=2, queued=1, finished=1)
    assert str(made) == "12: submitted 2 runs; 1 are in the cluster already, 1 finished"
    asked, submitted = (tmp_path / "log").read_text().splitlines()
    assert asked == f"squeue --noheader --me --array --name={name} --format=%K|%k"
    left = "attention_vmoe/seed_0,vmoe/seed_1"
    codes = "".join(map(slurm.code, left.split(",")))
    assert submitted == (
        f"sbatch --parsable --array=0-1%3 --job-name={name} --comment={codes} {ROOT}/launch/study.sbatch "
        f"{' '.join(FLAGS)} --array={left}"
    )


def test_all_runs_of_a_large_study_fit_into_a_comment(study, tmp_path):
    """SLURM refuses one of more than 1,024 characters."""
    runs = tuple(f"attention_vmoe-and_a_long_argument/seed_{seed}" for seed in range(256))
    stand_in(tmp_path / "bin", "sbatch", "echo 12")
    request = scheduler.Request("s", tmp_path, FLAGS, runs, None)
    assert SCHEDULERS["slurm"].submit(request) == "12"
    (comment,) = re.findall("--comment=([^ ]*)", (tmp_path / "log").read_text())
    assert len(comment) == 1024
    with pytest.raises(
        ValueError, match=r"^--submit: expected at most 256 runs that are left, for SLURM; received 257$"
    ):
        SCHEDULERS["slurm"].submit(dataclasses.replace(request, runs=(*runs, "another")))


def test_a_finished_study_asks_no_cluster(study, tmp_path):
    made = hand_over(tmp_path, study[:1], "slurm")
    assert made.nothing_left
    assert not (tmp_path / "log").exists()


def test_what_is_all_queued_is_not_submitted_again(study, tmp_path):
    stand_in(tmp_path / "bin", "squeue", f'for i in 0 1 2; do echo "$i|{"".join(map(slurm.code, PLACES[1:]))}"; done')
    made = hand_over(tmp_path, study, "slurm")
    assert str(made) == "nothing submitted; 3 are in the cluster already, 1 finished"
    assert not made.nothing_left


def test_a_cluster_that_refuses_is_one_line(study, tmp_path):
    stand_in(tmp_path / "bin", "squeue", "echo 'trying\nUnable to contact\n' >&2; exit 1")
    with pytest.raises(ValueError, match=r"^squeue: expected a cluster .*; received 'Unable to contact'$"):
        hand_over(tmp_path, study, "slurm")
    with pytest.raises(ValueError, match=r"^--submit: expected a machine with the command no_such_program; received"):
        scheduler.call("no_such_program")
    with pytest.raises(ValueError, match=r"^--job: expected a file .*; received '/no/file'$"):
        submit.submit(study, SCHEDULERS["k8s"], workdir=tmp_path, arguments=(), job="/no/file", at_a_time=None)


def job_of(study: str, runs: str, **status) -> dict:
    return {"metadata": {"labels": {"vmoe-inform/study": study}, "annotations": {"vmoe-inform/runs": runs}}} | status


def test_kubernetes_gets_an_indexed_job(study, tmp_path):
    ended = {"conditions": [{"type": "Failed", "status": "True"}]}
    going = {
        "conditions": [{"type": "Suspended", "status": "False"}],
        "completedIndexes": "0,2-3",
        "failedIndexes": "4",
    }
    jobs = [
        job_of("s", "vmoe/seed_1", status=ended),
        job_of("s", "a,attention_vmoe/seed_0,b,c,vmoe/seed_1", status=going),
        job_of("s", "attention_vmoe/seed_0"),
    ]
    (tmp_path / "jobs.json").write_text(json.dumps({"items": jobs}))
    acts = f'case $1 in get) cat {tmp_path}/jobs.json ;; create) cat >"{tmp_path}/job.json"; echo job.batch/x ;; esac'
    stand_in(tmp_path / "bin", "kubectl", acts)
    made = hand_over(tmp_path, study, "k8s")
    assert made == submit.Submitted("job.batch/x", runs=2, queued=1, finished=1)
    name = submit.study_name(tmp_path / "study")
    assert (tmp_path / "log").read_text().splitlines() == [
        f"kubectl get jobs --selector=vmoe-inform/study={name} --output=json",
        "kubectl create --filename=- --output=name",
    ]
    job, template = (
        json.loads((tmp_path / "job.json").read_text()),
        yaml.safe_load((ROOT / "launch/study_job.yaml").read_text()),
    )
    left = "vmoe/seed_1,attention_vmoe/seed_1"
    assert job.pop("metadata") == {
        "generateName": "vmoe-study-",
        "labels": {"vmoe-inform/study": name},
        "annotations": {"vmoe-inform/runs": left},
    }
    assert (job["spec"].pop("completions"), job["spec"].pop("parallelism")) == (2, 2)
    assert job["spec"]["template"]["spec"]["containers"][0].pop("args") == [*FLAGS, f"--array={left}"]
    del template["metadata"]
    assert job == template  # the rest is the user's


def test_kubernetes_looks_for_runs_where_the_manifest_has_them(study, tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(
        (ROOT / "launch/study_job.yaml").read_text().replace("metadata:\n", "metadata:\n  namespace: team\n", 1)
    )
    (tmp_path / "jobs.json").write_text(json.dumps({"items": [job_of("s", "vmoe/seed_1")]}))
    stand_in(tmp_path / "bin", "kubectl", f"cat {tmp_path}/jobs.json")
    assert SCHEDULERS["k8s"].queued("s", PLACES, path) == {"vmoe/seed_1"}
    asked = (tmp_path / "log").read_text().strip()
    assert asked == "kubectl get jobs --namespace=team --selector=vmoe-inform/study=s --output=json"


def test_kubernetes_puts_no_variables_into_arguments(tmp_path):
    request = scheduler.Request("s", tmp_path, ("--a=$(HOME)", "--b=$HOME$$"), ("r/seed_0",), None)
    (container,) = kubernetes._fill(template(), request)["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["--a=$$(HOME)", "--b=$$HOME$$$$"]  # $$ becomes $ there


@pytest.mark.parametrize(
    "text", ["", "a: [", "kind: Pod", "kind: Job\nspec: {completionMode: NonIndexed}", "kind: Job\n---\nkind: Job"]
)
def test_another_manifest_is_refused(tmp_path, text):
    path = tmp_path / "job.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"^--job: expected (one Job of completionMode Indexed|a manifest)"):
        kubernetes._read(path)


@functools.cache
def template() -> dict:
    return yaml.safe_load((ROOT / "launch/study_job.yaml").read_text())


def what_follows(exit_code: int, disrupted: bool = False) -> str:
    """What Kubernetes does with a run whose pod has ended, by the pod failure policy of batch/v1: the first rule that
    fits, else a retry that counts."""
    job = template()
    (container,) = job["spec"]["template"]["spec"]["containers"]
    for rule in job["spec"]["podFailurePolicy"]["rules"]:
        if "onPodConditions" in rule:
            assert rule["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
            fits = disrupted
        else:
            codes = rule["onExitCodes"]
            assert codes["containerName"] == container["name"]
            fits = (exit_code in codes["values"]) == (codes["operator"] == "In")
        if fits:
            return rule["action"]
    return "Count"


def test_a_preempted_run_starts_again_and_a_failed_one_stops_no_other():
    assert {what_follows(code) for code in (75, 143)} == {"Ignore"}
    assert {what_follows(code, disrupted=True) for code in (1, 75, 137)} == {"Ignore"}
    assert {what_follows(code) for code in (69, 124, 134, 137)} == {"Count"}
    assert {what_follows(code) for code in (1, 2, 3, 74)} == {"FailIndex"}


def test_a_task_does_the_run_at_its_position(study):
    for variable in ("SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX"):
        assert submit.chosen(study, PLACES[2:], {variable: "1"}) is study[3]


@pytest.mark.parametrize(
    ("environment", "array", "message"),
    [
        (
            {},
            PLACES,
            "--array: expected a position from 0 to 3 in JOB_COMPLETION_INDEX or SLURM_ARRAY_TASK_ID, .* nothing$",
        ),
        ({"SLURM_ARRAY_TASK_ID": "4"}, PLACES, "--array: expected a position from 0 to 3 .*; received '4'$"),
        ({"SLURM_ARRAY_TASK_ID": "0", "JOB_COMPLETION_INDEX": "0"}, PLACES, "--array: expected a position .* '0, 0'$"),
        (
            {"SLURM_ARRAY_TASK_ID": "0"},
            ("glam/seed_0",),
            "--array: expected runs of this study; received 'glam/seed_0'$",
        ),
        (
            {"JOB_COMPLETION_INDEX": "0", "TPU_WORKER_HOSTNAMES": "a,b"},
            PLACES,
            "--array: expected one process for each run of a study; received 2$",
        ),
    ],
)
def test_a_task_without_a_run_of_its_own_is_refused(study, environment, array, message):
    with pytest.raises(ValueError, match=re.compile(f"^{message}")):
        submit.chosen(study, array, environment)


def test_flags_that_exclude_each_other():
    with pytest.raises(ValueError, match=r"^--array: expected nothing with --submit"):
        submit.scheduler("slurm", job=None, array=("a",))
    with pytest.raises(ValueError, match=r"^--job: expected a study with --submit; received 'x'$"):
        submit.scheduler(None, job="x", array=None)
    with pytest.raises(ValueError, match=r"^scheduler: expected one of k8s, slurm; received 'pbs'$"):
        submit.scheduler("pbs", job=None, array=None)
    assert submit.scheduler(None, job=None, array=None) is None


def test_tasks_get_the_flags_of_the_study(monkeypatch):
    given = [
        "--config=d:a=1",
        "--submit",
        "slurm",
        "-jobs=3",
        "--config.seed",
        "3",
        "--workdir=x",
        "--job=f",
        "--seeds=2",
    ]
    monkeypatch.setattr("sys.argv", ["study", *given])
    assert command_line.arguments_without(*submit.FLAGS) == ["--config=d:a=1", "--config.seed", "3", "--seeds=2"]


def test_positions():
    assert scheduler.positions("0,2-4,7") == {0, 2, 3, 4, 7}
    assert scheduler.positions("") == set()
