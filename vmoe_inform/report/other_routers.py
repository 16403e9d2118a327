"""Trained models with other routers, compared with their own: what tables of the terminal and of the page show."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from vmoe_inform.evaluation import suites as suites_lib
from vmoe_inform.evaluation.headlines import in_order
from vmoe_inform.evaluation.metric_registry import METRICS, NLL
from vmoe_inform.evaluation.paired import Difference
from vmoe_inform.evaluation.rerouting import Rerouted
from vmoe_inform.evaluation.results import LayerRouting, Results, Unit
from vmoe_inform.report import entries, scores
from vmoe_inform.runs import router_settings

_AS_TRAINED = "as trained"
_SMALLEST_P = 0.001  # that is shown by its number


@dataclasses.dataclass(frozen=True)
class RouterRow:
    """A metric with one router.

    Attributes:
      router: in words.
      score: the metric, in its unit.
      change: to the router as trained, with its 95 % interval; empty for that itself.
      records: how many only this router, and only the one as trained, gets right; empty for other metrics.
      p_value: in words; empty where there is no test.
      is_clear: whether the interval excludes no change.
    """

    router: str
    score: str
    change: str = ""
    records: str = ""
    p_value: str = ""
    is_clear: bool = False


@dataclasses.dataclass(frozen=True)
class MetricRows:
    """A metric with all routers, that as trained first.

    Attributes:
      title: of the suite; empty for what is of no suite.
      metric: in words, with its unit.
      count: of records, in words.
      is_headline: of the suite.
      is_likelihood: whether it is the negative log-likelihood, which changes where no answer does.
      rows: one for each router.
    """

    title: str
    metric: str
    count: str
    is_headline: bool
    is_likelihood: bool
    rows: tuple[RouterRow, ...]


@dataclasses.dataclass(frozen=True)
class Names:
    """Short names of routers, of which no two are the same.

    Attributes:
      routers: the settings in which they differ; where it is one, its values.
      heading: of a column of them.
      shared: the settings that all have, in words; may be empty.
    """

    routers: tuple[str, ...]
    heading: str
    shared: str


def metric_rows(results: Results, rerouted: Sequence[Rerouted]) -> list[MetricRows]:
    """All metrics that are compared, by suite, the headline first; then what the routers do."""
    labels = names_of(rerouted).routers
    found = []
    for suite in _suites(rerouted):
        for name in dict.fromkeys(n for each in rerouted for n in _metrics(each, suite)):
            by_router = {
                label: _metrics(each, suite)[name]
                for label, each in zip(labels, rerouted, strict=True)
                if name in _metrics(each, suite)
            }
            found.append(_rows_of_metric(results, suite, name, by_router))
    mixed = [_mixed(of.routing) for of in (results, *(each.results for each in rerouted))]
    found.append(
        MetricRows(
            "",
            "tokens that each token averages, itself included, mean over the layers",
            "",
            is_headline=True,
            is_likelihood=False,
            rows=tuple(RouterRow(*pair) for pair in zip((_AS_TRAINED, *labels), mixed, strict=True)),
        )
    )
    return found


def _suites(rerouted: Sequence[Rerouted]) -> list[str]:
    return in_order(suite for each in rerouted for suite in each.comparison.suites)


def _metrics(rerouted: Rerouted, suite: str) -> Mapping[str, Difference]:
    compared = rerouted.comparison.suites.get(suite)
    return {} if compared is None else compared.metrics


def _rows_of_metric(results: Results, suite: str, name: str, by_router: Mapping[str, Difference]) -> MetricRows:
    first = next(iter(by_router.values()))
    kind = suites_lib.kind(suite)
    known = {metric.name: metric for metric in (*map(METRICS.__getitem__, METRICS), *kind.details, *kind.rows)}
    metric = {**known, kind.metric.name: kind.metric}.get(name)
    words = (
        name.replace("_", " ") if metric is None else metric.title.format(classes=entries.num_classes({"": results}))
    )
    unit = {"share": " in %", "ratio": " in %", "nats": " in nats"}.get(first.unit, "")
    direction = ", less is better" if first.less_is_better and "less is better" not in words else ""
    records = "windows" if first.unit == "perplexity" else results.suites[suite].counted or "images"
    return MetricRows(
        title=entries.title({"": results}, suite, short=True),
        metric=f"{words}{unit}{direction}",
        count=f"{first.count:,} {records}",
        is_headline=name == results.suites[suite].headline,
        is_likelihood=name == NLL.name,
        rows=(
            RouterRow(_AS_TRAINED, _number(first.before, first.unit)),
            *(_row(label, found) for label, found in by_router.items()),
        ),
    )


def _row(label: str, found: Difference) -> RouterRow:
    digits = _digits_of_change(found)
    low, high, change = (_signed(_number(value, found.unit, digits)) for value in (found.low, found.high, found.value))
    return RouterRow(
        router=label,
        score=_number(found.after, found.unit),
        change=f"{change} [{low}, {high}]",
        records="" if found.gained is None else f"{found.gained:,}/{found.lost:,}",
        p_value="" if found.p_value is None else _p_value(found.p_value),
        is_clear=not found.low <= 0 <= found.high,
    )


def _number(value: float, unit: Unit, more_digits: int = 0) -> str:
    return scores.shown(value, unit, digits=(4 if unit in ("nats", "number") else 2) + more_digits)


def _digits_of_change(found: Difference) -> int:
    """How many digits more than usual it takes to tell both ends of the interval from 0; at most three, else none."""
    ends = [abs(end) for end in (found.low, found.high) if end != 0]
    for digits in range(4):
        if all(float(_number(end, found.unit, digits).replace(",", "")) for end in ends):
            return digits
    return 0


def _signed(number: str) -> str:
    if float(number.replace(",", "")) == 0:
        return number.removeprefix("-")
    return number if number.startswith("-") else f"+{number}"


def _p_value(value: float) -> str:
    return f"< {_SMALLEST_P:g}" if value < _SMALLEST_P else f"{value:.3f}"


def _mixed(routing: Mapping[str, LayerRouting]) -> str:
    found = [layer.effective_neighbours for layer in routing.values() if layer.effective_neighbours is not None]
    return f"{np.mean(found):.2f}" if found else "-"


def names_of(rerouted: Sequence[Rerouted]) -> Names:
    """Short names of routers, of which there is at least one."""
    settings = [each.settings for each in rerouted]
    shared = {
        field: value
        for field, value in settings[0].items()
        if len(settings) > 1 and all(field in other and other[field] == value for other in settings)
    }
    own = [{field: value for field, value in each.items() if field not in shared} for each in settings]
    varied = {field for each in own for field in each}
    if len(varied) == 1 and all(own) and shared:
        field = varied.pop()
        values = tuple(router_settings.shown(each[field]) for each in own)
        return Names(values, router_settings.short(field), router_settings.label(shared))
    labels = tuple(map(router_settings.label, own if all(own) else settings))
    return Names(labels, "router", router_settings.label(shared))


def headline_changes(results: Results, rerouted: Sequence[Rerouted]) -> dict[Unit, dict[str, dict[str, Difference]]]:
    """The headlines' changes by unit, suite and router."""
    labels = names_of(rerouted).routers
    found: dict[Unit, dict[str, dict[str, Difference]]] = {}
    for suite in _suites(rerouted):
        for label, each in zip(labels, rerouted, strict=True):
            change = _metrics(each, suite).get(results.suites[suite].headline)
            if change is not None:
                found.setdefault(change.unit, {}).setdefault(suite, {})[label] = change
    return found
