"""Whatever lies in the place of a run's file, its reader ends at once: with what is right, or with one line."""

import collections
import contextlib
import copy
import dataclasses
import json
import os
import pathlib
import shutil

import numpy as np
import pytest

from tests.analysis import sample as analysis_sample
from tests.evaluation.test_results import VERSION_1
from tests.report.sample_results import example, results, with_suite
from tests.studies import sample as study_sample
from vmoe_inform import checks, documents, storage
from vmoe_inform.analysis import stored as analysis_stored
from vmoe_inform.config import ImageConfig, VisionModelConfig
from vmoe_inform.data.records import ArrayRecords, Source
from vmoe_inform.evaluation import stored, units
from vmoe_inform.evaluation.files import EvaluationFiles
from vmoe_inform.evaluation.results import CleanData, SuiteResult, WorstClass
from vmoe_inform.report import page as report
from vmoe_inform.report.page import render_table, write_report
from vmoe_inform.runs import folder as run_folder
from vmoe_inform.runs.checkpoint_path import CheckpointPath
from vmoe_inform.studies import measure, plan, progress, summary
from vmoe_inform.studies import results as study_results
from vmoe_inform.training.metrics_logger import MetricsLogger
from vmoe_inform.training.writers.jsonl import last_step, read_metrics

CONFIG = ImageConfig(model=VisionModelConfig(num_classes=10, image_size_px=32, patch_size_px=8))
SECRET = "of no business of a run's"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run's folder with every kind of file, none of them from a model."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run_folder.write_config(folder, CONFIG)
    with MetricsLogger(folder) as logger:
        for step in (1, 2, 3):
            logger.log(step, {"loss": 1.0 / step})
    files = EvaluationFiles(CheckpointPath(folder))
    stored.write_results(files.results, results()["attention_vmoe"], within=folder)
    shown = example()
    arrays = {name: np.asarray([shown[name]]) for name in ("image", "label", "prediction", "confidence")}
    experts = {f"experts/{block}": maps[None] for block, maps in shown["experts"].items()}
    storage.write_arrays(files.examples, arrays | experts)
    storage.write_json(folder / "analysis" / "analysis.json", analysis_sample.content())
    storage.write_text(folder / "analysis" / "figures" / "load.svg", "<svg/>")
    study_results.write(folder / plan.RESULT_FILE, study_sample.result("plain", 0), within=folder)
    (folder / "log.txt").write_text("a line\n")
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    (tmp_path / "secret").write_text(json.dumps({"secret": SECRET}))
    return shutil.copytree(whole, tmp_path / "run")


