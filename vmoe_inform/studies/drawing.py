"""The figures of a study: one row a router, and in each panel its paired difference from the router compared with.

Intervals are those of the differences (or ratios) themselves. A filled mark is one that survives Holm's correction for
all comparisons of its table. MoE layers differ in colour and marker.
"""

import dataclasses
import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vmoe_inform.evaluation import suites as suites_lib
from vmoe_inform.evaluation.metric_registry import Metric
from vmoe_inform.evaluation.suites import SuiteKind
from vmoe_inform.lettering import legend, plain, shown
from vmoe_inform.report.styles import GREY, empty_figure, series_styles
from vmoe_inform.studies.summary import ALL_LAYERS, LEVEL, Comparison, Interval, PairedInterval

Summary = Mapping[str, Mapping[str, Comparison]]

_LABEL_CHARACTERS = 30  # below a panel, so that it does not reach that of the next
_LEAST_ROOM, _MOST_ROOM = 0.25, 1.15  # on either side of the marks, in median half widths of the intervals


@dataclasses.dataclass(frozen=True)
class Panel:
    """One column of a figure.

    Attributes:
      title: above the axes.
      label: below the axes, by line.
      series: paired intervals by series (MoE layer) and router, in the panel's unit; without width where there is no
        uncertainty.
      equal_at: where a router lies that does not differ.
      is_exact: whether the figures are the same for every seed by construction.
    """

    title: str
    label: Sequence[str]
    series: Mapping[str, Mapping[str, PairedInterval]]
    equal_at: float = 0.0
    is_exact: bool = False


@dataclasses.dataclass(frozen=True)
class ShownUnit:
    """How numbers of a unit are shown.

    Attributes:
      scale: they are multiplied by it.
      form: format of the result.
      name: behind the name of what is measured; empty where that says it.
      of_differences: name of the unit of differences.
    """

    scale: float
    form: str
    name: str
    of_differences: str


_SHARE = ShownUnit(100.0, ".1f", "%", "points")
_UNITS = {"share": _SHARE, "ratio": _SHARE, "nats": ShownUnit(1.0, ".3f", "nats", "nats")}


def unit_of(metric: Metric) -> ShownUnit:
    """How a metric is shown."""
    return _UNITS.get(metric.unit, ShownUnit(1.0, ".2f", "", metric.unit))


@plain
def figures(
    comparisons: Summary, overhead: Mapping[str, Mapping[str, float]], *, against: str, study: str
) -> dict[str, Figure]:
    """The figures by name; none of a study of one router.

    Args:
      comparisons: see :func:`vmoe_inform.studies.summary.summarize`.
      overhead: see :func:`vmoe_inform.studies.summary.overhead`.
      against: the router compared with.
      study: what was trained, for the titles, e.g. ``"configs/digits.py, 1,433 steps, 3 seeds"``.
    """
    routers = [router for router in comparisons if router != against]
    if not routers:
        return {}
    layers = [name.removeprefix("load_cv/") for name in comparisons[against] if name.startswith("load_cv/")]
    layers = [layer for layer in layers if layer != ALL_LAYERS]
    suites = [name.removeprefix("score/") for name in comparisons[against] if name.startswith("score/")]
    has_collapsed = any(name.startswith("collapsed/") for name in comparisons[against])  # older results have none

    def of_layers(title: str, measure: str, scale: float, unit: str) -> Panel:
        own = (scale * comparisons[against][f"{measure}/{layer}"].mean.mean for layer in layers)
        values = f"{against}: {', '.join(f'{value:.3g}' for value in own)}"
        label = (f"difference in {unit}", *textwrap.wrap(values, _LABEL_CHARACTERS))
        series = {layer: _differences(comparisons, routers, f"{measure}/{layer}", scale) for layer in layers}
        return Panel(title, label, series)

    groups = {
        "scores": [_score_panel(comparisons, routers, suite, suites_lib.kind(suite)) for suite in suites],
    }
    if layers:
        ratios = {layer: _ratios(comparisons, routers, f"entropy/{layer}") for layer in layers}
        groups["fluctuation_and_entropy"] = [
            of_layers("Fluctuation, %", "fluctuation", 100.0, "points"),
            Panel("Routing entropy", ("ratio",), ratios, 1.0),
        ]
        groups["load_and_cost"] = [
            of_layers("CV of the load", "load_cv", 1.0, "CV"),
            of_layers("Effective neighbours", "effective_neighbours", 1.0, "tokens"),
            *([of_layers("Collapsed records, %", "collapsed", 100.0, "points")] if has_collapsed else []),
            _overhead_panel(overhead, routers),
        ]
    titles = {
        "scores": f"Scores compared with {against}",
        "fluctuation_and_entropy": f"Fluctuation and entropy compared with {against}",
        "load_and_cost": f"Load, neighbours and cost compared with {against}",
    }
    return {name: _draw(panels, routers, titles[name], study) for name, panels in groups.items() if panels}


def _score_panel(comparisons: Summary, routers: Sequence[str], suite: str, kind: SuiteKind) -> Panel:
    unit = unit_of(kind.metric)
    label = f"difference in {unit.of_differences}" + (", less is better" if kind.metric.less_is_better else "")
    return Panel(kind.short_title, (label,), {"": _differences(comparisons, routers, f"score/{suite}", unit.scale)})


