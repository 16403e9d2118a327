"""The results of one or more runs as a table for the terminal and as one HTML file that needs nothing beside it.

``results`` is everywhere a mapping from run name to what ``evaluate`` writes into results.json::

    {"checkpoint_step": int, "config_hash": str, "model": {"parameters": int, "router": {...}, ...},
     "suites": {"clean": {"top1", "top5", "nll", "ece", "count", "skipped",
                          "reliability": {"confidence": [bins], "accuracy": [bins], "count": [bins]}},
                "c": {"mean_top1", "per_corruption": {name: [severities]}, "count", "generated"},
                "r": {"top1", "nll", "count"}, "a": {...}, "o": {"aupr", "count", "count_in_distribution"},
                "<suite without data>": {"not_available": "what to put where"}},
     "routing": {layer: {"entropy", "load": [E], "effective_neighbours", "dropped"}}}

Scores are shares between 0 and 1. ``count`` is the number of images that a figure is worked out from (of ``c`` each
counts once, however many corruptions it is shown under); ``<metric>_standard_error`` may stand beside a headline.
"""

import base64
import dataclasses
import io
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import matplotlib
import rich.box
import rich.table
import rich.text
from matplotlib.figure import Figure

from vmoe_inform import checks
from vmoe_inform.evaluation import figures
from vmoe_inform.evaluation.headlines import Headline, Results, headline, suite_kind, suites_of

# What else results.json says of a suite: key -> (words, unit)
_DETAILS = {
    "top1": ("top-1 accuracy", "%"),
    "top5": ("top-5 accuracy", "%"),
    "nll": ("negative log-likelihood", "nats"),
    "ece": ("expected calibration error", "%"),
    "count_in_distribution": ("images of known classes to tell them from", ""),
    "skipped": ("images left out because they could not be read", ""),
}


def render_table(results: Mapping[str, Results]) -> rich.table.Table:
    """Headlines for the terminal: one row for each suite, one column for each run; print it with a rich Console.

    Raises:
      ValueError: no results, or a suite without its headline.
    """
    _check(results)
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("suite")
    table.add_column("metric")
    table.add_column("images", justify="right")
    for run in results:
        table.add_column(rich.text.Text(run), justify="right")
    for row in _rows(results):
        cells = [cell if isinstance(cell, str) else _terminal_cell(cell) for cell in row.cells]
        table.add_row(*(rich.text.Text(cell) for cell in (row.short_title, row.key, row.count, *cells)))
    table.caption = "scores in %, in brackets the 95 % interval"
    return table


@dataclasses.dataclass(frozen=True)
class _Row:
    title: str
    short_title: str
    key: str
    metric: str
    count: str
    num_versions: int  # in which every image was shown; 1 but for C
    cells: list[Headline | str]  # a headline, or why there is none


def _terminal_cell(found: Headline) -> str:
    return f"{100 * found.value:.2f} [{100 * found.low:.1f}-{100 * found.high:.1f}]"


def _rows(results: Mapping[str, Results]) -> list[_Row]:
    rows = []
    for suite in suites_of(results):
        kind = suite_kind(suite)
        cells: list[Headline | str] = []
        counts, generated, num_versions = [], False, 1
        for result in results.values():
            if suite not in result["suites"]:
                cells.append("not evaluated")
                continue
            found = headline(suite, result["suites"][suite])
            if found is None:
                cells.append("not available")
                continue
            entry = result["suites"][suite]
            generated |= bool(entry.get("generated", False))
            num_versions = max(num_versions, sum(map(len, entry.get("per_corruption", {}).values())))
            counts.append(f"{found.count:,}")
            cells.append(found)
        label = " (generated)" if generated else ""
        count = " / ".join(dict.fromkeys(counts)) or "-"
        titles = (kind.title + label, kind.short_title + label, kind.metric, kind.metric_title)
        rows.append(_Row(*titles, count, num_versions, cells))
    return rows


def write_report(
    path: str | os.PathLike[str],
    results: Mapping[str, Results],
    *,
    examples: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> None:
    """Writes a self-contained HTML page: pictures and style inside, nothing fetched from anywhere.

    Args:
      path: the file; its directory is made if it does not exist.
      results: by run name; the first run is the one that the page is about, the others stand next to it.
      examples: by run name, images with what the run said of them, as :func:`figures.example_figure` takes them.

    Raises:
      ValueError: no results, a suite without its headline, or examples of a run without results.
    """
    _check(results)
    examples = examples or {}
    for run in examples:
        if run not in results:
            raise checks.error("examples", f"names of runs with results: {', '.join(results)}", run)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vmoe_inform.evaluation", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.jinja").render(
        runs=list(results),
        summary=_summary(results),
        rows=_rows(results),
        facts=_facts(results),
        details=_details(results),
        missing=_missing(results),
        generated=any(result["suites"].get("c", {}).get("generated", False) for result in results.values()),
        routing=[(run, layer, figures_) for run, r in results.items() for layer, figures_ in r["routing"].items()],
        pictures=_pictures(results),
        examples={run: _example_pictures(shown, results[run]) for run, shown in examples.items() if shown},
    )
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _check(results: Mapping[str, Results]) -> None:
    if not results:
        raise checks.error("results", "at least one run", dict(results))
    for run, result in results.items():
        for key in ("checkpoint_step", "config_hash", "model", "suites", "routing"):
            if key not in result:
                raise checks.error(f"results[{run!r}]", f"the key {key!r}", sorted(result))


