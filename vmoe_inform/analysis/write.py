"""Writes an analysis into the folder of its run."""

import json
import pathlib
import shutil

import matplotlib
from matplotlib.figure import Figure

from vmoe_inform.analysis import document, figures
from vmoe_inform.analysis.tables import Table
from vmoe_inform.evaluation.analyses import FIGURES, FOLDER, PAGE, TABLES


def write(workdir: pathlib.Path, found: Table, page: str) -> list[pathlib.Path]:
    """Writes tables, figures and page, in place of an earlier analysis of the run.

    Args:
      workdir: of the run.
      found: what analysis.json shall hold.
      page: the HTML page.

    Returns:
      what was written: files, and the folder of the figures.
    """
    folder = workdir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    _write_whole(folder / TABLES, json.dumps(document.rounded(found), allow_nan=False) + "\n")
    _write_whole(folder / PAGE, page)
    _write_figures(folder / FIGURES, figures.figures(found))
    return [folder / name for name in (TABLES, PAGE, FIGURES)]


def _write_figures(folder: pathlib.Path, drawn: dict[str, Figure]) -> None:
    """Each as PNG and SVG; the same numbers give the same bytes: no date, and no random ids."""
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier analysis, which may have had others
    folder.mkdir()
    for name, figure in drawn.items():
        for kind in ("png", "svg"):
            path = folder / f"{name}.{kind}"
            with matplotlib.rc_context({"svg.hashsalt": "vmoe_inform"}):
                figure.savefig(path, dpi=160, metadata={"Date": None} if kind == "svg" else {})


def _write_whole(path: pathlib.Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.rename(path)
