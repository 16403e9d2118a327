"""Writes an analysis into the folder of its run."""

import pathlib
import shutil

import matplotlib
from matplotlib.figure import Figure

from vmoe_inform import storage
from vmoe_inform.analysis import document
from vmoe_inform.analysis.collect.tables import Table
from vmoe_inform.analysis.draw import figures
from vmoe_inform.report.analyses import FIGURES, FOLDER, PAGE, TABLES


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
    storage.write_json(folder / TABLES, document.rounded(found), within=workdir, indent=None)
    storage.write_text(folder / PAGE, page, within=workdir)
    _write_figures(folder / FIGURES, figures.figures(found), within=workdir)
    return [folder / name for name in (TABLES, PAGE, FIGURES)]


def _write_figures(folder: pathlib.Path, drawn: dict[str, Figure], *, within: pathlib.Path) -> None:
    """Each as PNG and SVG; the same numbers give the same bytes: no date, and no random ids."""
    storage.check_folders(folder, within)
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier analysis, which may have had others
    for name, figure in drawn.items():
        for kind in ("png", "svg"):
            with (
                matplotlib.rc_context({"svg.hashsalt": "vmoe_inform"}),
                storage.replacing(folder / f"{name}.{kind}", within=within) as file,
            ):
                figure.savefig(file, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else {})
