"""Which routers a run is evaluated with, and which comparisons are shown again."""

import dataclasses

import pytest

from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform.config import sweeps
from vmoe_inform.evaluation import comparison, rerouting, stored
from vmoe_inform.evaluation.comparison import Comparison, SuiteComparison
from vmoe_inform.evaluation.files import EvaluationFiles
from vmoe_inform.evaluation.paired import Difference
from vmoe_inform.evaluation.results import Data, ModelFacts, Results, RouterFacts, SuiteResult
from vmoe_inform.evaluation.work import units_of
from vmoe_inform.runs.checkpoint_path import CheckpointPath
from vmoe_inform.runs.run import SavedRun

INFORM = "model.router.inform"
TEMPERATURE = "model.router.options.similarity.temperature"


def saved_run(folder, router="vmoe", step=None):
    config = config_lib.parse(tiny.config_dict(router))
    return SavedRun("run", CheckpointPath(folder, step), 8, (8,), config, config, "older")


def routers_of(saved, *swept):
    lines = []
    return rerouting.routers_of(saved, sweeps.parse({}, swept), say=lines.append), lines


def test_every_other_router_is_evaluated_once(tmp_path):
    found, lines = routers_of(saved_run(tmp_path), f"{INFORM}=none,similarity", f"{TEMPERATURE}=0.1,1")
    assert [router.settings for router in found] == [
        {INFORM: "similarity", TEMPERATURE: 0.1},
        {INFORM: "similarity", TEMPERATURE: 1.0},
    ]
    assert lines == [
        "inform=none, similarity.temperature=0.1: the run's own routers",
        "inform=none, similarity.temperature=1: the run's own routers",
    ]
    same, lines = routers_of(saved_run(tmp_path, "attention_vmoe"), f"{INFORM}=none,similarity", f"{TEMPERATURE}=1,2")
    assert same[0].settings == {INFORM: "none"}
    assert lines == ["inform=none, similarity.temperature=2: the same as inform=none"]
    assert routers_of(saved_run(tmp_path)) == ([], [])


def test_settings_without_another_router_are_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"--config: expected settings that differ from those of run; .*inform=none: "):
        routers_of(saved_run(tmp_path), f"{INFORM}=none")
    with pytest.raises(ValueError, match=r"temperature: expected an option of .*; received \(1.0, 2.0\)"):
        routers_of(saved_run(tmp_path), f"{INFORM}=attention", f"{TEMPERATURE}=1,2")


def test_other_routers_have_files_of_their_own(tmp_path):
    for step, name in ((None, "results.json"), (8, "results_step_8.json")):
        saved = saved_run(tmp_path, step=step)
        router = saved.rerouted({INFORM: "similarity"})
        assert EvaluationFiles.of(saved).results == tmp_path / "evaluation" / name
        folder = tmp_path / "evaluation" / "rerouted" / router.config_hash
        assert EvaluationFiles.of(router).results == folder / name
        assert units_of(router).folder == folder / "units" / "step_8"
        assert units_of(router).config_hash == router.config_hash != saved.config_hash


# ------------------------------------------------------------------------------------------- what is shown again

HERE = Data("here", "0123")
TOP1 = Difference(100, 0.5, 0.6, 0.05, 0.15, 0.01, 12, 2)


def results_of(saved):
    suites = {name: SuiteResult(100, {"top1": 0.5}, data=HERE) for name in ("clean", "r")}
    return Results(saved.step, saved.config_hash, ModelFacts(1, RouterFacts("linear")), suites, {})


def write(saved, settings, *, data=HERE, **changes):
    """What an evaluation with other routers leaves."""
    files = EvaluationFiles(saved.path, f"{hash(str(settings)):x}")
    suites = {"clean": SuiteComparison(data, {"top1": TOP1})}
    made = Comparison(saved.step, saved.config_hash, settings, suites)
    comparison.write(files.comparison, dataclasses.replace(made, **changes), within=saved.folder)
    stored.write_results(files.results, results_of(saved), within=saved.folder)
    return files


def shown(saved):
    return [dict(found.settings) for found in rerouting.read_all(saved.path, results_of(saved))]


def test_all_routers_of_a_checkpoint_are_shown_in_the_order_of_their_settings(tmp_path):
    saved = saved_run(tmp_path)
    assert shown(saved) == []
    for temperature in ("sqrt_dim", 10.0, 2.0, 0.1):
        write(saved, {INFORM: "similarity", TEMPERATURE: temperature})
    write(saved, {INFORM: "attention"})
    assert shown(saved) == [
        {INFORM: "attention"},
        *({INFORM: "similarity", TEMPERATURE: value} for value in (0.1, 2, 10, "sqrt_dim")),
    ]
    assert shown(saved_run(tmp_path, step=8)) == []  # that has files of its own


@pytest.mark.parametrize("change", [{"checkpoint_step": 4}, {"config_hash": "another"}], ids=str)
def test_comparisons_with_another_model_are_not_shown(tmp_path, change):
    saved = saved_run(tmp_path)
    write(saved, {INFORM: "similarity"}, **change)
    assert shown(saved) == []


def test_comparisons_on_other_records_are_not_shown(tmp_path):
    saved = saved_run(tmp_path)
    write(saved, {INFORM: "similarity"}, data=Data("there", "4567"))
    (found,) = rerouting.read_all(saved.path, results_of(saved))
    assert found.comparison.suites == {}


@pytest.mark.parametrize("damaged", ["comparison", "results"])
def test_damaged_comparisons_are_left_out_with_a_warning(tmp_path, warnings, damaged):
    saved = saved_run(tmp_path)
    files = write(saved, {INFORM: "similarity"})
    write(saved, {INFORM: "attention"})
    getattr(files, damaged).write_text("{")
    assert shown(saved) == [{INFORM: "attention"}]
    assert any("left out" in line and str(getattr(files, damaged)) in line for line in warnings)


def test_nothing_is_read_through_a_link(tmp_path):
    saved, other = saved_run(tmp_path / "run"), saved_run(tmp_path / "other")
    files = write(other, {INFORM: "similarity"})
    folder = EvaluationFiles.of(saved).folder / "rerouted"
    folder.mkdir(parents=True)
    (folder / files.folder.name).symlink_to(files.folder)
    with pytest.raises(ValueError, match="expected a folder; received a symbolic link"):
        shown(saved)
