"""An analysis in the folder of its run: analysis.json, the figures, and the page of single records."""

import dataclasses
import functools
import shlex
from collections.abc import Callable, Mapping
from typing import Any, get_args

from absl import logging
from matplotlib.figure import Figure

from vmoe_inform import checks, documents, storage
from vmoe_inform.analysis.draw.catalogue import figures
from vmoe_inform.analysis.results import VERSION, Analysis, OtherLayer
from vmoe_inform.report.page import RouterFigures
from vmoe_inform.report.pictures import FigureKind, data_uri, encode

FOLDER = "analysis"
DOCUMENT = "analysis.json"
FIGURES = "figures"
PAGE = "routing.html"
_MOST_FIGURE_BYTES = 1 << 26


def write(workdir: storage.Path, analysis: Analysis, page: str) -> list[storage.Path]:
    """Writes document, figures and page, in place of an earlier analysis of the run.

    Args:
      workdir: of the run.
      analysis: what analysis.json shall hold.
      page: the HTML page.

    Returns:
      what was written: files, and the folder of the figures.
    """
    folder = workdir / FOLDER
    # Six digits of each number are more than are known, and a third of the file.
    storage.write_json(folder / DOCUMENT, _rounded(documents.to_json(analysis)), within=workdir, indent=None)
    storage.write_text(folder / PAGE, page, within=workdir)
    _write_figures(folder / FIGURES, figures(analysis), within=workdir)
    return [folder / name for name in (DOCUMENT, PAGE, FIGURES)]


def read(workdir: storage.Path) -> Analysis:
    """The analysis.json of a run, written by this version of the library or an earlier one.

    Raises:
      FileNotFoundError: the run was not analysed.
      DamagedFileError, InputError, OSError: as :func:`vmoe_inform.documents.read`.
    """
    return documents.read(workdir / FOLDER / DOCUMENT, _VERSIONS, within=workdir)


def for_report(workdir: storage.Path) -> RouterFigures | None:
    """The figures of a run's analysis; None if there is none, or, with a warning and its remedy, if it is damaged."""
    folder = workdir / FOLDER
    try:
        run = read(workdir).run
        paths = storage.matching(folder / FIGURES, "*.svg", within=workdir)
        pictures = {
            path.stem.replace("_", " "): data_uri(
                storage.read_bytes(path, most_bytes=_MOST_FIGURE_BYTES, within=workdir), "svg"
            )
            for path in paths
        }
    except FileNotFoundError:
        return None
    except checks.InputError as problem:
        remedy = f"python -m vmoe_inform.analyze --workdir={shlex.quote(str(workdir))}"
        logging.warning("the analysis of %s is left out: %s (analyze it again: %s)", workdir, problem, remedy)
        return None
    return RouterFigures(run.step, run.suite, run.count, str(folder / PAGE), pictures)


def _write_figures(folder: storage.Path, drawn: dict[str, Figure], *, within: storage.Path) -> None:
    """Each as PNG and SVG."""
    storage.check_folders(folder, within)
    storage.remove(folder)  # of an earlier analysis, which may have had others
    for name, figure in drawn.items():
        for kind in get_args(FigureKind):
            storage.write_bytes(folder / f"{name}.{kind}", encode(figure, kind), within=within)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


# ---------------------------------------------------------------------------------------------------- earlier versions


@dataclasses.dataclass(frozen=True)
class _RunFacts2:
    top1: checks.Share


@dataclasses.dataclass(frozen=True)
class _OtherRun2:
    run: _RunFacts2


@dataclasses.dataclass(frozen=True)
class _Analysis2:
    """Of images, whose score is their top-1."""

    run: _RunFacts2
    against: _OtherRun2 | None


def _from_version_2(value: Any) -> Analysis:
    scores = documents.from_json(value, _Analysis2)

    def with_score(run: dict[str, Any], score: checks.Share) -> dict[str, Any]:
        return {**run, "unit": "images", "metric": "top1", "score": score}

    against = value["against"]
    if scores.against is not None:
        against = {**against, "run": with_score(against["run"], scores.against.run.top1)}
    run = with_score(value["run"], scores.run.top1)
    return documents.from_json({**value, "run": run, "against": against, "version": VERSION}, Analysis)


@dataclasses.dataclass(frozen=True)
class _OtherLayer1:
    entropy_ratio: float | None
    other_entropy: float
    other_load_cv: float


@dataclasses.dataclass(frozen=True)
class _OtherRun1:
    run: _RunFacts2
    layers: Mapping[str, _OtherLayer1]


@dataclasses.dataclass(frozen=True)
class _Analysis1:
    """Without load and fluctuation of the other run, whose numbers had names of their own."""

    against: _OtherRun1 | None


def _from_version_1(value: Any) -> Analysis:
    against = documents.from_json(value, _Analysis1).against
    if against is None:
        return _from_version_2(value)
    layers = {
        block: documents.to_json(OtherLayer(layer.entropy_ratio, layer.other_entropy, layer.other_load_cv))
        for block, layer in against.layers.items()
    }
    return _from_version_2({**value, "against": {**value["against"], "layers": layers}})


_VERSIONS: Mapping[int, Callable[[Any], Analysis]] = {
    1: _from_version_1,
    2: _from_version_2,
    VERSION: functools.partial(documents.from_json, kind=Analysis),
}
