"""The report's other tables as data: each corruption, worst classes, further figures, what was evaluated."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vmoe_inform.data.images import label_sets
from vmoe_inform.evaluation import earlier
from vmoe_inform.evaluation import suites as suites_lib
from vmoe_inform.evaluation.headlines import Results, suites_of
from vmoe_inform.evaluation.metric_registry import Metric
from vmoe_inform.report.scores import entries_of, title

# Of every suite.
_SKIPPED = Metric("skipped", "images left out because they could not be read", unit="images")


@dataclass(frozen=True)
class WorstClass:
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
    by_run = {run: entries_of(results, "c").get(run, {}).get("per_corruption", {}) for run in results}
    names = dict.fromkeys(name for scores in by_run.values() for name in scores)
    return [
        (
            name.replace("_", " "),
            [f"{100 * np.mean(scores[name]):.2f}" if name in scores else "-" for scores in by_run.values()],
        )
        for name in names
    ]


def worst_classes(results: Mapping[str, Results]) -> dict[str, dict[str, list[WorstClass]]]:
    """The classes with the lowest accuracy, by suite and run; suites and runs that give none are left out."""
    found = {
        suite: {
            run: [_worst_class(c) for c in entry["worst_classes"]]
            for run, entry in entries_of(results, suite).items()
            if entry.get("worst_classes")
        }
        for suite in suites_of(results)
    }
    return {suite: by_run for suite, by_run in found.items() if by_run}


def _worst_class(given: Mapping[str, Any]) -> WorstClass:
    name = str(given["class"])
    words = str(given.get("title", label_sets.title(name)))
    return WorstClass(words, "" if words == name else name, float(given["top1"]), int(given["count"]))


def facts(results: Mapping[str, Results]) -> list[tuple[str, list[str]]]:
    """What each run is: (name, one cell for each run)."""
    flat = [
        {
            "training steps of the checkpoint": result["checkpoint_step"],
            **({"seed": result["seed"]} if "seed" in result else {}),
            "hash of the configuration": result["config_hash"],
            **_flatten(result.get("data", {}), "data: "),
            **_flatten(result["model"]),
        }
        for result in results.values()
    ]
    names = dict.fromkeys(name for of_run in flat for name in of_run)
    return [(name.replace("_", " "), [_plain(of_run.get(name, "-")) for of_run in flat]) for name in names]


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found.update(_flatten(value, f"{prefix}{name}: ") if isinstance(value, Mapping) else {prefix + name: value})
    return found


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
        for metric in (*suites_lib.kind(suite).details, _SKIPPED):
            values = {run: entry.get(metric.name) for run, entry in entries.items()}
            # That no image was skipped, as is usual, needs no row.
            if any(value if metric is _SKIPPED else value is not None for value in values.values()):
                cells = [_with_unit(values.get(run), metric) for run in results]
                rows.append((title(results, suite), metric.title, cells))
    return rows


def _with_unit(value: float | None, metric: Metric) -> str:
    if value is None:
        return "-"
    if metric.unit == "images":
        return f"{value:,}"
    return f"{value:.4f} nats" if metric.unit == "nats" else f"{100 * value:.2f} %"


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
        (suites_lib.kind(suite).title, str(result["suites"][suite]["not_available"])): None
        for suite in suites_of(results)
        for result in results.values()
        if "not_available" in result["suites"].get(suite, {})
    }
    return list(found)
