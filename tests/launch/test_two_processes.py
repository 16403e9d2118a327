"""Two processes with two devices each train and evaluate the run that one process with four devices does."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
from subprocess import PIPE

import pytest

from vmoe_inform import storage
from vmoe_inform.drill.compare import differing
from vmoe_inform.training.writers.jsonl import read_metrics

ROOT = pathlib.Path(__file__).parents[2]
DRIVER = "tests.launch.train_and_evaluate"
# Four routing groups on each device; experts are spread over pairs of devices. In evaluation, experts have slots for
# half of the tokens.
FLAGS = (
    "--config=configs/digits.py:router=symphony_vmoe,variant=Ti/16,experts=4,where=0",
    "--config.model.num_layers=1",
    "--config.model.hidden_size=16",
    "--config.model.mlp_size=32",
    "--config.model.num_heads=2",
    "--config.model.moe.group_size_sequences=3",
    "--config.model.moe.capacity_factor_evaluation=0.5",
    "--config.mesh.expert=2",
    "--config.train.steps=4",
    "--config.train.batch_size=48",
    "--config.train.log_every_steps=1",
    "--config.optimizer.warmup_steps=2",
    "--config.evaluation.batch_size=192",
)
# Sums over devices go through gloo in one run and through memory in the other: float32 in another order, over 4 steps.
BOUND = 2e-5


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of the run of two processes and of the run of one, trained and evaluated; and what the two printed."""
    folder = tmp_path_factory.mktemp("runs")
    two, one = folder / "two", folder / "one"
    printed = finished(of_two_processes(two), [sys.executable, "-m", DRIVER, *FLAGS, f"--workdir={one}"])
    return two, one, printed[0]


def of_two_processes(workdir: storage.Path, *flags: str) -> list[str]:
    """The command of the run of two processes."""
    return ["launch/local_multiprocess.sh", "2", "2", "--", *FLAGS, *flags, f"--workdir={workdir}"]


def finished(*commands: list[str]) -> list[str]:
    """What commands printed that run at the same time and have to succeed."""
    common = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = {**common, "PYTHON": sys.executable, "MODULE": DRIVER, "JAX_NUM_CPU_DEVICES": "4"}
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(command, cwd=ROOT, env=environment, stdout=PIPE, stderr=PIPE, text=True)
            )
            for command in commands
        ]
        printed = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0] * len(commands), printed
    return [output for output, _ in printed]


def test_the_steps_are_those_of_one_process(runs):
    two, one, _ = runs
    logs = [read_metrics(folder / "metrics.jsonl") for folder in (two, one)]
    steps = [[entry for entry in log if "loss" in entry] for log in logs]
    assert [entry["step"] for entry in steps[0]] == [1, 2, 3, 4]  # once, by the main process alone
    for ours, theirs in zip(*steps, strict=True):
        measured = ("images_per_second", "step_seconds/", "data_wait_share")
        for name in (name for name in theirs if not name.startswith(measured)):
            assert ours[name] == pytest.approx(theirs[name], rel=BOUND, abs=BOUND), (name, ours["step"])


def test_the_results_are_those_of_one_process(runs):
    two, one, _ = runs
    results = [json.loads((folder / "evaluation" / "results.json").read_text()) for folder in (two, one)]
    ours, theirs = (result["suites"]["clean"] for result in results)
    assert ours["count"] == theirs["count"] == 364  # in batches of 192: each process fills its last one up
    ours, theirs = ours["metrics"], theirs["metrics"]
    assert (ours["top1"], ours["top5"]) == (theirs["top1"], theirs["top5"])
    assert ours["nll"] == pytest.approx(theirs["nll"], rel=BOUND)
    routing = [result["routing"]["block_0"] for result in results]
    assert routing[0]["dropped"] == pytest.approx(routing[1]["dropped"], rel=1e-5)
    assert routing[0]["dropped"] > 0.2  # experts overflow: whose images share their slots matters
    assert routing[0]["load"] == pytest.approx(routing[1]["load"], rel=1e-3)
    logged = [read_metrics(folder / "metrics.jsonl")[-1]["evaluation/clean/top1"] for folder in (two, one)]
    assert logged == [ours["top1"], theirs["top1"]]


def test_the_main_process_alone_prints(runs):
    _, _, printed = runs
    lines = printed.splitlines()
    # gloo reports its connections from threads of every process, which tear each other's lines.
    others = [line for line in lines if line.startswith("[1]") and "peer ranks" not in line]
    assert not any(word in line for line in others for word in ("step ", "images", "done")), others
    assert sum("all steps done" in line for line in lines) == 1
    assert sum("clean: 364 images" in line for line in lines) == 1


@pytest.mark.slow
def test_in_a_bucket_that_fails_now_and_then_they_end_with_the_bits_of_a_disk(runs, bucket_server, bucket_folder):
    two, _, _ = runs
    bucket_server.flaky(0.02)
    finished(of_two_processes(bucket_folder, "--config.checkpoint.every_steps=1"))
    bucket_server.flaky(0.0)
    assert bucket_server.failed.total() > 0
    assert differing(bucket_folder, two) == []
    assert storage.numbered_folders(bucket_folder / "checkpoints") == [2, 3, 4]
    ours, theirs = (storage.read_json(folder / "evaluation" / "results.json") for folder in (bucket_folder, two))
    assert ours["suites"]["clean"]["metrics"] == theirs["suites"]["clean"]["metrics"]
