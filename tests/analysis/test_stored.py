"""Analyses in the folders of runs: written, read again, and shown in the report."""

import json
import re

import pytest

from tests.report.sample_results import results
from vmoe_inform import storage
from vmoe_inform.analysis import stored
from vmoe_inform.analysis.results import OtherLayer
from vmoe_inform.report.page import RouterFigures, write_report

from . import sample

SVG = '<svg xmlns="http://www.w3.org/2000/svg"/>'


@pytest.fixture
def workdir(tmp_path):
    folder = tmp_path / "run" / "analysis"
    (folder / "figures").mkdir(parents=True)
    content = sample.content()
    content["run"] |= {"suite": "c:fog:3", "count": 1200}
    (folder / "analysis.json").write_text(json.dumps(content))
    for name in ("load", "entropy_ratio"):
        (folder / "figures" / f"{name}.svg").write_text(SVG)
        (folder / "figures" / f"{name}.png").write_text("not looked at")
    return tmp_path / "run"


def _page(tmp_path, **of_runs):
    write_report(tmp_path / "report.html", results(), analyses=of_runs)
    return re.sub(r"\s+", " ", (tmp_path / "report.html").read_text())


def test_the_report_has_the_figures_of_analysed_runs(workdir, tmp_path):
    found = stored.for_report(workdir)
    assert list(found.pictures) == ["entropy ratio", "load"]
    page = _page(tmp_path, attention_vmoe=found)
    assert "<h2>A closer look at the routers</h2> <h3>attention_vmoe</h3>" in page
    assert "Of 1,200 images (c:fog:3), after 1,380 training steps." in page
    assert 'alt="Routing: entropy ratio"' in page
    assert str(workdir / "analysis" / "routing.html") in page
    assert "another checkpoint" not in page
    assert "A closer look" not in _page(tmp_path)


def test_an_analysis_of_another_checkpoint_says_so(workdir, tmp_path):
    path = workdir / "analysis" / "analysis.json"
    path.write_text(path.read_text().replace('"step": 1380', '"step": 1200'))
    assert "are of another checkpoint, after 1,380 steps." in _page(tmp_path, attention_vmoe=stored.for_report(workdir))


def test_runs_that_were_not_analysed_and_damaged_analyses(workdir, tmp_path, caplog):
    assert stored.for_report(tmp_path) is None
    assert caplog.text == ""
    (workdir / "analysis" / "analysis.json").write_text('{"run": {"step"')
    assert stored.for_report(workdir) is None
    assert f"(analyze it again: python -m vmoe_inform.analyze --workdir={workdir})" in caplog.text
    with pytest.raises(ValueError, match=r"analyses: expected names of runs with results: attention_vmoe, vmoe"):
        _page(tmp_path, other=RouterFigures(1, "clean", 2, "", {}))


@pytest.mark.parametrize(
    "name", ["analysis/figures/load.svg", "analysis/figures", "analysis/analysis.json", "analysis"]
)
def test_links_in_an_analysis_are_not_followed(workdir, tmp_path, name, caplog):
    path, elsewhere = workdir / name, tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    assert stored.for_report(workdir) is None
    assert f"{path}: expected a" in caplog.text
    assert "received a symbolic link" in caplog.text


def test_what_is_written_is_read_again_but_for_its_digits(tmp_path):
    found = sample.analysis(num_layers=1)
    paths = stored.write(tmp_path, found, "<html>")
    assert [path.name for path in paths] == ["analysis.json", "routing.html", "figures"]
    again = stored.read(tmp_path)
    assert again.run == found.run
    assert again.layers["block_1"].load == pytest.approx(found.layers["block_1"].load, rel=1e-5)
    assert {path.suffix for path in (tmp_path / "analysis" / "figures").iterdir()} == {".png", ".svg"}


def _of_version_2():
    """Of images, whose score is their top-1."""
    content = sample.content()
    for run in (content["run"], content["against"]["run"]):
        del run["unit"], run["metric"], run["score"]
        run |= {"class_token": True, "grid": [8, 8], "top1": 0.91}
    return content | {"version": 2}


def test_an_analysis_of_version_2_is_read(tmp_path):
    path = tmp_path / "analysis" / "analysis.json"
    storage.write_json(path, _of_version_2())
    assert stored.read(tmp_path) == sample.analysis()
    storage.write_json(path, _of_version_2() | {"against": None})
    assert stored.read(tmp_path).against is None
    storage.write_json(path, _of_version_2() | {"run": {"top1": 2}})
    with pytest.raises(storage.DamagedFileError, match=r"run\.top1"):
        stored.read(tmp_path)


def test_an_analysis_of_version_1_is_read(tmp_path):
    """Its other run had an entropy and a CV in each layer, and nothing more."""
    content = _of_version_2()
    of_other = {"entropy_ratio": 0.8, "other_entropy": 0.7, "other_load_cv": 0.4}
    old = content | {"version": 1, "against": {"run": content["against"]["run"], "layers": {"block_1": of_other}}}
    storage.write_json(tmp_path / "analysis" / "analysis.json", old)
    found = stored.read(tmp_path)
    assert found.against.layers == {"block_1": OtherLayer(entropy_ratio=0.8, entropy=0.7, load_cv=0.4)}
    assert found.against.fluctuation is None
    now = sample.analysis()
    assert (found.layers, found.fluctuation, found.version) == (now.layers, now.fluctuation, now.version)
    storage.write_json(tmp_path / "analysis" / "analysis.json", content | {"version": 1, "against": {"run": 3}})
    with pytest.raises(storage.DamagedFileError, match=r"against\.run: 3 in place of an object"):
        stored.read(tmp_path)
