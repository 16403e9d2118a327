"""A study on a real SLURM (Debian: ``apt-get install slurm-wlm munge``): each run is a task of a job array.

.venv/bin/python -m pytest -m slow -rs tests/launch/test_study_on_slurm.py
"""

import json
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable

import pytest

from tests.launch import slurm_cluster
from tests.launch.slurm_cluster import Cluster, Job
from tests.launch.test_slurm import tasks_of
from tests.processes import ROOT
from tests.studies.test_study import ARGUMENT, FIELDS
from vmoe_inform.studies.submit import study_name

_MISSING = slurm_cluster.missing_programs()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(_MISSING), reason=f"NOT TESTED: study --submit; not installed: {', '.join(_MISSING)}"),
]
SCRIPT = "launch/study.sbatch"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with slurm_cluster.running(tmp_path_factory.mktemp("slurm")) as started:
        yield started


def study(cluster: Cluster, workdir: pathlib.Path, script: pathlib.Path, *flags: str) -> str:
    """What ``study --submit=slurm`` prints."""
    fields = [f"--config.{name}={value}" for name, value in FIELDS.items()]
    words = (
        *(sys.executable, "-m", "vmoe_inform.study", f"--config=configs/digits.py:{ARGUMENT}", *fields),
        *("--routers=vmoe,symphony_vmoe", "--seeds=2", f"--workdir={workdir}"),
        *("--submit=slurm", f"--job={script}", *flags),
    )
    return cluster.command(*words, directory=ROOT, JAX_PLATFORMS="cpu", JAX_NUM_CPU_DEVICES="1")


def finished(workdir: pathlib.Path) -> set[str]:
    return {"/".join(path.parts[-3:-1]) for path in workdir.glob("runs/*/*/result.json")}


def is_idle(cluster: Cluster) -> bool:
    return cluster.command("squeue", "--noheader") == ""


def wait_for(condition: Callable[[], bool], seconds: float = 900.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_what_is_left_is_submitted_until_the_study_is_finished(cluster, tmp_path):
    """Two tasks at a time. A preempted task returns to the queue, a cancelled job is submitted again, and the last
    task to finish writes the comparison."""
    workdir, script = tmp_path / "study", tmp_path / "study.sbatch"
    text = (ROOT / SCRIPT).read_text().replace("--gpus-per-node=1", "--gpus-per-node=0")
    script.write_text(
        text.replace("--mem-per-cpu=4G", "--mem-per-cpu=100M")
        .replace("=8\n", "=1\n")
        .replace("vmoe_study-", f"{cluster.folder}/")
    )
    cluster.command("scontrol", "update", "PartitionName=low", "State=DOWN")  # jobs wait
    said = study(cluster, workdir, script, "--jobs=2")
    number, _, rest = said.partition(": ")
    assert rest == "submitted 4 runs; 0 are in the cluster already, 0 finished"
    assert cluster.command("squeue", "--noheader", "--array", "--format=%j").split() == [study_name(workdir)] * 4
    again = study(cluster, workdir, script, "--jobs=2")
    assert again == "nothing submitted; 4 are in the cluster already, 0 finished"

    cluster.command("scontrol", "update", "PartitionName=low", "State=UP")
    task, log = f"{number}_0", cluster.folder / f"{number}_0.log"
    wait_for(lambda: any("loss" in path.read_text() for path in workdir.glob("runs/vmoe/seed_0/metrics.jsonl")))
    # As at a preemption. scancel sends an array's task several signals, since SLURM says that each of them failed.
    (process,) = tasks_of(Job(cluster, Job(cluster, task).fields()["JobId"])).values()
    os.kill(process, signal.SIGTERM)
    wait_for(lambda: Job(cluster, task).fields()["Restarts"] == "1")
    assert "Exited with exit code 75" in log.read_text()
    wait_for(lambda: len(finished(workdir)) > 0)
    cluster.command("scancel", number)
    wait_for(lambda: is_idle(cluster))

    done = len(finished(workdir))
    assert 1 <= done < 4
    said = study(cluster, workdir, script)
    number = said.partition(": ")[0]
    assert said == f"{number}: submitted {4 - done} runs; 0 are in the cluster already, {done} finished"
    wait_for(lambda: is_idle(cluster))
    assert len(finished(workdir)) == 4
    assert set(json.loads((workdir / "study.json").read_text())["routers"]) == {"vmoe", "symphony_vmoe"}
    assert [path.name for path in workdir.iterdir() if path.name.startswith("damaged")] == []


def test_a_script_that_the_cluster_refuses_is_one_line(cluster, tmp_path):
    script = tmp_path / "study.sbatch"
    script.write_text((ROOT / SCRIPT).read_text())  # asks for a GPU, of which there is none
    with pytest.raises(
        AssertionError, match="error: sbatch: expected a cluster that takes this command; received"
    ) as caught:
        study(cluster, tmp_path / "study", script)
    assert "Traceback" not in str(caught.value)
