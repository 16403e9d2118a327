"""The report's other tables as data: each corruption, worst classes, further figures, what was evaluated."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vmoe_inform import documents
from vmoe_inform.data.images import label_sets
from vmoe_inform.evaluation import earlier
from vmoe_inform.evaluation import results as results_lib
from vmoe_inform.evaluation import suites as suites_lib
from vmoe_inform.evaluation.headlines import suites_of
from vmoe_inform.evaluation.metric_registry import Metric
from vmoe_inform.evaluation.results import Results
from vmoe_inform.report.entries import entries_of, num_classes, per_corruption, title
from vmoe_inform.report.scores import shown

_SKIPPED = "{records} left out because they could not be read"


@dataclass(frozen=True)
class ShownClass:
    """A class that a run gets wrong most often.

    Attributes:
      title: in words.
      name: as the data set calls it; empty where that is the title.
      top1: share of its images that are named right.
      count: its images.
    """

    title: str
    name: str
    top1: float
    count: int


def corruption_rows(results: Mapping[str, Results]) -> list[tuple[str, list[str]]]:
    """(corruption, one cell for each run): top-1 accuracy in %, mean over the severities."""
    by_run = per_corruption(results)
    names = dict.fromkeys(name for scores in by_run.values() for name in scores)
    return [
        (
            name.replace("_", " "),
            [f"{100 * np.mean(scores[name]):.2f}" if name in scores else "-" for scores in by_run.values()],
        )
        for name in names
    ]


def worst_classes(results: Mapping[str, Results]) -> dict[str, dict[str, list[ShownClass]]]:
    """The classes with the lowest accuracy, by suite and run; suites and runs that give none are left out."""
    found = {
        suite: {
            run: [_worst_class(found) for found in entry.worst_classes]
            for run, entry in entries_of(results, suite).items()
            if entry.worst_classes
        }
        for suite in suites_of(results)
    }
    return {suite: by_run for suite, by_run in found.items() if by_run}


def _worst_class(found: results_lib.WorstClass) -> ShownClass:
    words = found.title or label_sets.title(found.name)
    return ShownClass(words, "" if words == found.name else found.name, found.top1, found.count)


def facts(results: Mapping[str, Results]) -> list[tuple[str, list[str]]]:
    """Facts of each run: (name, one cell for each run)."""
    flat = [
        {
            "training steps of the checkpoint": result.checkpoint_step,
            **({} if result.seed is None else {"seed": result.seed}),
            "hash of the configuration": result.config_hash,
            **_flatten(documents.to_json(result.data) or {}, "data: "),
            **_flatten(documents.to_json(result.model)),
        }
        for result in results.values()
    ]
    names = dict.fromkeys(name for of_run in flat for name in of_run)
    return [(name.replace("_", " "), [_plain(of_run.get(name, "-")) for of_run in flat]) for name in names]


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found.update(_flatten(value, f"{prefix}{name}: ") if isinstance(value, Mapping) else {prefix + name: value})
    return {name: value for name, value in found.items() if value is not None}


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "none"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def details(results: Mapping[str, Results]) -> list[tuple[str, str, list[str]]]:
    """(suite, figure in words, one cell for each run) of what has no row among the scores."""
    rows = []
    for suite in suites_of(results):
        entries = entries_of(results, suite)
        for metric in suites_lib.details(suite):
            values = {run: entry.metrics.get(metric.name) for run, entry in entries.items()}
            if any(value is not None for value in values.values()):
                cells = [_with_unit(values.get(run), metric) for run in results]
                words = metric.title.format(classes=num_classes(results))
                rows.append((title(results, suite), words, cells))
        if any(entry.skipped for entry in entries.values()):  # that none was, as is usual, needs no row
            cells = [f"{entries[run].skipped:,}" if run in entries else "-" for run in results]
            records = next(entry.counted or "images" for entry in entries.values())
            rows.append((title(results, suite), _SKIPPED.format(records=records), cells))
    return rows


def _with_unit(value: float | None, metric: Metric) -> str:
    if value is None:
        return "-"
    if metric.unit == "images":
        return f"{value:,.0f}"
    if metric.unit in ("share", "ratio"):
        return f"{100 * value:.2f} %"
    if metric.unit == "perplexity":
        return shown(value, metric.unit)
    return f"{value:.4f} {metric.unit.removeprefix('number')}".strip()


def provenance(results: Mapping[str, Results]) -> list[tuple[str, list[str]]]:
    """When each suite was evaluated, and on which images: (suite, one cell for each run)."""
    return [
        (
            title(results, suite),
            [
                earlier.words(entry) if (entry := entries_of(results, suite).get(run)) is not None else "-"
                for run in results
            ],
        )
        for suite in suites_of(results)
        if entries_of(results, suite)
    ]


def missing(results: Mapping[str, Results]) -> list[tuple[str, str]]:
    """(suite, what to put where), once however many runs lack it."""
    found = {
        (suites_lib.kind(suite).title, result.missing[suite].reason): None
        for suite in suites_of(results)
        for result in results.values()
        if suite in result.missing and suite not in result.suites
    }
    return list(found)