def _differences(comparisons: Summary, routers: Sequence[str], name: str, scale: float) -> dict[str, PairedInterval]:
    found = {router: comparisons[router][name].difference for router in routers if name in comparisons[router]}
    return {
        router: dataclasses.replace(of, mean=scale * of.mean, low=scale * of.low, high=scale * of.high)
        for router, of in found.items()
    }


def _ratios(comparisons: Summary, routers: Sequence[str], name: str) -> dict[str, PairedInterval]:
    found = {router: comparisons[router][name].ratio for router in routers if name in comparisons[router]}
    return {router: ratio for router, ratio in found.items() if ratio is not None}


def _overhead_panel(overhead: Mapping[str, Mapping[str, float]], routers: Sequence[str]) -> Panel:
    series = {
        purpose.replace("_", " "): {
            router: PairedInterval(*(100 * overhead[router][purpose],) * 3) for router in routers
        }
        for purpose in overhead[routers[0]]
    }
    return Panel("Compiled flops", ("overhead in %",), series, is_exact=True)


def _draw(panels: Sequence[Panel], routers: Sequence[str], title: str, study: str) -> Figure:
    # Settings that are part of a router's name stand below it.
    lines = [router.split("@") for router in routers]
    width = 0.5 + 0.085 * max(len(line) for of_label in lines for line in of_label) + 2.5 * len(panels)
    row_height = 0.16 + 0.18 * max(map(len, lines))
    label_lines = max(len(panel.label) for panel in panels)
    legend_rows = max(math.ceil(len(panel.series) / 2) for panel in panels)
    height = 1.7 + 0.15 * label_lines + 0.2 * legend_rows + row_height * len(routers)
    figure = empty_figure(width, height)
    columns = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    are_cut = [_draw_panel(axes, panel, routers) for axes, panel in zip(columns, panels, strict=True)]
    columns[0].set_yticks(range(len(routers)), ["\n".join(map(shown, of_label)) for of_label in lines])
    columns[0].set_ylim(len(routers) - 0.5, -0.5)
    figure.suptitle(shown(title), fontsize=11)
    words = [
        study,
        f"bars: {100 * LEVEL:.0f} % interval of the difference (ratio) between runs of the same seed",
        "filled: survives Holm's correction"
        + (", arrow: the interval reaches beyond the axis" if any(are_cut) else ""),
    ]
    figure.supxlabel("\n".join(map(shown, words)), fontsize=9, color=GREY)
    return figure


def _draw_panel(axes: Axes, panel: Panel, routers: Sequence[str]) -> bool:
    """Draws one column; whether an interval reaches beyond its axis."""
    axes.axvline(panel.equal_at, color=GREY, linestyle="--", linewidth=1, zorder=1)
    low, high = visible_range([of for marks in panel.series.values() for of in marks.values()], panel.equal_at)
    axes.set_xlim(low, high)
    handles, is_cut = [], False
    offsets = np.linspace(-0.2, 0.2, len(panel.series)) if len(panel.series) > 1 else [0.0]
    styles = series_styles(list(panel.series))
    for (series, marks), offset in zip(panel.series.items(), offsets, strict=True):
        color, marker = styles[series]["color"], styles[series]["marker"]
        for router, interval in marks.items():
            row = routers.index(router) + offset
            is_filled = panel.is_exact or interval.survives
            axes.errorbar(
                interval.mean,
                row,
                xerr=interval.half_width if interval.high > interval.low else None,
                fmt=marker,
                color=color,
                markerfacecolor=color if is_filled else "white",
                markersize=6,
                capsize=2,
            )
            for edge, arrow, reaches_beyond in ((low, "<", interval.low < low), (high, ">", interval.high > high)):
                if reaches_beyond:
                    axes.plot(edge, row, marker=arrow, color=color, markersize=6, clip_on=False, zorder=3)
                    is_cut = True
        handles.append(Line2D([], [], color=color, marker=marker, linestyle="none", label=series))
    _label(axes, panel, handles)
    return is_cut


def visible_range(intervals: Sequence[Interval], equal_at: float) -> tuple[float, float]:
    """The range of an axis: every mean and ``equal_at``, and as much of the intervals as keeps the means apart.

    With two or three seeds a t-interval is much wider than the differences between routers. The room on either side of
    the means is twice their range, at most 1.15 and at least 0.25 of the median half width.
    """
    means = [equal_at, *(interval.mean for interval in intervals)]
    span = max(means) - min(means)
    half_width = statistics.median([interval.half_width for interval in intervals]) if intervals else 0.0
    room = min(max(2 * span, _LEAST_ROOM * half_width), _MOST_ROOM * half_width)
    room = max(room, 0.08 * span, 1e-9)
    return min(means) - room, max(means) + room


def _label(axes: Axes, panel: Panel, handles: Sequence[Line2D]) -> None:
    axes.set_title(
        shown(panel.title), fontsize=10, pad=6.0 + (16.0 * math.ceil(len(handles) / 2) if len(handles) > 1 else 0.0)
    )
    axes.set_xlabel("\n".join(map(shown, panel.label)), fontsize=9)
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if len(handles) > 1:  # between the title and the axes, where it hides no mark
        legend(
            axes,
            handles,
            loc="lower center",
            bbox_to_anchor=(0.5, 0.99),
            ncols=2,
            fontsize=8,
            frameon=False,
            handletextpad=0.1,
            columnspacing=1.0,
            borderaxespad=0.2,
        )
