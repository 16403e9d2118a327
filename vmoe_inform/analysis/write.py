"""Writes an analysis into the folder of its run."""

import pathlib
import shutil
from typing import get_args

from matplotlib.figure import Figure

from vmoe_inform import storage
from vmoe_inform.analysis import document
from vmoe_inform.analysis.collect.tables import Table
from vmoe_inform.analysis.draw.catalogue import figures
from vmoe_inform.report.analyses import FIGURES, FOLDER, PAGE, TABLES
from vmoe_inform.report.pictures import FigureKind, encode


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
    _write_figures(folder / FIGURES, figures(found), within=workdir)
    return [folder / name for name in (TABLES, PAGE, FIGURES)]


def _write_figures(folder: pathlib.Path, drawn: dict[str, Figure], *, within: pathlib.Path) -> None:
    """Each as PNG and SVG."""
    storage.check_folders(folder, within)
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier analysis, which may have had others
    for name, figure in drawn.items():
        for kind in get_args(FigureKind):
            storage.write_bytes(folder / f"{name}.{kind}", encode(figure, kind), within=within)
