"""launch/slurm.sbatch on a real SLURM (Debian: ``apt-get install slurm-wlm munge``), with four tasks and no GPU.

.venv/bin/python -m pytest -m slow -rs tests/launch/test_slurm.py
"""

import os
import pathlib
import re
import signal

import pytest

from tests.launch import slurm_cluster
from tests.launch.slurm_cluster import Cluster, Job
from tests.launch.test_lost_processes import FLAGS
from tests.processes import ROOT
from vmoe_inform import storage
from vmoe_inform.drill.kills import checkpoint_steps
from vmoe_inform.training.writers.jsonl import read_metrics

_MISSING = slurm_cluster.missing_programs()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(_MISSING), reason=f"NOT TESTED: launch/slurm.sbatch; not installed: {', '.join(_MISSING)}"),
]
CPUS = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with slurm_cluster.running(tmp_path_factory.mktemp("slurm")) as started:
        yield started


def train(cluster: Cluster, workdir: storage.Path, *options: str, flags: tuple[str, ...] = ()) -> Job:
    """Submits training of a model that is as small as possible, with a checkpoint now and then."""
    flags = (*FLAGS, "--config.checkpoint.every_steps=20", *flags, f"--workdir={workdir}")
    once = {flag.partition("=")[0]: flag for flag in flags}  # the last of each
    words = (*options, str(ROOT / "launch/slurm.sbatch"), *once.values())
    return cluster.submit(*words, directory=ROOT, **CPUS)


def wait_for_checkpoint_after(job: Job, workdir: storage.Path) -> int:
    """The newest step when there is a newer one than now."""
    before = max(checkpoint_steps(workdir), default=0)
    job.wait(lambda _: max(checkpoint_steps(workdir), default=0) > before)
    return checkpoint_steps(workdir)[-1]


def wait_for_restart(job: Job, number: int) -> None:
    job.wait(lambda job: job.fields()["Restarts"] == str(number))


def tasks_of(job: Job) -> dict[int, int]:
    """Process of each task by its number."""
    found = {}
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes().decode(errors="replace").split("\0")
            parent = int(re.search(r"PPid:\s*(\d+)", (process / "status").read_text())[1])
            is_task = b"slurmstepd" in (pathlib.Path("/proc") / str(parent) / "cmdline").read_bytes()
        except OSError:
            continue
        variables = dict(line.partition("=")[::2] for line in environment)
        if is_task and variables.get("SLURM_JOB_ID") == job.number and "SLURM_STEP_NODELIST" in variables:
            found[int(variables["SLURM_PROCID"])] = int(process.name)
    return found


def test_a_job_resumes_after_signals_killed_tasks_its_time_limit_and_preemptions(cluster, tmp_path):
    workdir = tmp_path / "run"
    job = train(cluster, workdir, "--signal=TERM@60")
    wait_for_checkpoint_after(job, workdir)

    cluster.command("scancel", "--signal=TERM", job.number)
    wait_for_restart(job, 1)
    (saved,) = set(re.findall(r"SIGTERM: saved step (\d+) of", job.log()))
    assert job.log().count("SIGTERM: saved step") == 4  # none was ended by the others
    assert int(saved) == checkpoint_steps(workdir)[-1]
    assert wait_for_checkpoint_after(job, workdir) > int(saved)

    for restarts, task in ((2, 3), (3, 0)):  # process 0 is the one that JAX ends the others for
        os.kill(tasks_of(job)[task], signal.SIGKILL)
        wait_for_restart(job, restarts)
        wait_for_checkpoint_after(job, workdir)

    hours, minutes, _ = map(int, job.fields()["RunTime"].split(":"))
    cluster.command("scontrol", "update", f"JobId={job.number}", f"TimeLimit={60 * hours + minutes + 2}")
    wait_for_restart(job, 4)
    assert job.log().count("SIGTERM: saved step") == 8
    cluster.command("scontrol", "update", f"JobId={job.number}", "TimeLimit=60")
    wait_for_checkpoint_after(job, workdir)

    urgent = cluster.submit("--partition=high", "--wrap=sleep 1", directory=tmp_path)
    wait_for_restart(job, 5)
    assert job.log().count("SIGTERM: saved step") == 12
    assert urgent.wait_for_end() == ("COMPLETED", "0:0", "0")
    wait_for_checkpoint_after(job, workdir)

    cluster.command("scancel", job.number)
    state, _, restarts = job.wait_for_end()
    assert (state, restarts) == ("CANCELLED", "5")


def test_a_finished_run_and_bad_input_are_not_requeued(cluster, tmp_path):
    done = train(cluster, tmp_path / "run", flags=("--config.train.steps=4",))
    assert done.wait_for_end() == ("COMPLETED", "0:0", "0")
    bad = train(cluster, tmp_path / "bad", flags=("--config.train.steps=-1",))
    assert bad.wait_for_end() == ("FAILED", "2:0", "0")
    assert "a task ended with 2: not requeued" in bad.log()


def test_a_job_resumes_in_a_bucket_that_fails_now_and_then(cluster, bucket_server, bucket_folder):
    bucket_server.flaky(0.02)
    job = train(cluster, bucket_folder, flags=("--config.train.steps=400",))
    wait_for_checkpoint_after(job, bucket_folder)
    cluster.command("scancel", "--signal=TERM", job.number)
    wait_for_restart(job, 1)
    assert job.wait_for_end() == ("COMPLETED", "0:0", "1"), job.log()
    bucket_server.flaky(0.0)
    assert bucket_server.failed.total() > 0
    assert job.log().count("SIGTERM: saved step") == 4
    assert checkpoint_steps(bucket_folder) == [360, 380, 400]
    steps = [entry["step"] for entry in read_metrics(bucket_folder / "metrics.jsonl") if "loss" in entry]
    assert steps == list(range(1, 401))  # each once


def in_place_of_training(cluster: Cluster, tmp_path: pathlib.Path, act: str, **environment: str) -> Job:
    """A job whose tasks run a line of shell in place of Python."""
    program = tmp_path / ".venv/bin/python"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/bash\n{act}\n")
    program.chmod(0o755)
    return cluster.submit(str(ROOT / "launch/slurm.sbatch"), directory=tmp_path, **environment)


@pytest.mark.parametrize("code", [1, 2, 3, 74])
def test_a_lasting_fault_of_one_task_is_not_requeued(cluster, tmp_path, code):
    """The others lose it and end with 69, which srun returns where it is higher."""
    job = in_place_of_training(cluster, tmp_path, f"if [ $SLURM_PROCID = 2 ]; then exit {code}; fi; sleep 1; exit 69")
    assert job.wait_for_end() == ("FAILED", f"{max(code, 69)}:0", "0")
    assert f"a task ended with {code}: not requeued" in job.log()


def test_requeues_are_limited(cluster, tmp_path):
    job = in_place_of_training(cluster, tmp_path, "exit 75", REQUEUES="2")
    assert job.wait_for_end() == ("FAILED", "75:0", "2")
    assert "ended with 75 after 2 requeues (REQUEUES): not requeued" in job.log()


def test_a_task_has_its_cpus_and_its_number(cluster, tmp_path):
    job = in_place_of_training(cluster, tmp_path, "echo task $SLURM_PROCID of $SLURM_NTASKS: $SLURM_CPUS_PER_TASK")
    assert job.wait_for_end() == ("COMPLETED", "0:0", "0")
    assert sorted(job.log().splitlines()) == [f"{task}: task {task} of 4: 1" for task in range(4)]