def _summary(results: Mapping[str, Results]) -> list[str]:
    """One sentence for each run that was tested on clean images."""
    sentences = []
    for run, result in results.items():
        clean = result["suites"].get("clean", {})
        found = headline("clean", clean) if clean else None
        if found:
            right = round(found.value * found.count)
            sentences.append(f"{run} names {right:,} of {found.count:,} clean test images right.")
    return sentences


def _facts(results: Mapping[str, Results]) -> list[tuple[str, list[str]]]:
    """What each run is, as rows of a table: (name, one cell for each run)."""
    flat = [
        {
            "training steps of the checkpoint": result["checkpoint_step"],
            "hash of the configuration": result["config_hash"],
            **_flatten(result["model"]),
        }
        for result in results.values()
    ]
    names = dict.fromkeys(name for facts in flat for name in facts)
    return [(name.replace("_", " "), [_plain(facts.get(name, "-")) for facts in flat]) for name in names]


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found.update(_flatten(value, f"{prefix}{name}: ") if isinstance(value, Mapping) else {prefix + name: value})
    return found


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "none"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _details(results: Mapping[str, Results]) -> list[tuple[str, str, list[str]]]:
    """(suite, figure in words, one cell for each run) of what is not in the headlines."""
    rows = []
    for suite in suites_of(results):
        for key, (words, unit) in _DETAILS.items():
            values = [result["suites"].get(suite, {}).get(key) for result in results.values()]
            if key != suite_kind(suite).metric and any(value is not None for value in values):
                rows.append((suite_kind(suite).title, words, [_with_unit(value, unit) for value in values]))
    return rows


def _with_unit(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit == "%":
        return f"{100 * value:.2f} %"
    return f"{value:.4f} {unit}" if unit else f"{value:,}"


def _missing(results: Mapping[str, Results]) -> list[tuple[str, str]]:
    """(suite, what to put where), once however many runs lack it."""
    found = {
        (suite_kind(suite).title, str(result["suites"][suite]["not_available"])): None
        for suite in suites_of(results)
        for result in results.values()
        if "not_available" in result["suites"].get(suite, {})
    }
    return list(found)


def _pictures(results: Mapping[str, Results]) -> dict[str, Any]:
    """Image addresses by the name that the template knows them by; an empty value leaves its section out."""
    pictures: dict[str, Any] = {
        "headlines": "",
        "legend": _address(figures.legend_figure(list(results))),
        "corruptions": {n: _address(figure) for n, figure in figures.corruption_figures(results).items()},
        "reliability": "",
        "entropy": "",
        "load": {
            run: {layer: _address(figure) for layer, figure in figures.load_figures(result["routing"]).items()}
            for run, result in results.items()
            if result["routing"]
        },
    }
    if any(headline(suite, f) for result in results.values() for suite, f in result["suites"].items()):
        pictures["headlines"] = _address(figures.headline_figure(results))
    if any("reliability" in result["suites"].get("clean", {}) for result in results.values()):
        pictures["reliability"] = _address(figures.reliability_figure(results))
    if pictures["load"]:
        pictures["entropy"] = _address(figures.entropy_figure(results))
    return pictures


def _example_pictures(examples: Sequence[Mapping[str, Any]], result: Results) -> list[dict[str, str]]:
    num_experts = max((len(layer["load"]) for layer in result["routing"].values()), default=1)
    return [
        {
            "address": _address(figures.example_figure(example, num_experts=num_experts), image_format="png"),
            "words": f"An image of {example['label']}, taken for {example['prediction']}",
        }
        for example in examples
    ]


def _address(figure: Figure, *, image_format: str = "svg") -> str:
    """The picture itself as an address for ``<img src>``: SVG for lines, PNG for photographs.

    The same numbers give the same bytes: no date, and ids that are no random numbers.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "vmoe_inform"}):
        metadata: dict[str, Any] = {"Date": None} if image_format == "svg" else {}
        figure.savefig(buffer, format=image_format, dpi=160, metadata=metadata)
    kind = "svg+xml" if image_format == "svg" else image_format
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
