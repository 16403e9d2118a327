"""What a study writes for its reader, from made-up results."""

import dataclasses
import json
import re

import pytest

from tests import tiny_text
from tests.studies import sample
from tests.studies.test_plan import make
from vmoe_inform import storage
from vmoe_inform.studies import document, drawing, plan, report, results, summary, tables
from vmoe_inform.studies.document import StudiedRouter, Study


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A study of two routers with two seeds: `mixing` is better by 2 and 4 points, with 3/4 and 1/4 of the entropy."""
    workdir = tmp_path_factory.mktemp("study")
    made = make(workdir, "vmoe", "similarity_vmoe")
    runs = {"plain": made["vmoe"], "mixing": made["similarity_vmoe"]}
    write_results(runs)
    report.write(workdir, runs, against="plain", file="d.py", overrides={"train.steps": 6})
    return workdir


def write_results(runs):
    for router, of_seeds in {
        "plain": [sample.result("plain", 0), sample.result("plain", 1, clean=0.8)],
        "mixing": [
            sample.result("mixing", 0, clean=0.92, entropy=0.75),
            sample.result("mixing", 1, clean=0.84, entropy=0.25, fluctuation=0.3),
        ],
    }.items():
        for run, result in zip(runs[router], of_seeds, strict=True):
            results.write(run.folder / plan.RESULT_FILE, result, within=run.folder)


def test_json_holds_means_differences_and_runs(written):
    study = json.loads((written / "study.json").read_text())
    assert (study["against"], study["seeds"], study["overrides"]) == ("plain", [0, 1], {"train.steps": 6})
    assert study["steps"] == {"before": 3, "last": 6}
    mixing = study["routers"]["mixing"]
    clean = mixing["measures"]["score/clean"]
    assert clean["mean"]["mean"] == pytest.approx(0.88)
    assert clean["difference"]["mean"] == pytest.approx(0.03)
    assert clean["difference"]["high"] == pytest.approx(0.03 + 12.7062 * 0.01, abs=1e-5)  # s = 0.02 / sqrt(2)
    assert mixing["measures"]["entropy/block_1"]["ratio"]["mean"] == pytest.approx(0.5)
    assert mixing["flops_overhead"] == {"training_step": 0.25, "evaluation_batch": 0.0}
    assert [(run["router"], run["seed"]) for run in study["runs"]] == [
        ("plain", 0), ("plain", 1), ("mixing", 0), ("mixing", 1)
    ]  # fmt: skip


def test_tables(written):
    page = (written / "study.md").read_text()
    assert "Config `d.py` with `--config.train.steps=6`; 6 training steps." in page
    assert "Student t over the 2 paired differences, 1 degree of freedom" in page
    # Of 8 effects of the one other router 4 differ from seed to seed; none is clear of 0 with two seeds.
    assert "0 of 4 do." in page
    assert "0 more do; about 0 of all would by chance" in page
    rows = [line for line in page.splitlines() if line.startswith(("| `", "| *"))]
    assert rows[:2] == ["| `plain` | 85.0 | 50.0 |", "| `mixing` | 88.0 (+3.0 ± 12.7) | 50.0 (+0.0 ± 0.0) |"]
    # Differences of 2 and 4 points have a standard error of 1, and two seeds show 16.3 of them.
    assert rows[2] == "| *could have shown* | 16.3 | - |"
    assert rows[4].startswith("| `mixing` | 20.0 (+10.0 ± 127.1) | 0.500 (-0.500 ± 3.177) | 0.500 ± 3.177 | 1.00 (")
    assert rows[7] == "| `mixing` | 1,000 | 125 | +25.0 % | 40 | +0.0 % |"
    assert "corrupted" not in page  # not available in any run


def test_pictures(written):
    names = ["fluctuation_and_entropy", "load_and_cost", "scores"]
    assert sorted(path.stem for path in (written / "figures").glob("*.png")) == names
    page = (written / "study.md").read_text()
    assert all(f"(figures/{name}.png)" in page for name in names)


@pytest.mark.parametrize(
    ("which", "words"),
    [((), ""), (("plain", "mixing"), "; routers may look"), (("mixing",), "; mixing may look")],
)
def test_routers_that_may_look_ahead_are_named(which, words, tmp_path, monkeypatch):
    runs = {}
    for router in ("plain", "mixing"):
        config = tiny_text.parse(tmp_path, model__allow_future=router in which)
        runs[router] = [plan.PlannedRun(router, config, tmp_path / router / str(seed), (3, 6)) for seed in range(2)]
        runs[router][1] = dataclasses.replace(runs[router][1], config=dataclasses.replace(config, seed=1))
    write_results(runs)
    titles = []
    monkeypatch.setattr(drawing, "figures", lambda *_, study, **__: titles.append(study) or {})
    report.write(tmp_path, runs, against="plain", file="d.py", overrides={})
    page, study = (tmp_path / "study.md").read_text(), json.loads((tmp_path / "study.json").read_text())
    assert titles == ["d.py, 6 steps, 2 seeds" + (f"{words} at later words" if which else "")]
    assert study.get("looks_ahead", []) == list(which)
    label = f"**These routers may look at later words** (`model.allow_future`): {', '.join(f'`{r}`' for r in which)}."
    assert (label in page) == bool(which)
    assert ("later words" in page) == bool(which)


def test_marks_say_what_survives_the_correction():
    """Four seeds and two other routers: p = 0.008 and 0.036 of the scores, which Holm makes 0.016 and 0.036."""
    scores = {
        "plain": (0.5, 0.5, 0.5, 0.5),
        "clear": (0.58, 0.60, 0.60, 0.66),
        "doubtful": (0.52, 0.60, 0.62, 0.64),
        "equal": (0.4, 0.4, 0.4, 0.4),
    }
    study = _study(scores)
    page = tables.page(study, summary.summarize(study.measures, "plain"), [])
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `") and "±" in line}
    assert rows["clear"].endswith("± 5.5\\*\\*) |")
    assert rows["doubtful"].endswith("± 8.4\\*\\*) |")
    assert rows["equal"].endswith("(-10.0 ± 0.0) |")
    assert "2 of 2 do." in page
    more = _study(scores | {f"plain_{n}": (0.4, 0.6, 0.5, 0.49) for n in range(3)})
    page = tables.page(more, summary.summarize(more.measures, "plain"), [])
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `") and "±" in line}
    assert rows["clear"].endswith("± 5.5\\*\\*) |")
    assert rows["doubtful"].endswith("± 8.4\\*) |")  # one of five tests now: 4 x 0.036
    assert "1 of 5 do." in page
    assert "1 more do; about 0 of all" in page


def _study(scores):
    routers = {
        name: StudiedRouter(10, {"training_step": 1.0, "evaluation_batch": 1.0}, {"score/clean": values})
        for name, values in scores.items()
    }
    return Study("d.py", {}, "plain", (0, 1, 2, 3), {"before": 3, "last": 6}, routers)


def test_files_of_older_versions_and_values_alone_are_read(written, tmp_path):
    newest = document.read(written / "study.json")
    value = json.loads((written / "study.json").read_text())
    older = {name: of for name, of in value.items() if name not in ("version", "routers")}
    older["routers"] = {name: {"measures": of["measures"]} for name, of in value["routers"].items()}
    alone = {name: of for name, of in value.items() if name not in ("runs", "interval")}
    for name, content in {"older": older, "alone": alone}.items():
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        assert document.read(path) == newest
    assert newest.routers["mixing"].values["score/clean"] == (0.92, 0.84)
    said = report.write_again(str(path), str(tmp_path))
    assert said.endswith("study.md: 2 routers, 2 seeds")
    assert (tmp_path / "study.md").read_text() == (written / "study.md").read_text()
    path.write_text(json.dumps({**alone, "seeds": [0, 1, 2]}))
    with pytest.raises(storage.DamagedFileError, match=r"values of plain, .*: expected 3 numbers; received 2"):
        document.read(path)


def test_tables_of_some_routers_against_another():
    study = dataclasses.replace(
        _study({"plain": (1.0, 2.0, 3.0, 4.0), "mixing": (2.0, 3.0, 5.0, 5.0), "graph": (0.0, 1.0, 1.0, 2.0)}),
        looks_ahead=("graph", "plain"),
    )
    assert study.among() == study
    some = study.among(("graph", "mixing"), against="mixing")
    assert (some.against, list(some.routers), some.looks_ahead) == ("mixing", ["graph", "mixing"], ("graph",))
    assert study.among(("graph", "mixing")).against == "graph"  # plain is not there
    assert study.among(("graph", "plain")).against == "plain"
    difference = summary.summarize(some.measures, some.against)["graph"]["score/clean"].difference
    assert difference.mean == pytest.approx(-2.75)
    with pytest.raises(ValueError, match=r"--routers: expected each once, .*; received 'graph, graph'"):
        study.among(("graph", "graph"))
    with pytest.raises(ValueError, match="--routers: expected each once, of plain, mixing, graph; received 'vmoe'"):
        study.among(("vmoe",))
    with pytest.raises(ValueError, match="--against: expected one of the routers graph; received 'plain'"):
        study.among(("graph",), against="plain")


def test_tables_of_a_study_in_a_bucket(written, bucket_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shared = bucket_folder / "study" / "study.json"
    storage.write_bytes(shared, (written / "study.json").read_bytes())
    report.write_again(str(shared), str(bucket_folder / "tables"))
    assert storage.read_bytes(bucket_folder / "tables" / "study.md") == (written / "study.md").read_bytes()
    with pytest.raises(ValueError, match="--workdir: expected another folder"):
        report.write_again(str(shared), str(shared.parent))
    assert not list(tmp_path.iterdir())  # such as a folder called gs:


@pytest.mark.parametrize(
    ("file", "workdir", "flags", "message"),
    [
        (
            "study.json",
            "other",
            ["--seeds=3"],
            "--tables_of: expected no other flag than --workdir, --routers and --against; received '--seeds=3'",
        ),
        ("study.json", None, [], "--workdir: expected a folder for the tables and figures; received nothing"),
        ("study.json", ".", [], "--workdir: expected another folder than that of --tables_of; received '.'"),
        ("none.json", "other", [], "--tables_of: expected a study.json; received 'none.json'"),
    ],
)
def test_tables_that_cannot_be_written_again(file, workdir, flags, message, written, monkeypatch):
    monkeypatch.chdir(written)
    with pytest.raises(ValueError, match=re.escape(message)):
        report.write_again(file, workdir, other_flags=flags)
