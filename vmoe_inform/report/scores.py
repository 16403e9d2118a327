"""Rows of scores for terminal and page: the headline of every suite, and its other metrics."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vmoe_inform.evaluation import suites as suites_lib
from vmoe_inform.evaluation.headlines import Estimate, headline, suites_of, with_interval
from vmoe_inform.evaluation.metric_registry import Metric
from vmoe_inform.evaluation.results import SHARE, Results, SuiteResult, Unit
from vmoe_inform.report import compared
from vmoe_inform.report.entries import entries_of, num_classes, title

NOT_EVALUATED = "not evaluated"
NOT_AVAILABLE = "not available"
_MANY = 1e6  # a perplexity whose digits say nothing


@dataclasses.dataclass(frozen=True)
class ScoreRow:
    """One score of one suite.

    Attributes:
      suite: its name in results.json.
      title, short_title: what the row is of, the origin of the images included.
      key: of the score in results.json.
      metric: the score in words.
      count: of records, ``"200 / 199"`` where the runs differ, ``"-"`` where no run has any.
      counted: what these are, in the plural.
      num_versions: in which every image was shown; 1 but for C.
      remark: over how many classes, under which attack, how a text was read; may be empty.
      is_headline: False for the rows below a suite's headline.
      less_is_better: as for errors.
      unit: of the score.
      cells: one for each run: a score, or why there is none.
      published: one for each run: the paper's figure as :func:`shown` shows it, a share in %, or None.
    """

    suite: str
    title: str
    short_title: str
    key: str
    metric: str
    count: str
    counted: str
    num_versions: int
    remark: str
    is_headline: bool
    less_is_better: bool
    unit: Unit
    cells: tuple[Estimate | float | str, ...]
    published: tuple[float | None, ...]


def score_rows(results: Mapping[str, Results]) -> list[ScoreRow]:
    """The headline of every suite, and below it the suite's other scores.

    Raises:
      ValueError: a suite without its headline.
    """
    return [row for suite in suites_of(results) for row in _rows_of(results, suite)]


def _rows_of(results: Mapping[str, Results], suite: str) -> Iterator[ScoreRow]:
    kind, entries = suites_lib.kind(suite), entries_of(results, suite)
    counts = " / ".join(dict.fromkeys(f"{entry.count:,}" for entry in entries.values()))
    shared: dict[str, Any] = {
        "suite": suite,
        "count": counts or "-",
        "counted": " / ".join(dict.fromkeys(entry.counted or "images" for entry in entries.values())) or "images",
        "num_versions": max((sum(map(len, e.per_corruption.values())) for e in entries.values()), default=1) or 1,
    }
    # Of a suite of a plug-in that is not loaded here, only the results say which metric its headline is.
    key = next((entry.headline for entry in entries.values()), kind.metric.name)
    scale = next((entry.scale or SHARE for entry in entries.values()), kind.metric.scale or SHARE)
    remarks = " / ".join(filter(None, dict.fromkeys(map(_remark, entries.values()))))
    yield ScoreRow(
        title=title(results, suite),
        short_title=title(results, suite, short=True),
        key=key,
        metric=kind.metric.title if key == kind.metric.name else key.replace("_", " "),
        remark="; ".join(filter(None, (remarks, *_looking_ahead(results, entries)))),
        is_headline=True,
        less_is_better=scale.less_is_better,
        unit=scale.unit,
        cells=tuple(_headline_cell(result, suite) for result in results.values()),
        published=tuple(compared.published(result, suite) for result in results.values()),
        **shared,
    )
    nothing = tuple(None for _ in results)
    below = {"title": kind.title, "remark": "", "is_headline": False, "published": nothing, **shared}
    for metric in kind.rows:
        if any(metric.name in entry.metrics for entry in entries.values()):
            yield ScoreRow(
                short_title=metric.short_title or metric.title,
                key=metric.name,
                metric=metric.title.format(classes=num_classes(results)),
                less_is_better=metric.less_is_better,
                unit=metric.unit,
                cells=tuple(_other_cell(entries.get(run), metric) for run in results),
                **below,
            )
    # The most shots are the headline.
    all_shots = sorted({int(shots) for entry in entries.values() for shots in entry.top1_by_shots})
    for shots in map(str, all_shots[:-1]):
        yield ScoreRow(
            short_title=f"{shots} a class",
            key="top1",
            metric=f"from {shots} training {'image' if shots == '1' else 'images'} of each class",
            less_is_better=False,
            unit="share",
            cells=tuple(_shots_cell(entries.get(run), shots) for run in results),
            **below,
        )
    yield from (
        ScoreRow(
            short_title=f"{100 * share:.3g} %{_VARIANTS[variant][0]}",
            key=key,
            metric=f"{100 * share:.3g} % of each line's words swapped{_VARIANTS[variant][1]}",
            less_is_better=True,
            unit="perplexity",
            cells=tuple(_swapped_cell(entries.get(run), variant, share) for run in results),
            **below,
        )
        for variant, share in _other_swaps(entries)
    )


# What the rows of a variant of word_swap say, short and long.
_VARIANTS = {"text": ("", ""), "inputs": (", inputs only", ", in the inputs only")}


def _other_swaps(entries: Mapping[str, SuiteResult]) -> list[tuple[str, float]]:
    """(variant, share) of what has no metric of its own: all but the text as it is, and the smallest share."""
    return [
        (variant, share)
        for variant in _VARIANTS
        for share in sorted({x for e in entries.values() if variant in e.swapped for x in e.swapped[variant].share[2:]})
    ]


def _swapped_cell(entry: SuiteResult | None, variant: str, share: float) -> float | str:
    curve = None if entry is None else entry.swapped.get(variant)
    return "-" if curve is None or share not in curve.share else curve.perplexity[curve.share.index(share)]


def _headline_cell(result: Results, suite: str) -> Estimate | str:
    if suite in result.suites:
        return headline(result.suites[suite])
    return NOT_AVAILABLE if suite in result.missing else NOT_EVALUATED


def _other_cell(entry: SuiteResult | None, metric: Metric) -> Estimate | float | str:
    if entry is None or metric.name not in entry.metrics:
        return "-"
    has_interval = metric.unit == "share" or metric.name in entry.standard_errors
    return with_interval(entry, metric.name, metric.unit) if has_interval else entry.metrics[metric.name]


def _shots_cell(entry: SuiteResult | None, shots: str) -> Estimate | str:
    if entry is None or shots not in entry.top1_by_shots:
        return "-"
    # The standard error is that of the most shots.
    same_images = dataclasses.replace(entry, metrics={entry.headline: entry.top1_by_shots[shots]})
    return headline(same_images)


def _looking_ahead(results: Mapping[str, Results], runs: Iterable[str]) -> list[str]:
    return [f"the router of {run} looks at later words" for run in runs if results[run].model.allow_future]


def _remark(entry: SuiteResult) -> str:
    words = []
    if entry.swapped:
        curve = entry.swapped["text"]
        words.append(f"{100 * curve.share[1]:.3g} % of each line's words swapped, at least one")
        words.append(f"{100 * curve.swapped[1]:.1f} % of all")
    if entry.classes is not None:
        words.append(f"over {entry.classes:,} classes")
    if entry.attack is not None:
        steps = "1 step" if entry.attack.num_steps == 1 else f"{entry.attack.num_steps} steps"
        words += [f"pixels changed by up to {entry.attack.epsilon:.3g}/255", f"{entry.attack.loss} loss", steps]
    if entry.seed is not None:
        words.append(f"seed {entry.seed}")
    if entry.streams is not None:
        words.append("read as one stream" if entry.streams == 1 else f"read as {entry.streams} streams side by side")
    if entry.top1_by_shots:
        words.append(f"from {max(map(int, entry.top1_by_shots))} training images of each class")
    return ", ".join(words)


def shown(value: float, unit: Unit, *, digits: int = 2) -> str:
    """A score in its unit: a share in %."""
    if unit in ("share", "ratio"):
        return f"{100 * value:.{digits}f}"
    if unit == "perplexity" and value >= _MANY:
        return f"{value:.4g}"
    return f"{value:,.{digits}f}"
