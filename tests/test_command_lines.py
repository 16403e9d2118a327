"""What the command lines print, write and return."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
from absl import flags

from tests import processes
from vmoe_inform import command_line

TINY = (
    "--config=configs/digits.py:router=attention_vmoe,variant=Ti/16,experts=4,where=1",
    "--config.model.num_layers=2",
    "--config.model.hidden_size=16",
    "--config.train.steps=8",
    "--config.train.batch_size=16",
    "--config.optimizer.warmup_steps=2",
)


@pytest.fixture(scope="module")
def train(tmp_path_factory) -> Iterator[processes.Forks]:
    with processes.Forks("train", tmp_path_factory.mktemp("train"), imports=("training.loop",)) as forks:
        yield forks


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory) -> Iterator[processes.Forks]:
    imports = ("report.page", "evaluation.run")
    with processes.Forks("evaluate", tmp_path_factory.mktemp("evaluate"), imports=imports) as forks:
        yield forks


@pytest.fixture(scope="module")
def trained(train, tmp_path_factory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("runs") / "attention"
    printed = train.succeed(*TINY, f"--workdir={workdir}")
    assert "all steps done, clean top-1" in printed
    assert "\x1b" not in printed  # no control characters where there is no terminal
    assert "step 8/8  loss" in printed
    return workdir


def test_train_then_evaluate_then_evaluate_again(trained, evaluate):
    printed = evaluate.succeed(f"--workdir={trained}", "--suites=clean,r,o")
    path = trained / "evaluation" / "results.json"
    results = json.loads(path.read_text())
    assert results["checkpoint_step"] == 8
    assert len(results["config_hash"]) == 16
    clean = results["suites"]["clean"]
    assert set(clean["metrics"]) == {"top1", "top5", "nll", "ece", "aurc"}
    assert clean["count"] == 364
    assert 0.0 <= results["suites"]["o"]["metrics"]["aupr"] <= 1.0
    layer = results["routing"]["block_1"]
    assert set(layer) == {"entropy", "load", "effective_neighbours", "dropped", "collapsed", "margin"}
    assert sum(layer["load"]) == pytest.approx(1.0, abs=1e-5)
    assert 1.0 <= layer["effective_neighbours"] <= 5.0
    assert 0.0 <= layer["collapsed"] <= 1.0
    assert 0.0 < layer["margin"] < 1.0
    page = trained / "evaluation" / "report.html"
    assert str(page) in printed
    assert page.read_text().count("data:image/") > 5

    # The second start finds all of it, and adds one suite to what is there. Suites of one minute share a line.
    for suite in results["suites"].values():
        suite["evaluated"] = "2026-01-02T03:04:05+00:00"
    path.write_text(json.dumps(results))
    other = trained.parent / "other"
    shutil.copytree(trained, other)
    again = evaluate.succeed(f"--workdir={trained},{other}@8", "--suites=clean,r,o,a")
    finished = re.findall(r"^(\w+): (?:step )?([\d,]+)(?: images)?$", again.replace("@8", ""), flags=re.MULTILINE)
    assert [name for name, _ in finished] == ["attention", "a", "other", "clean", "r", "o", "a"]
    assert "attention next to other@8" in page.read_text()
    named = json.loads((other / "evaluation" / "results_step_8.json").read_text())["suites"]
    assert set(json.loads((other / "evaluation" / "results.json").read_text())["suites"]) == {"clean", "r", "o"}
    merged = json.loads(path.read_text())["suites"]
    assert merged["clean"] == clean
    assert set(merged) == {"clean", "r", "o", "a"}
    dates = {name: (named[name].pop("evaluated"), merged[name].pop("evaluated")) for name in merged}
    assert named == merged  # a copy of the same run
    assert all(of_copy > of_run for name, (of_copy, of_run) in dates.items() if name != "a")
    shown = re.findall(r"^(\w+): .* images, from before: evaluated 20.* UTC, digits$", again, flags=re.MULTILINE)
    assert shown == ["clean", "r", "o"]
    assert "attention: clean, r, o: evaluated 2026-01-02 03:04 UTC, digits" in " ".join(again.split())


def test_a_run_is_evaluated_with_another_router_and_compared_with_its_own(trained, evaluate):
    results, own = trained / "evaluation" / "results.json", trained.parent / "own"
    evaluate.succeed(f"--workdir={trained}", "--suites=clean,r")
    before = results.read_text()
    arguments = (f"--workdir={trained}", "--suites=clean,r", "--sweep=model.router.inform=attention,none")
    printed = evaluate.succeed(*arguments)
    assert "inform=attention: the run's own routers" in printed
    assert "attention with inform=none\nclean: 364 images\nr: 210 images\n" in printed
    assert "attention with other routers, not trained" in printed
    assert json.loads(results.read_text())["suites"] == json.loads(before)["suites"]
    (folder,) = (trained / "evaluation" / "rerouted").iterdir()
    compared = json.loads((folder / "comparison.json").read_text())
    assert compared["settings"] == {"model.router.inform": "none"}
    top1 = compared["suites"]["clean"]["metrics"]["top1"]
    assert top1["before"] == json.loads(before)["suites"]["clean"]["metrics"]["top1"]
    of_router = json.loads((folder / "results.json").read_text())
    assert top1["after"] == of_router["suites"]["clean"]["metrics"]["top1"]
    assert of_router["model"]["router"] == {"score": "linear"}
    assert top1["after"] - top1["before"] == pytest.approx((top1["gained"] - top1["lost"]) / 364)
    page = (trained / "evaluation" / "report.html").read_text()
    assert "With other routers, without training" in page
    assert "inform=none" in page

    # Nothing is computed again: without the checkpoint, too.
    shutil.copytree(trained, own)
    for path in (own / "checkpoints").rglob("d/*"):
        path.write_bytes(b"")
    again = evaluate.succeed(f"--workdir={own}", *arguments[1:])
    assert again.count("from before: evaluated") == 4


def test_suites_that_cannot_be_evaluated_are_an_error_if_there_are_no_others(trained, evaluate):
    before = sorted(trained.rglob("*"))
    code, printed, errors = evaluate.run(f"--workdir={trained}", "--suites=sketch")
    assert (code, printed) == (2, "attention: step 8\n")
    message = "error: attention: suites: expected some .*; received none: sketch: there is no such suite for other .*\n"
    assert re.fullmatch(message, errors)
    assert sorted(trained.rglob("*")) == before
    printed = evaluate.succeed(f"--workdir={trained}", "--suites=clean,sketch")
    assert "sketch: not available: there is no such suite" in printed
    later = evaluate.succeed(f"--workdir={trained}", "--suites=clean")
    assert "ketch" not in later


def test_a_finished_run_is_not_trained_again(trained, train):
    lines = (trained / "metrics.jsonl").read_text()
    printed = train.succeed(*TINY, f"--workdir={trained}")
    assert re.search("all steps done, clean top-1 .*%, measured when they were done$", printed.strip())
    assert (trained / "metrics.jsonl").read_text() == lines


def test_dry_run_states_what_the_step_costs(train, tmp_path):
    printed = train.succeed(*TINY, "--dry_run", f"--workdir={tmp_path / 'none'}")
    for words in ("parameters", "flops of a step", "temporary memory"):
        assert words in printed
    assert not (tmp_path / "none").exists()


BAD_FIELDS = {
    "--config.trian.steps=3": "config: expected one of the keys .*; received 'trian'",
    "--config.train.batch_size=many": "train.batch_size: expected .*; received 'many'",
    "--config.model.image_size_px=33": "model.image_size_px: expected a multiple of .*; received 33",
    "--config.model.moe.num_selected_experts=9": "experts: expected at most .* 4; received 9",
    "--config.model.moe.group_size_sequences=5": "train.batch_size: expected .* 5; received 16",
    "--config.model.router.options.attention.sigma=0": "sigma: expected float >= 1e-06 .*; received 0",
    "--config.model.router.options.cosine.temperature=0.1": "temperature: expected an option of a step that",
    "--config.data.source=folder --config.data.directory=/missing": "/missing",
    "--confg.train.steps=3": r"command line: expected flags .*; received '--confg' \(did you mean '--config'\?\)",
    "--nosuch": "command line: expected flags that --help lists; received '--nosuch'",
    "--workdir=again": "--workdir: expected this flag once; received '2 times'",
    "--dry_run=perhaps": "--dry_run: expected true or false; received 'perhaps'",
    "--process_id": "--process_id: expected a value, as --process_id=VALUE; received nothing",
    "--config.data.directory=/tmp": "data.directory: expected '' with data.source = 'digits', .*; received '/tmp'",
    "word": "command line: expected flags only .*; received 'word'",
}
BAD_ARGUMENTS = ("router=atention_vmoe", "roter=vmoe", "router", "where=first", "experts=0")


def _only_error(code: int, errors: str) -> str:
    assert code == 2
    assert "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    return line


def test_bad_input_is_one_line(train, tmp_path):
    workdir = tmp_path / "run"
    fields = [(*TINY, f"--workdir={workdir}", *field.split()) for field in BAD_FIELDS]
    arguments = [(f"--config=configs/digits.py:{argument}",) for argument in BAD_ARGUMENTS]
    results = [train.run(*command_line) for command_line in (*fields, *arguments)]
    for (code, _, errors), message in zip(results, [*BAD_FIELDS.values(), *[": expected "] * 5], strict=True):
        line = _only_error(code, errors)
        assert re.search(message, line), line
    for _, _, errors in results[len(fields) :]:
        assert errors.startswith("error: ")
    assert not workdir.exists()


def test_nothing_to_evaluate(trained, evaluate):
    run = f"--workdir={trained}"  # which says what plug-ins, and so what suites there are
    messages = {
        ("--workdir=/missing",): "workdir: expected a run with config.json; received '/missing'",
        (): "--workdir: expected the folder of a run; received nothing",
        ("--workdir=/missing@last",): "--workdir: expected the folder of a run, or FOLDER@STEP with a number of steps",
        ("--workdir=/missing,/missing",): "expected each run or checkpoint once; received '/missing, /missing'",
        (run, "--suites=clean,q"): "--suites: expected one of a, c, classification, clean",
        (run, "--suites="): "--suites: expected at least one suite, or all alone; received ''",
        (run, "--suites=all,c"): "--suites: expected at least one suite, or all alone; received 'all,",
        (run, f"--predictions={__file__}"): "--predictions: expected a folder that can be written to",
        (run, "--config.model.router.inform=infrom"): "model.router.inform: expected one of",
        (run, "--config.model.router.inform=symphony"): "inform=symphony, without training: expected a router that",
        (run, "--config.model.router.inform"): "--config.model.router.inform: expected a value, as",
        (run, "--config.train.steps=3"): "--config: expected a field of model.router or model.moe",
        (run, "--config.model.router.inform=attention"): "--config: expected settings that differ from those of",
        (
            run,
            "--sweep=model.router.options.similarity.temperature=1,2",
        ): "expected an option of a step that the router",
        (run, "--sweep=model.router.options.attention.sigma=1,warm"): "sigma: expected float",
        (run, "--config=digits"): "command line: expected flags that --help lists; received '--config'",
    }
    results = [evaluate.run(*arguments) for arguments in messages]
    for (code, _, errors), message in zip(results, messages.values(), strict=True):
        assert message in _only_error(code, errors)


def test_an_empty_path_is_not_the_current_folder():
    """As of ``--workdir=$RUN`` where the shell knows no RUN."""
    flag = command_line.define_path("workdir_of_test", "")
    try:
        with pytest.raises(flags.IllegalFlagValueError, match=r"expected path on this machine, not empty .*''"):
            flags.FLAGS["workdir_of_test"].parse("")
        flags.FLAGS["workdir_of_test"].parse("~")
        flags.FLAGS.mark_as_parsed()
        assert flag.value == str(pathlib.Path.home())
    finally:
        delattr(flags.FLAGS, "workdir_of_test")


def test_a_file_for_figures_is_known_to_be_writable_before_the_work(tmp_path):
    of_command = flags.FLAGS["json"] if "json" in flags.FLAGS else None  # noqa: SIM401 (FLAGS has no get)
    if of_command is not None:
        delattr(flags.FLAGS, "json")
    file = command_line.define_output("json", "")
    try:
        flags.FLAGS.mark_as_parsed()
        assert file() is None
        flags.FLAGS.json = str(tmp_path / "figures.json")
        assert file() == tmp_path / "figures.json"
        (tmp_path / "figures.json").touch()
        assert file() == tmp_path / "figures.json"
        (tmp_path / "link").symlink_to("figures.json")
        os.mkfifo(tmp_path / "pipe")
        special = ("/dev/null", "/dev/stdout", tmp_path / "link", tmp_path / "pipe")
        for other in (tmp_path, tmp_path / "none" / "figures.json", tmp_path / "figures.json" / "x", *special):
            flags.FLAGS.json = str(other)
            with pytest.raises(ValueError, match="--json: expected a file that can be written, in a folder that"):
                file()
    finally:
        delattr(flags.FLAGS, "json")
        if of_command is not None:
            flags.FLAGS["json"] = of_command


def test_an_empty_flag_of_the_machine_says_nothing_and_a_missing_folder_is_an_error(tmp_path):
    """As of ``--data_directory=$DATA`` where the shell knows no DATA."""
    here = command_line.define_machine()
    names = ("data_directory", "suites_directory", "num_workers", "batch_size", "generate_corruptions")
    try:
        flags.FLAGS.mark_as_parsed()
        flags.FLAGS.data_directory, flags.FLAGS.suites_directory, flags.FLAGS.num_workers = "", str(tmp_path), 0
        assert here() == {"data.suites_directory": str(tmp_path), "data.num_workers": 0}
        for name in names[:2]:
            setattr(flags.FLAGS, name, "/nope")
            with pytest.raises(ValueError, match=f"^--{name}: expected a folder that exists; received '/nope'$"):
                here()
            setattr(flags.FLAGS, name, "")
    finally:
        for name in names:
            delattr(flags.FLAGS, name)


def test_what_was_imported_is_not_searched_for_garbage():
    """Python searches for garbage again and again while tracing makes objects: a tenth of a start from the cache."""
    code = "import gc\nfrom vmoe_inform import command_line\n"
    code += "command_line.run(lambda _: int(gc.get_freeze_count() < 50_000))"
    assert subprocess.run([sys.executable, "-c", code], cwd=processes.ROOT).returncode == 0
