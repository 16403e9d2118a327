"""Analyses of runs in the report: figures as they lie in the folder of a run."""

import json
import re

import pytest

from vmoe_inform.report import analyses
from vmoe_inform.report.page import write_report

from .sample_results import results

SVG = '<svg xmlns="http://www.w3.org/2000/svg"/>'


@pytest.fixture
def workdir(tmp_path):
    folder = tmp_path / "run" / "analysis"
    (folder / "figures").mkdir(parents=True)
    run = {"step": 1380, "suite": "c:fog:3", "count": 1200}
    (folder / "analysis.json").write_text(json.dumps({"run": run}))
    for name in ("load", "entropy_ratio"):
        (folder / "figures" / f"{name}.svg").write_text(SVG)
        (folder / "figures" / f"{name}.png").write_text("not looked at")
    return tmp_path / "run"


def _page(tmp_path, **of_runs):
    write_report(tmp_path / "report.html", results(), analyses=of_runs)
    return re.sub(r"\s+", " ", (tmp_path / "report.html").read_text())


def test_the_report_has_the_figures_of_analysed_runs(workdir, tmp_path):
    found = analyses.read(workdir)
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
    path.write_text(path.read_text().replace("1380", "1200"))
    assert "are of another checkpoint, after 1,380 steps." in _page(tmp_path, attention_vmoe=analyses.read(workdir))


def test_runs_that_were_not_analysed_and_damaged_analyses(workdir, tmp_path, caplog):
    assert analyses.read(tmp_path) is None
    assert caplog.text == ""
    (workdir / "analysis" / "analysis.json").write_text('{"run": {"step"')
    assert analyses.read(workdir) is None
    assert f"(analyze it again: python -m vmoe_inform.analyze --workdir={workdir})" in caplog.text
    with pytest.raises(ValueError, match=r"analyses: expected names of runs with results: attention_vmoe, vmoe"):
        _page(tmp_path, other=analyses.Analysis(1, "clean", 2, "", {}))


@pytest.mark.parametrize(
    "name", ["analysis/figures/load.svg", "analysis/figures", "analysis/analysis.json", "analysis"]
)
def test_links_in_an_analysis_are_not_followed(workdir, tmp_path, name, caplog):
    path, elsewhere = workdir / name, tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    assert analyses.read(workdir) is None
    assert f"{path}: expected a" in caplog.text
    assert "received a symbolic link" in caplog.text
