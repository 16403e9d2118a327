"""What ``python -m vmoe_inform.analyze`` left in the folder of a run, for the report."""

import base64
import dataclasses
import json
import pathlib
from collections.abc import Mapping

from vmoe_inform import checks

FOLDER = "analysis"
TABLES = "analysis.json"
FIGURES = "figures"
PAGE = "routing.html"


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


def read(workdir: pathlib.Path) -> Analysis | None:
    """The analysis of a run; None if there is none.

    Raises:
      ValueError: its tables are damaged.
    """
    folder = workdir / FOLDER
    path = folder / TABLES
    if not path.is_file():
        return None
    try:
        run = json.loads(path.read_text())["run"]
        figures = sorted((folder / FIGURES).glob("*.svg"))
        pictures = {figure.stem.replace("_", " "): _address(figure.read_bytes()) for figure in figures}
        return Analysis(run["step"], run["suite"], run["count"], str(folder / PAGE), pictures)
    except (ValueError, KeyError, TypeError) as problem:
        raise checks.error(str(path), f"what vmoe_inform.analyze writes ({problem})", "something else") from None


def _address(picture: bytes) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(picture).decode('ascii')}"
