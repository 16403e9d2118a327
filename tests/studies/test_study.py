"""One small study from the command line: stopped by a signal, gone on with, and read."""

import json
import os
import pathlib
import re
import signal
import time

import ml_collections
import numpy as np
import pytest

from configs import digits
from tests import processes
from tests.launch.stand_ins import stand_in
from vmoe_inform.studies import execute, plan
from vmoe_inform.training.writers.jsonl import read_metrics

ROUTERS = ("vmoe", "symphony_vmoe")
ARGUMENT = "variant=Ti/16,experts=4,where=0"
FIELDS = {
    "model.num_layers": 1,
    "model.hidden_size": 16,
    "model.mlp_size": 32,
    "data.random_rotation_degrees": 0.0,
    "data.random_zoom": 0.0,
    "train.epochs": None,
    "train.steps": 6,
    "train.batch_size": 512,
    "train.log_every_steps": 1,
    "optimizer.warmup_steps": 2,
    "checkpoint.every_steps": 2,
    "checkpoint.keep": 1,
    "evaluation.suites": ("clean", "a"),
}


def _flags(workdir: pathlib.Path) -> list[str]:
    fields = [f"--config.{name}={value}" for name, value in FIELDS.items()]
    return [f"--config=configs/digits.py:{ARGUMENT}", *fields, f"--workdir={workdir}"]


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """A study that was stopped by a signal when its first run had done a step, and then gone on with to its end."""
    workdir = tmp_path_factory.mktemp("studies") / "study"
    arguments = (f"--routers={','.join(ROUTERS)}", "--seeds=2")
    first = processes.start("study", *_flags(workdir), *arguments, "--jobs=2")
    while not any("loss" in path.read_text() for path in workdir.glob("runs/*/*/metrics.jsonl")):
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    printed = first.communicate()
    assert first.returncode == 75, printed
    assert [path.name for path in workdir.iterdir()] == ["runs"]
    assert not list(workdir.glob("runs/*/*/result.json"))
    imports = ("studies.execute", "studies.report")
    with processes.Forks("study", tmp_path_factory.mktemp("said"), imports=imports) as forks:
        return workdir, forks.succeed(*_flags(workdir), *arguments)  # in one process, which is cheaper


def test_the_stopped_run_went_on_from_its_checkpoint(studied):
    workdir, _ = studied
    starts = {
        folder: sorted(int(path.name.rpartition("from_step_")[2]) for path in (folder / "tensorboard").iterdir())
        for folder in workdir.glob("runs/*/seed_0")
    }
    folder = max(starts, key=lambda folder: starts[folder])
    assert starts[folder][0] == 0
    assert starts[folder][-1] > 0
    assert [entry["step"] for entry in read_metrics(folder / "metrics.jsonl") if "loss" in entry] == [1, 2, 3, 4, 5, 6]


def _results(workdir):
    return {
        (router, seed): json.loads((workdir / "runs" / router / f"seed_{seed}" / "result.json").read_text())
        for router in ROUTERS
        for seed in (0, 1)
    }


def test_progress_over_all_runs_in_plain_lines(studied):
    _, printed = studied
    lines = printed.splitlines()
    assert "\x1b" not in printed
    assert any("4 of 4 runs done  step 24 of 24" in line for line in lines)
    assert lines[-1].endswith("study.md: 2 of 2 routers, 2 seeds")


def test_a_run_is_measured_at_the_ends_of_its_last_two_epochs(studied):
    workdir, _ = studied
    for (router, seed), result in _results(workdir).items():
        folder = workdir / "runs" / router / f"seed_{seed}"
        assert (result["router"], result["seed"]) == (router, seed)
        # Kept although only the newest one was asked for: 2.8 steps before the end, rounded.
        assert sorted(int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit()) == [3, 6]
        assert (result["before"]["step"], result["last"]["step"]) == (3, 6)
        assert set(result["last"]["suites"]) == {"clean", "a"}
        logged = [entry for entry in read_metrics(folder / "metrics.jsonl") if "evaluation/clean/top1" in entry]
        assert result["last"]["suites"]["clean"]["metrics"]["top1"] == logged[-1]["evaluation/clean/top1"]
        assert result["before"]["suites"] == {}  # no score is compared that is not the end's
        assert result["before"]["routing"]["block_0"] != result["last"]["routing"]["block_0"]


