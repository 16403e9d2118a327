"""The command lines as a user starts them, in processes of their own."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TINY = (
    "--config=configs/digits.py:router=attention_vmoe,variant=Ti/16,experts=4,where=1",
    "--config.model.num_layers=2",
    "--config.model.hidden_size=16",
    "--config.train.epochs=None",
    "--config.train.steps=8",
    "--config.train.batch_size=16",
    "--config.optimizer.warmup_steps=2",
)


def _run(module: str, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "XLA_", "PYTEST_"))
    } | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [sys.executable, "-m", f"vmoe_inform.{module}", *arguments]
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == code, process.stdout + process.stderr
    return process


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("runs") / "attention"
    printed = _run("train", *TINY, f"--workdir={workdir}").stdout
    assert "all steps done, clean top-1" in printed
    assert "\x1b" not in printed  # no control characters where there is no terminal
    assert "step 8/8  loss" in printed
    return workdir


def test_train_then_evaluate_then_evaluate_again(trained):
    printed = _run("evaluate", f"--workdir={trained}", "--suites=clean,r,o").stdout
    path = trained / "evaluation" / "results.json"
    results = json.loads(path.read_text())
    assert results["checkpoint_step"] == 8
    assert len(results["config_hash"]) == 16
    clean = results["suites"]["clean"]
    assert {"top1", "top5", "nll", "ece", "count"} <= set(clean)
    assert clean["count"] == 364
    assert 0.0 <= results["suites"]["o"]["aupr"] <= 1.0
    layer = results["routing"]["block_1"]
    assert set(layer) == {"entropy", "load", "effective_neighbours", "dropped"}
    assert sum(layer["load"]) == pytest.approx(1.0, abs=1e-5)
    assert 1.0 <= layer["effective_neighbours"] <= 5.0
    page = trained / "evaluation" / "report.html"
    assert str(page) in printed
    assert page.read_text().count("data:image/") > 5

    # The second start finds all of it, and adds one suite to what is there.
    again = _run("evaluate", f"--workdir={trained}", "--suites=clean,r,o").stdout
    assert "364 images" not in again
    other = trained.parent / "other"
    shutil.copytree(trained, other)
    _run("evaluate", f"--workdir={trained}", "--suites=a", f"--compare={other}")
    assert "attention next to other" in page.read_text()
    merged = json.loads(path.read_text())["suites"]
    assert merged["clean"] == clean
    assert set(merged) == {"clean", "r", "o", "a"}


def test_results_of_an_older_checkpoint_are_not_mixed_in(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    (run / "evaluation").mkdir(exist_ok=True)
    stale = {"checkpoint_step": 4, "config_hash": "0", "suites": {"a": {"top1": 1.0, "count": 1}}, "routing": {}}
    (run / "evaluation" / "results.json").write_text(json.dumps(stale))
    _run("evaluate", f"--workdir={run}", "--suites=r", "--noreport")
    assert set(json.loads((run / "evaluation" / "results.json").read_text())["suites"]) == {"r"}


def test_a_finished_run_is_not_trained_again(trained):
    lines = (trained / "metrics.jsonl").read_text()
    printed = _run("train", *TINY, f"--workdir={trained}").stdout
    assert "all steps done" in printed
    assert (trained / "metrics.jsonl").read_text() == lines


def test_dry_run_states_what_the_step_costs(tmp_path):
    printed = _run("train", *TINY, "--dry_run", f"--workdir={tmp_path / 'none'}").stdout
    for words in ("parameters", "flops of a step", "temporary memory"):
        assert words in printed
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("train", ("--config.trian.steps=3",), "config: expected one of the keys .*; received 'trian'"),
        ("train", ("--config.train.batch_size=many",), "train.batch_size: expected .*; received 'many'"),
        ("train", ("--config.model.image_size_px=33",), "model.image_size_px: expected a multiple of .*; received 33"),
        ("train", ("--config.model.moe.num_selected_experts=9",), "experts: expected at most .* 4; received 9"),
        ("train", ("--config.model.moe.group_size_images=5",), "train.batch_size: expected .* 5; received 16"),
        ("train", ("--config.model.router.options.attention.sigma=0",), "sigma: expected .* > 0; received 0"),
        ("train", ("--config.data.source=folder", "--config.data.directory=/missing"), "/missing"),
        ("train", ("--confg=3",), "confg"),
        ("train", ("word",), "command line: expected flags only .*; received 'word'"),
        ("evaluate", ("--workdir=/missing",), "workdir: expected a run with config.json; received '/missing'"),
        ("evaluate", (), "--workdir: expected the folder of a run; received None"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(module, arguments, message, tmp_path):
    if module == "train":
        arguments = (*TINY, f"--workdir={tmp_path / 'run'}", *arguments)
    process = _run(module, *arguments, code=2)
    errors = [line for line in process.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in process.stderr
    assert re.search(message, errors[0]), errors[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("argument", ["router=atention_vmoe", "roter=vmoe", "router", "where=first", "experts=0"])
def test_bad_config_arguments_are_one_line(argument):
    process = _run("train", f"--config=configs/digits.py:{argument}", code=2)
    assert process.stderr.startswith("error: ")
    assert "expected" in process.stderr
    assert "Traceback" not in process.stderr
