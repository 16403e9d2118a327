"""One small study from the command line: stopped by a signal, gone on with, and read."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.studies.test_plan import make
from vmoe_inform.studies import execute, measure, plan
from vmoe_inform.training.checkpoints import Checkpoints
from vmoe_inform.training.logging import read_metrics

ROOT = pathlib.Path(__file__).parents[2]
ROUTERS = ("vmoe", "symphony_vmoe")
TINY = (
    "--config=configs/digits.py:variant=Ti/16,experts=4,where=1",
    "--config.model.num_layers=2",
    "--config.model.hidden_size=16",
    "--config.model.mlp_size=32",
    "--config.data.random_rotation_degrees=0",
    "--config.data.random_zoom=0",
    "--config.train.epochs=None",
    "--config.train.steps=6",
    "--config.train.batch_size=512",
    "--config.train.log_every_steps=1",
    "--config.optimizer.warmup_steps=2",
    "--config.checkpoint.every_steps=1",
    "--config.checkpoint.keep=1",
    "--config.evaluation.suites=('clean', 'a')",
)


def _start(workdir: pathlib.Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_", "PYTEST_"))
    } | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [sys.executable, "-m", "vmoe_inform.study", *TINY, f"--workdir={workdir}", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """A study that was stopped in its first runs' training, or soon after, and then gone on with to its end."""
    workdir = tmp_path_factory.mktemp("study")
    arguments = (f"--routers={','.join(ROUTERS)}", "--seeds=2", "--jobs=2")
    first = _start(workdir, *arguments)
    while not any("loss" in path.read_text() for path in workdir.glob("runs/*/*/metrics.jsonl")):
        assert first.poll() is None, first.communicate()
        time.sleep(0.1)
    first.send_signal(signal.SIGTERM)
    printed = first.communicate()
    assert first.returncode == 75, printed
    finished_before = {path: path.stat().st_mtime_ns for path in workdir.glob("runs/*/*/result.json")}
    assert len(finished_before) < 4
    assert not (workdir / "study.json").exists()
    second = _start(workdir, *arguments)
    printed = second.communicate()
    assert second.returncode == 0, printed
    assert all(path.stat().st_mtime_ns == before for path, before in finished_before.items())
    return workdir, printed[0]


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
        assert (result["one_epoch_before"]["step"], result["last"]["step"]) == (3, 6)
        assert set(result["last"]["suites"]) == {"clean", "a"}
        logged = [entry for entry in read_metrics(folder / "metrics.jsonl") if "evaluation/clean/top1" in entry]
        assert result["last"]["suites"]["clean"]["top1"] == logged[-1]["evaluation/clean/top1"]
        assert result["one_epoch_before"]["suites"]["clean"]["nll"] != result["last"]["suites"]["clean"]["nll"]


def test_fluctuation_is_that_of_the_experts_on_file(studied):
    workdir, _ = studied
    for (router, seed), result in _results(workdir).items():
        with np.load(workdir / "runs" / router / f"seed_{seed}" / "chosen_experts.npz") as file:
            before, last = file["one_epoch_before/block_1"], file["last/block_1"]
        assert before.shape == last.shape == (364, 4, 2)  # images, patches of 16 px, experts of a token
        assert before.dtype == np.uint8
        sets = [[set(experts) for experts in chosen.reshape(-1, 2).tolist()] for chosen in (before, last)]
        changed = np.mean([a != b for a, b in zip(*sets, strict=True)])
        assert result["fluctuation"]["block_1"] == pytest.approx(changed, abs=1e-6)
        load = np.bincount(last.ravel(), minlength=4) / last.size
        assert result["last"]["routing"]["block_1"]["load"] == pytest.approx(load.tolist(), abs=1e-5)


def test_the_study_compares_seed_by_seed(studied):
    workdir, _ = studied
    study, results = json.loads((workdir / "study.json").read_text()), _results(workdir)
    assert (study["against"], study["seeds"]) == ("vmoe", [0, 1])
    top1 = {key: result["last"]["suites"]["clean"]["top1"] for key, result in results.items()}
    differences = [top1["symphony_vmoe", seed] - top1["vmoe", seed] for seed in (0, 1)]
    found = study["routers"]["symphony_vmoe"]["measures"]["accuracy/clean"]["difference"]
    assert found["mean"] == pytest.approx(np.mean(differences))
    assert found["high"] - found["mean"] == pytest.approx(12.7062 * abs(differences[0] - differences[1]) / 2, rel=1e-4)
    flops = {router: results[router, 0]["flops"]["training_step"] for router in ROUTERS}
    assert study["routers"]["symphony_vmoe"]["flops_overhead"]["training_step"] == pytest.approx(
        flops["symphony_vmoe"] / flops["vmoe"] - 1
    )
    assert len(list((workdir / "figures").glob("*.png"))) == 3


def test_a_finished_study_starts_no_run(studied):
    workdir, _ = studied
    before = {path: path.stat().st_mtime_ns for path in workdir.glob("runs/*/*/*")}
    process = _start(workdir, "--routers=symphony_vmoe,vmoe", "--seeds=2", "--against=vmoe")
    printed = process.communicate()
    assert process.returncode == 0, printed
    assert {path: path.stat().st_mtime_ns for path in workdir.glob("runs/*/*/*")} == before
    assert json.loads((workdir / "study.json").read_text())["against"] == "vmoe"


def test_a_run_without_its_last_steps_goes_on_from_its_checkpoint(tmp_path):
    """As if it had been killed in its last epoch, in this process."""
    run = make(tmp_path, "vmoe", evaluation__suites=("clean",), train__log_every_steps=1)["vmoe"][0]
    other = make(tmp_path / "other", "vmoe", evaluation__suites=("clean",), train__log_every_steps=1)["vmoe"][0]
    with execute.StopRequest() as stop:
        measure.complete(run, stop)
    shutil.copytree(run.folder, other.folder)
    shutil.rmtree(other.folder / "checkpoints" / "6")
    (other.folder / plan.RESULT_FILE).unlink()
    with Checkpoints(other.folder) as checkpoints:
        assert checkpoints.newest_step() == 3
    outcome = execute.execute([other], jobs=1)
    assert (outcome.stopped, outcome.failures) == (False, {})
    whole, resumed = measure.read(run), measure.read(other)
    for result in (whole, resumed):
        del result["seconds"]
    assert resumed == whole


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--routers=vmoe,symphny_vmoe",), "router preset: expected one of .*; received 'symphny_vmoe'"),
        (("--routers=vmoe", "--config.seed=3"), "--config.seed: expected nothing"),
        (("--routers=vmoe", "--config.train.steps=2"), "train.steps: expected more than one epoch"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(tmp_path, arguments, message):
    process = _start(tmp_path / "study", *arguments)
    _, printed = process.communicate()
    assert process.returncode == 2
    (line,) = printed.splitlines()
    assert line.startswith("error: ")
    assert re.search(message, line), line
    assert not (tmp_path / "study").exists()