def test_fluctuation_is_that_of_the_experts_on_file(studied):
    workdir, _ = studied
    for (router, seed), result in _results(workdir).items():
        with np.load(workdir / "runs" / router / f"seed_{seed}" / "chosen_experts.npz") as file:
            before, last = file["before/block_0"], file["last/block_0"]
        assert before.shape == last.shape == (364, 4, 2)  # images, patches of 16 px, experts of a token
        assert before.dtype == np.uint8
        sets = [[set(experts) for experts in chosen.reshape(-1, 2).tolist()] for chosen in (before, last)]
        changed = np.mean([a != b for a, b in zip(*sets, strict=True)])
        assert result["fluctuation"]["block_0"] == pytest.approx(changed, abs=1e-6)
        load = np.bincount(last.ravel(), minlength=4) / last.size
        assert result["last"]["routing"]["block_0"]["load"] == pytest.approx(load.tolist(), abs=1e-5)


def test_the_study_compares_seed_by_seed(studied):
    workdir, _ = studied
    study, results = json.loads((workdir / "study.json").read_text()), _results(workdir)
    assert (study["against"], study["seeds"]) == ("vmoe", [0, 1])
    top1 = {key: result["last"]["suites"]["clean"]["metrics"]["top1"] for key, result in results.items()}
    differences = [top1["symphony_vmoe", seed] - top1["vmoe", seed] for seed in (0, 1)]
    found = study["routers"]["symphony_vmoe"]["measures"]["score/clean"]["difference"]
    assert found["mean"] == pytest.approx(np.mean(differences))
    assert found["high"] - found["mean"] == pytest.approx(12.7062 * abs(differences[0] - differences[1]) / 2, rel=1e-4)
    # Forward and backward passes of 512 images cost more than a forward pass of 128.
    assert all(0 < 4 * run["flops"]["evaluation_batch"] < run["flops"]["training_step"] for run in study["runs"])
    flops = {router: results[router, 0]["flops"]["training_step"] for router in ROUTERS}
    assert study["routers"]["symphony_vmoe"]["flops_overhead"]["training_step"] == pytest.approx(
        flops["symphony_vmoe"] / flops["vmoe"] - 1
    )
    assert len(list((workdir / "figures").glob("*.png"))) == 3


def test_a_finished_study_has_nothing_left_to_do(studied):
    workdir, _ = studied
    before = {path: path.stat().st_mtime_ns for path in workdir.glob("runs/*/*/*")}

    def load(router: str) -> ml_collections.ConfigDict:
        config = digits.get_config(plan.with_router(f"digits.py:{ARGUMENT}", router).partition(":")[2])
        config.update_from_flattened_dict(FIELDS)
        return config

    runs = plan.make(ROUTERS, num_seeds=2, workdir=workdir, load=load)
    assert execute.execute(plan.every(runs), jobs=2) == execute.Outcome(stopped=False, failures={})
    assert {path: path.stat().st_mtime_ns for path in workdir.glob("runs/*/*/*")} == before


def test_what_is_submitted_and_bad_input(tmp_path, monkeypatch):
    """The flags of a task are those of the study, with the runs that are left."""
    stand_in(tmp_path / "bin", "squeue", "")
    stand_in(tmp_path / "bin", "sbatch", "echo 7")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    workdir = f"--workdir={tmp_path / 'study'}"
    config = (f"--config=configs/digits.py:{ARGUMENT}", *(f"--config.{name}={value}" for name, value in FIELDS.items()))
    good = (*config, f"--routers={','.join(ROUTERS)}", "--seeds=2", workdir)
    given = [
        (*good, "--submit=slurm", "--jobs=1"),
        (*config, "--routers=vmoe,symphny_vmoe", workdir),
        (*good, "--submit=pbs"),
        (*good, "--array=vmoe/seed_0"),
    ]
    imports = ("studies.execute", "studies.report", "studies.submit")
    submitted, *refused = processes.run_many("study", given, tmp_path, imports=imports)
    assert submitted == (0, "7: submitted 4 runs; 0 are in the cluster already, 0 finished\n", "")
    left = "vmoe/seed_0,symphony_vmoe/seed_0,vmoe/seed_1,symphony_vmoe/seed_1"
    task = " ".join((workdir, *good[:-1], f"--array={left}"))
    assert (tmp_path / "log").read_text().splitlines()[1].endswith(f" launch/study.sbatch {task}")
    router, scheduler, position = (errors.splitlines() for _, _, errors in refused)
    assert re.fullmatch(r"error: router preset: expected one of .*; received 'symphny_vmoe' \(did you .*\)", *router)
    assert scheduler == ["error: scheduler: expected one of k8s, slurm; received 'pbs'"]
    assert re.fullmatch(r"error: --array: expected a position from 0 to 0 in .*; received nothing", *position)
    assert [code for code, _, _ in refused] == [2, 2, 2]
    assert not list((tmp_path / "study").glob("runs/*/*/metrics.jsonl"))
