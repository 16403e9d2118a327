"""What ``python -m vmoe_inform.analyze`` left in the folder of a run, for the report."""

import dataclasses
import pathlib
import shlex
from collections.abc import Mapping
from typing import TypedDict

from absl import logging

from vmoe_inform import checks, storage
from vmoe_inform.report.pictures import data_uri

FOLDER = "analysis"
TABLES = "analysis.json"
FIGURES = "figures"
PAGE = "routing.html"
_MOST_FIGURE_BYTES = 1 << 26


@dataclasses.dataclass(frozen=True)
class Analysis:
    """Figures of what a run's routers do.

    Attributes:
      step: of the checkpoint that was looked at.
      suite: what images it was shown.
      count: how many.
      page: where the page of single images is.
      pictures: by what they show, addresses for ``<img src>``.
    """

    step: int
    suite: str
    count: int
    page: str
    pictures: Mapping[str, str]


class _Run(TypedDict):
    step: checks.NonNegativeInt
    suite: str
    count: checks.NonNegativeInt


class _Tables(TypedDict):
    run: _Run


def read(workdir: pathlib.Path) -> Analysis | None:
    """The analysis of a run; None if there is none, or, with a warning that says what to do, if it is damaged."""
    folder = workdir / FOLDER
    try:
        run = storage.read_json(folder / TABLES, _Tables, within=workdir)["run"]
        figures = storage.files(folder / FIGURES, ".svg", within=workdir)
        pictures = {
            figure.stem.replace("_", " "): data_uri(
                storage.read_bytes(figure, most_bytes=_MOST_FIGURE_BYTES, within=workdir), "svg"
            )
            for figure in figures
        }
    except FileNotFoundError:
        return None
    except checks.InputError as problem:
        remedy = f"python -m vmoe_inform.analyze --workdir={shlex.quote(str(workdir))}"
        logging.warning("the analysis of %s is left out: %s (analyze it again: %s)", workdir, problem, remedy)
        return None
    return Analysis(run["step"], run["suite"], run["count"], str(folder / PAGE), pictures)
