"""The picture of how scores change with other routers."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from vmoe_inform.evaluation.rerouting import Rerouted
from vmoe_inform.evaluation.results import Results, Unit
from vmoe_inform.lettering import legend, plain, shown
from vmoe_inform.report import entries
from vmoe_inform.report.other_routers import headline_changes, names_of
from vmoe_inform.report.styles import GREY, legend_columns, legend_name, room_for_legend, series_styles, single_axes


@plain
def change_figure(results: Results, rerouted: Sequence[Rerouted], *, unit: Unit = "share") -> Figure:
    """How the headline of every suite changes, one point with its 95 % interval for each router.

    Args:
      results: as the run was trained.
      rerouted: with other routers.
      unit: of the headlines that are shown.
    """
    names = names_of(rerouted)
    labels = names.routers
    suites = headline_changes(results, rerouted)[unit]
    factor, height = 100 if unit == "share" else 1, 0.5 + 0.17 * len(labels)
    figure, axes = single_axes(5.6, 1.0 + height * len(suites) + room_for_legend(labels))
    axes.axvline(0, color=GREY, linewidth=1)
    handles = {}
    for row, (suite, by_router) in enumerate(suites.items()):
        words = axes.text(
            0.0,
            row - 0.5 + 0.2 / height,
            shown(entries.title({"": results}, suite, short=True)),
            va="center",
            fontsize=10,
            transform=axes.get_yaxis_transform(),
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},  # no line crosses the words
        )
        words.set_in_layout(False)  # a title that is too long is cut off by the edge
        for place, (label, style) in enumerate(series_styles(labels).items()):
            if label not in by_router:
                continue
            found = by_router[label]
            errors = [[max(found.value - found.low, 0.0)], [max(found.high - found.value, 0.0)]]
            handles[label] = axes.errorbar(
                [factor * found.value],
                [row - 0.5 + (0.46 + 0.17 * place) / height],
                xerr=factor * np.asarray(errors),
                fmt=style["marker"],
                color=style["color"],
                label=legend_name(label),
                capsize=3,
                markersize=5,
            )
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylim(len(suites) - 0.5, -0.5)
    axes.set_xlabel(
        "change in percentage points (bars: 95 % interval)"
        if unit == "share"
        else f"change of the {unit}, less is better (bars: 95 % interval)"
    )
    axes.grid(axis="x", alpha=0.3)
    found_handles = [handles[label] for label in labels if label in handles]
    heading = None if names.heading == "router" else shown(names.heading)
    columns = legend_columns(labels)
    legend(figure, found_handles, loc="outside upper center", ncols=columns, frameon=False, title=heading)
    return figure