CONTENTS = {
    "empty": lambda content: b"",
    "first half": lambda content: content[: len(content) // 2],
    "all but the end": lambda content: content[:-3],
    "binary": lambda content: bytes(range(256)) * 10,
    "zeros": lambda content: bytes(len(content)),
    "deep": lambda content: b'{"a":' * 100_000,
    "a list": lambda content: b"[]",
    "null": lambda content: b"null",
    "strings for numbers": lambda content: content.replace(b": 3", b': "3"').replace(b": 0.", b': "x0.'),
    "numbers for lists": lambda content: content.replace(b"[", b"[7, "),
    "nothing for everything": lambda content: content.replace(b"{", b'{"more": null, "'),
    "nan": lambda content: content.replace(b"0.", b"NaN, 0."),
    "huge": lambda content: content.replace(b"1", b"1" * 400),
    "negative": lambda content: content.replace(b": ", b": -"),
    "text of another encoding": lambda content: "é".encode("latin-1") + content,
    "every other byte": lambda content: content[::2],
}
PLACES = {
    "link": lambda path, secret: path.symlink_to(secret),
    "link to itself": lambda path, secret: path.symlink_to(path),
    "folder": lambda path, secret: path.mkdir(),
    "pipe": lambda path, secret: os.mkfifo(path),
    "nothing": lambda path, secret: None,
}


def _damage(path: pathlib.Path, kind: str, secret: pathlib.Path) -> None:
    if kind in CONTENTS:
        path.write_bytes(CONTENTS[kind](path.read_bytes()))
    else:
        path.unlink()
        PLACES[kind](path, secret)


@contextlib.contextmanager
def one_line_or_right():
    said = ""
    try:
        yield
    except (checks.InputError, FileNotFoundError) as problem:
        said = str(problem)
    assert "\n" not in said
    assert len(said) < 2000


def _study_run(folder: pathlib.Path) -> plan.PlannedRun:
    return plan.PlannedRun("plain", CONFIG, folder, (3, 6))


def use_config(folder):
    with one_line_or_right():
        run_folder.read_config(folder)
    with one_line_or_right():
        run_folder.check_same_run(folder, CONFIG)
    with one_line_or_right():
        run_folder.check_same_run(folder, dataclasses.replace(CONFIG, seed=1))


def use_metrics(folder):
    before = {entry["step"] for entry in read_metrics(folder / "metrics.jsonl")}
    assert last_step(folder / "metrics.jsonl") in before | {0}
    progress.steps_done(dataclasses.replace(_study_run(folder / "none"), folder=folder))
    with MetricsLogger(folder, start_step=2) as logger:  # training continues, whatever was there
        logger.log(3, {"loss": 0.5})
    kept = [entry["step"] for entry in read_metrics(folder / "metrics.jsonl")]
    assert set(kept) == {step for step in before if step <= 2} | {3}


def use_results(folder):
    files = EvaluationFiles(CheckpointPath(folder))
    with one_line_or_right():
        found = files.read_results()
        with one_line_or_right():
            render_table({"run": found})
            write_report(files.report, {"run": found})
    finished = files.read_finished(1380, {"0123456789abcdef"})
    assert finished is None or set(finished.suites) == {"clean", "c", "r", "o"}
    files.write_results(results()["attention_vmoe"], ("clean",))
    assert files.read_results().checkpoint_step == 1380


def use_examples(folder):
    files = EvaluationFiles(CheckpointPath(folder))
    found = files.read_examples()
    assert len(found) <= 1
    assert files.examples_are_damaged() == (not found and storage.exists(files.examples))
    storage.write_arrays(files.examples, {"image": np.zeros(1)}, within=folder)
    assert files.read_examples() == []


def use_analysis(folder):
    found = analysis_stored.for_report(folder)
    assert found is None or SECRET not in str(found.pictures)
    with one_line_or_right():
        storage.write_json(folder / "analysis" / "analysis.json", {}, within=folder)


def use_study(folder):
    of_study = _study_run(folder)
    measure.put_damaged_aside(of_study)
    if of_study.is_finished:
        measure.read(of_study)
    with storage.appending(folder / "log.txt", within=folder) as log:
        log.write("more\n")


def _leaves(value, path=()):
    """Where something stands in a JSON value: lists and objects too."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, child in children:
        yield from _leaves(child, (*path, key))


def _variants(value):
    """The value with everything in it in turn something else, or not there."""
    for path in _leaves(value):
        for other in (None, -1, 0, 1e308, "x", [], {}, {"x": [[]]}):
            changed = copy.deepcopy(value)
            holder = changed
            for key in path[:-1]:
                holder = holder[key]
            if path:
                holder[path[-1]] = other
            yield changed if path else other


def test_results_of_any_other_shape_are_refused_or_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "_pictures", lambda results: collections.defaultdict(dict))
    files, shown = EvaluationFiles(CheckpointPath(tmp_path)), 0
    few = SuiteResult(9, {"top1": 0.5}, top1_by_shots={"1": 0.4, "5": 0.5}, seed=0)
    found = with_suite(results(), "attention_vmoe", "clean", worst_classes=(WorstClass("x", 0.5, 2),))["attention_vmoe"]
    suites = {"clean": found.suites["clean"], "c": found.suites["c"], "fewshot": few}
    whole = dataclasses.replace(found, seed=1, data=CleanData("x", classes_are_imagenet=True), suites=suites)
    for changed in [*_variants(documents.to_json(whole, leave_out_empty=True)), *_variants(VERSION_1)]:
        files.results.parent.mkdir(exist_ok=True)
        files.results.write_text(json.dumps(changed))
        with one_line_or_right():
            found = files.read_results()
            render_table({"run": found})
            write_report(files.report, {"run": found})
            shown += 1
    assert shown > 10


def test_results_of_a_study_of_any_other_shape_are_put_aside_or_compared(tmp_path):
    of_study, compared = _study_run(tmp_path), 0
    for changed in _variants(documents.to_json(study_sample.result("plain", 0), leave_out_empty=True)):
        (tmp_path / plan.RESULT_FILE).write_text(json.dumps(changed))
        measure.put_damaged_aside(of_study)
        if of_study.is_finished:
            found = measure.read(of_study)
            with one_line_or_right():
                summary.summarize({"plain": [summary.measures_of(found)] * 2}, "plain")
            compared += 1
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
    assert compared > 10


FILES = {
    "config.json": use_config,
    "metrics.jsonl": use_metrics,
    "evaluation/results.json": use_results,
    "evaluation/examples.npz": use_examples,
    "analysis/analysis.json": use_analysis,
    "analysis/figures/load.svg": use_analysis,
    plan.RESULT_FILE: use_study,
    "log.txt": use_study,
}


@pytest.mark.parametrize("name", FILES)
def test_no_damage_is_a_traceback_or_waited_for(folder, tmp_path, name):
    for number, kind in enumerate([None, *CONTENTS, *PLACES]):
        copy = shutil.copytree(folder, tmp_path / str(number))
        if kind is not None:
            _damage(copy / name, kind, tmp_path / "secret")
        FILES[name](copy)
        assert (tmp_path / "secret").read_text() == json.dumps({"secret": SECRET})


@pytest.mark.parametrize("name", ["evaluation", "analysis", "analysis/figures"])
def test_folders_of_a_run_are_no_links(folder, tmp_path, name):
    outside = tmp_path / "outside"
    (folder / name).rename(outside)
    (folder / name).symlink_to(outside)
    before = sorted(outside.rglob("*"))
    files = EvaluationFiles(CheckpointPath(folder))
    assert analysis_stored.for_report(folder) is None or name == "evaluation"
    for use in (
        lambda: files.read_results() if name == "evaluation" else storage.matching(folder / name, "*", within=folder),
        lambda: storage.write_text(folder / name / "new", "", within=folder),
    ):
        with pytest.raises(checks.InputError, match=rf"{name}: expected a folder; received a symbolic link"):
            use()
    assert sorted(outside.rglob("*")) == before


def test_units_and_predictions(tmp_path, monkeypatch):
    source = Source(ArrayRecords(np.zeros((3, 2, 2, 3), np.uint8), np.zeros(3, np.int32)), ("a", "b"), "folder")
    unit = units.Unit("a", "a", units.RecordSet(lambda: source), source)
    kept = units.Units(tmp_path / "run" / "units", 8, "hash", within=tmp_path / "run")
    kept.write(unit, {"hit": np.ones(3, bool), "skipped": np.asarray(0)})
    assert list(kept.read(unit)) == ["hit", "skipped"]
    path = kept.folder / unit.path
    content = path.read_bytes()
    for kind in [*CONTENTS, *PLACES]:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        path.write_bytes(content)
        _damage(path, kind, tmp_path / "secret")
        found = kept.read(unit)
        assert found is None or list(found) == ["hit", "skipped"]
        kept.write(unit, {"hit": np.ones(3, bool), "skipped": np.asarray(0)})
        assert kept.read(unit) is not None


def test_a_config_that_cannot_be_read_says_what_to_do(folder):
    (folder / "config.json").write_text('{"seed": ')
    with pytest.raises(checks.InputError, match=r"config.json: expected JSON .* \(restore it: nothing else says"):
        run_folder.read_config(folder)
