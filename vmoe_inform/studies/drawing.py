"""The pictures of a study: one row a router, a mean and its interval in each panel, a line where routers compare equal.

Colours are those of Okabe and Ito (2008); MoE layers differ in marker too. A filled mark is a difference whose interval
excludes "no difference".
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vmoe_inform.evaluation import suites as suites_lib
from vmoe_inform.lettering import legend, plain, shown
from vmoe_inform.report.styles import GREY, empty_figure, series_styles
from vmoe_inform.studies.summary import LEVEL, Comparison, Interval

Summary = Mapping[str, Mapping[str, Comparison]]


@dataclasses.dataclass(frozen=True)
class Mark:
    """What a panel shows of one router.

    Attributes:
      interval: mean and bounds, in the panel's unit; without width for figures that have no uncertainty.
      filled: whether the mark is filled.
    """

    interval: Interval
    filled: bool


@dataclasses.dataclass(frozen=True)
class Panel:
    """One column of a figure.

    Attributes:
      title, label: above and below the axes.
      series: marks by series (MoE layer) and router.
      equal_at: where the router compared with lies; None draws no line.
    """

    title: str
    label: str
    series: Mapping[str, Mapping[str, Mark]]
    equal_at: float | None


@plain
def figures(comparisons: Summary, overhead: Mapping[str, Mapping[str, float]], *, against: str) -> dict[str, Figure]:
    """The figures by name.

    Args:
      comparisons: see :func:`vmoe_inform.studies.summary.summarize`.
      overhead: see :func:`vmoe_inform.studies.summary.overhead`.
      against: the router compared with.
    """
    routers = list(comparisons)
    others = [router for router in routers if router != against]
    layers = [name.removeprefix("load_cv/") for name in comparisons[against] if name.startswith("load_cv/")]
    suites = [name.removeprefix("accuracy/") for name in comparisons[against] if name.startswith("accuracy/")]
    drawn = {}
    if others and suites:
        panels = [
            Panel(
                suites_lib.kind(suite).short_title,
                "difference in points",
                {"": _differences(comparisons, others, f"accuracy/{suite}", 100.0)},
                0.0,
            )
            for suite in suites
        ]
        drawn["accuracy"] = _draw(panels, others, against, f"Score minus that of {against} with the same seed")
    if layers:
        drawn["fluctuation_and_entropy"] = _draw(
            [
                Panel(
                    "Fluctuation in the last epoch",
                    "tokens with other experts in %",
                    {layer: _means(comparisons, routers, f"fluctuation/{layer}", 100.0) for layer in layers},
                    None,
                ),
                Panel(
                    "Routing entropy",
                    f"ratio to {against}",
                    {layer: _ratios(comparisons, routers, f"entropy/{layer}") for layer in layers},
                    1.0,
                ),
            ],
            routers,
            against,
        )
        drawn["load_and_cost"] = _draw(
            [
                Panel(
                    "Imbalance of experts",
                    "load: standard deviation / mean",
                    {layer: _means(comparisons, routers, f"load_cv/{layer}", 1.0) for layer in layers},
                    None,
                ),
                Panel(
                    "Effective neighbours",
                    "tokens that a token hears",
                    {layer: _means(comparisons, routers, f"effective_neighbours/{layer}", 1.0) for layer in layers},
                    1.0,
                ),
                _overhead_panel(overhead, against),
            ],
            routers,
            against,
        )
    return drawn


def _scaled(interval: Interval, scale: float) -> Interval:
    return Interval(scale * interval.mean, scale * interval.low, scale * interval.high)


def _differences(comparisons: Summary, routers: Sequence[str], name: str, scale: float) -> dict[str, Mark]:
    found = {router: comparisons[router][name].difference for router in routers if name in comparisons[router]}
    return {router: Mark(_scaled(interval, scale), interval.excludes(0.0)) for router, interval in found.items()}


def _means(comparisons: Summary, routers: Sequence[str], name: str, scale: float) -> dict[str, Mark]:
    found = {router: comparisons[router][name] for router in routers if name in comparisons[router]}
    return {router: Mark(_scaled(of.mean, scale), of.difference.excludes(0.0)) for router, of in found.items()}


def _ratios(comparisons: Summary, routers: Sequence[str], name: str) -> dict[str, Mark]:
    found = {router: comparisons[router][name].ratio for router in routers if name in comparisons[router]}
    return {router: Mark(ratio, ratio.excludes(1.0)) for router, ratio in found.items() if ratio is not None}


def _overhead_panel(overhead: Mapping[str, Mapping[str, float]], against: str) -> Panel:
    return Panel(
        "Compiled flops",
        f"overhead over {against} in %",
        {
            purpose.replace("_", " "): {
                router: Mark(Interval(*(100 * of[purpose],) * 3), True) for router, of in overhead.items()
            }
            for purpose in overhead[against]
        },
        0.0,
    )


def _draw(panels: Sequence[Panel], routers: Sequence[str], against: str, title: str | None = None) -> Figure:
    # Settings that are part of a router's name stand below it.
    lines = [router.split("@") for router in routers]
    width = 0.5 + 0.085 * max(len(line) for of_label in lines for line in of_label) + 2.5 * len(panels)
    row_height = 0.16 + 0.18 * max(map(len, lines))
    figure = empty_figure(width, 1.9 + row_height * len(routers))
    columns = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, panel in zip(columns, panels, strict=True):
        _draw_panel(axes, panel, routers)
    columns[0].set_yticks(range(len(routers)), ["\n".join(map(shown, of_label)) for of_label in lines])
    columns[0].set_ylim(len(routers) - 0.5, -0.5)
    if title is not None:
        figure.suptitle(shown(title), fontsize=11)
    figure.supxlabel(
        f"bars: {100 * LEVEL:.0f} % interval over the seeds; filled: the paired difference to "
        f"{shown(against)} is clear of 0",
        fontsize=9,
        color=GREY,
    )
    return figure


def _draw_panel(axes: Axes, panel: Panel, routers: Sequence[str]) -> None:
    if panel.equal_at is not None:
        axes.axvline(panel.equal_at, color=GREY, linestyle="--", linewidth=1, zorder=1)
    handles = []
    offsets = np.linspace(-0.2, 0.2, len(panel.series)) if len(panel.series) > 1 else [0.0]
    styles = series_styles(list(panel.series))
    for (series, marks), offset in zip(panel.series.items(), offsets, strict=True):
        color, marker = styles[series]["color"], styles[series]["marker"]
        for router, mark in marks.items():
            interval = mark.interval
            axes.errorbar(
                interval.mean,
                routers.index(router) + offset,
                xerr=interval.half_width if interval.high > interval.low else None,
                fmt=marker,
                color=color,
                markerfacecolor=color if mark.filled else "white",
                markersize=6,
                capsize=2,
            )
        handles.append(Line2D([], [], color=color, marker=marker, linestyle="none", label=series))
    axes.set_title(
        shown(panel.title), fontsize=10, pad=6.0 + (16.0 * math.ceil(len(handles) / 2) if len(handles) > 1 else 0.0)
    )
    axes.set_xlabel(shown(panel.label), fontsize=9)
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
