"""The results of one or more runs as a table for the terminal and as one self-contained HTML file.

``results`` is everywhere a mapping from run name to :class:`vmoe_inform.evaluation.results.Results`.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import rich.box
import rich.table
import rich.text
from matplotlib.figure import Figure

from vmoe_inform import checks, storage, text
from vmoe_inform.data.images import label_sets
from vmoe_inform.evaluation import earlier
from vmoe_inform.evaluation import suites as suites_lib
from vmoe_inform.evaluation.headlines import Estimate, headline, in_order, suites_of
from vmoe_inform.evaluation.rerouting import Rerouted
from vmoe_inform.evaluation.results import Results, SuiteResult, Unit
from vmoe_inform.evaluation.suites.c import GENERATED
from vmoe_inform.report import (
    compared,
    domains,
    entries,
    figures,
    other_routers,
    passages,
    routing_figures,
    scores,
    tables,
    templates,
)
from vmoe_inform.report.other_routers_figure import change_figure
from vmoe_inform.report.pictures import FigureKind, data_uri, encode

Example = Mapping[str, Any]  # as routing_figures.example_figure takes it


@dataclasses.dataclass(frozen=True)
class RouterFigures:
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


def render_table(results: Mapping[str, Results], *, since: str = "") -> rich.table.Table:
    """Scores for the terminal: one row for each, one column for each run; print it with a rich Console.

    Where a run is of a paper's model, a column has the paper's figures, in the order of the runs.

    Args:
      results: by run name.
      since: date and time as ``evaluated`` has it; the caption names the scores that are older, with their date and
        data.

    Raises:
      ValueError: no results.
    """
    _check(results)
    rows = scores.score_rows(results)
    has_paper = any(value is not None for row in rows for value in row.published)
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("suite")
    table.add_column("metric")
    counted = list(dict.fromkeys(row.counted for row in rows))
    table.add_column(counted[0] if len(counted) == 1 else "records", justify="right")
    for run in results:
        table.add_column(_words(run), justify="right", overflow="fold")
    if has_paper:
        table.add_column("paper", justify="right", overflow="fold")
    for row in rows:
        what = [row.short_title, row.key, row.count] if row.is_headline else [f"  {row.short_title}", "", ""]
        paper = [_published(row.published)] if has_paper else []
        table.add_row(*map(_words, [*what, *(_terminal_cell(cell, row.unit) for cell in row.cells), *paper]))
    table.caption = f"{_units(rows)}, in brackets the 95 % interval"
    for run, result in results.items():
        if result.model.allow_future:
            table.caption += f"; {_words(run)}: the router looks at later words, so this is no fair language model"
    if has_paper:
        table.caption += "; the report names the papers"
    before = earlier.shown_from_before(results, since)
    if before:
        lines = [str(table.caption), "shown from before:", *before]
        table.caption = rich.text.Text("\n".join(map(text.printable, lines)))
    return table


def _words(cell: str) -> rich.text.Text:
    """A name for the terminal: brackets are no markup, and nothing acts as a command."""
    return rich.text.Text(text.printable(cell))


def _published(values: Sequence[float | None]) -> str:
    shown = ["-" if value is None else f"{value:.2f}" for value in values]
    return " / ".join(shown) if any(value is not None for value in values) else ""


def _units(rows: Sequence[scores.ScoreRow]) -> str:
    """What the numbers are in, for a caption."""
    units = {row.unit for row in rows}
    if "perplexity" not in units:
        return "scores in %"
    return "perplexities, less is better" if units == {"perplexity"} else "scores in %, and perplexities"


def _terminal_cell(cell: Estimate | float | str, unit: Unit) -> str:
    if isinstance(cell, Estimate):
        low, high = (scores.shown(bound, unit, digits=1) for bound in (cell.low, cell.high))
        return f"{scores.shown(cell.value, unit)} [{low}-{high}]"
    return cell if isinstance(cell, str) else scores.shown(cell, unit)


def write_report(
    path: str | os.PathLike[str],
    results: Mapping[str, Results],
    *,
    examples: Mapping[str, Sequence[Example]] | None = None,
    analyses: Mapping[str, RouterFigures] | None = None,
    rerouted: Mapping[str, Sequence[Rerouted]] | None = None,
    since: str = "",
) -> None:
    """Writes a self-contained HTML page: pictures and style inside, nothing fetched from anywhere.

    Args:
      path: the file; its directory is made if it does not exist.
      results: by run name; the first run is the one that the page is about, the others stand next to it.
      examples: by run name, images with what the run said of them, as :func:`routing_figures.example_figure` takes
        them; shown wrong answers first.
      analyses: by run name, what was seen of the routers of those that were analysed.
      rerouted: by run name, evaluations with other routers.
      since: as for :func:`render_table`.

    Raises:
      ValueError: no results, or examples, an analysis or other routers of a run without results.
    """
    _check(results)
    examples, analyses, rerouted = examples or {}, analyses or {}, rerouted or {}
    for argument, runs in (("examples", examples), ("analyses", analyses), ("rerouted", rerouted)):
        for run in runs:
            if run not in results:
                raise checks.error(argument, f"names of runs with results: {', '.join(results)}", run)
    page = templates.render(
        "vmoe_inform.report",
        "report.html.jinja",
        runs=list(results),
        domain=domains.words_of(results),
        suites=suites_of(results),
        shown=scores.shown,
        looks_ahead=[run for run, result in results.items() if result.model.allow_future],
        summary=_summary(results),
        rows=scores.score_rows(results),
        paper_rows=compared.paper_rows(results),
        not_compared=compared.not_compared(results),
        mixed_origins=entries.mixed_origins(results),
        missing=tables.missing(results),
        before=earlier.shown_from_before(results, since),
        provenance=tables.provenance(results),
        corruption_rows=tables.corruption_rows(results),
        generated_runs=[run for run, r in results.items() if entries.origin({run: r}, "c") == GENERATED],
        corruption_origin=entries.origin(results, "c"),
        worst_classes={entries.title(results, s): by_run for s, by_run in tables.worst_classes(results).items()},
        details=tables.details(results),
        facts=tables.facts(results),
        routing=[(run, layer, figures_) for run, r in results.items() for layer, figures_ in r.routing.items()],
        pictures=_pictures(results),
        analyses={run: (analysis, results[run].checkpoint_step) for run, analysis in analyses.items()},
        other_routers={run: _other_routers(results[run], of) for run, of in rerouted.items() if of},
        examples={run: _example_pictures(of, results[run]) for run, of in examples.items() if _is_of(of, "image")},
        passages={run: _passages(of, results[run]) for run, of in examples.items() if _is_of(of, "token")},
    )
    storage.write_text(storage.path("path", path), page)


def _other_routers(results: Results, rerouted: Sequence[Rerouted]) -> dict[str, Any]:
    """What the template shows of a run with other routers."""
    by_unit = other_routers.headline_changes(results, rerouted)
    return {
        "names": other_routers.names_of(rerouted),
        "metrics": other_routers.metric_rows(results, rerouted),
        "num_compared": sum(len(by_router) for suites in by_unit.values() for by_router in suites.values()),
        "pictures": [_address(change_figure(results, rerouted, unit=unit)) for unit in by_unit],
    }


def _check(results: Mapping[str, Results]) -> None:
    if not results:
        raise checks.error("results", "at least one run", dict(results))


def _summary(results: Mapping[str, Results]) -> list[str]:
    """The sentences that suites have for their headlines, run by run."""
    return [
        sentence
        for run, result in results.items()
        for suite in in_order(result.suites)
        if (sentence := _sentence(run, suite, result.suites[suite]))
    ]


def _sentence(run: str, suite: str, result: SuiteResult) -> str:
    found = headline(result)
    return suites_lib.kind(suite).sentence.format(
        run=run,
        count=f"{found.count:,}",
        counted=result.counted,
        value=scores.shown(found.value, found.unit, digits=0),
        right=f"{round(found.value * found.count):,}",
    )


def _pictures(results: Mapping[str, Results]) -> dict[str, Any]:
    """Image addresses by the name that the template knows them by; an empty value leaves its section out."""
    pictures: dict[str, Any] = {
        "headlines": "",
        "perplexities": "",
        "swaps": {n: _address(figure) for n, figure in figures.swap_figures(results).items()},
        "legend": _address(figures.legend_figure(list(results))),
        "corruptions": {n: _address(figure) for n, figure in figures.corruption_figures(results).items()},
        "reliability": "",
        "risk_coverage": {s: _address(figure) for s, figure in figures.risk_coverage_figures(results).items()},
        "entropy": "",
        "load": {
            run: {name: _address(figure) for name, figure in routing_figures.load_figures(result.routing).items()}
            for run, result in results.items()
            if result.routing
        },
    }
    if figures.suites_in("share", results):
        pictures["headlines"] = _address(figures.headline_figure(results))
    if figures.suites_in("perplexity", results):
        pictures["perplexities"] = _address(figures.headline_figure(results, unit="perplexity"))
    if figures.reliability_diagrams(results):
        pictures["reliability"] = _address(figures.reliability_figure(results))
    if pictures["load"]:
        pictures["entropy"] = _address(routing_figures.entropy_figure(results))
    return pictures


def _is_of(examples: Sequence[Example], kind: str) -> bool:
    return bool(examples) and kind in examples[0]


def _passages(examples: Sequence[Example], result: Results) -> list[passages.Passage]:
    """Wrong answers first."""
    num_experts = max((len(layer.load) for layer in result.routing.values()), default=1)
    found = [passages.passage(example, num_experts=num_experts) for example in examples]
    return sorted(found, key=lambda passage: not passage.is_wrong)


def _example_pictures(examples: Sequence[Example], result: Results) -> list[dict[str, Any]]:
    """Wrong answers first; ``width`` in CSS pixels, so that the letters of all pictures are of one size."""
    num_experts = max((len(layer.load) for layer in result.routing.values()), default=1)
    pictures = []
    for example in sorted(examples, key=lambda example: example["prediction"] == example["label"]):
        label, prediction = example["label"], example["prediction"]
        figure = routing_figures.example_figure(example, num_experts=num_experts)
        pictures.append(
            {
                "address": _address(figure, kind="png"),
                "width": round(96 * figure.get_figwidth()),
                "wrong": prediction != label,
                "words": f"An image of {_class(label)}, "
                + ("named right" if prediction == label else f"taken for {_class(prediction)}"),
                "has_titles": label_sets.title(label) != label,
            }
        )
    return pictures


def _class(name: str) -> str:
    words = label_sets.title(name)
    return name if words == name else f"{words} ({name})"


def _address(figure: Figure, *, kind: FigureKind = "svg") -> str:
    return data_uri(encode(figure, kind), kind)
