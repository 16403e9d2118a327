"""One picture of several runs beside each other: what their routers do, layer by layer."""

from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vmoe_inform import checks
from vmoe_inform.analysis.draw._panels import Layout, layers_along, panels
from vmoe_inform.lettering import plain
from vmoe_inform.report.styles import legend_name, series_styles

Analysis = Mapping[str, Any]


def _fluctuation(analysis: Analysis, block: str) -> float | None:
    found = analysis["fluctuation"]
    return None if found is None else 100 * found["layers"][block]["set"]


def _layer_value(*keys: str | int) -> Callable[[Analysis, str], float | None]:
    """What stands under these keys of a layer, None if one of them leads nowhere."""

    def value(analysis: Analysis, block: str) -> float | None:
        found = analysis["layers"][block]
        for key in keys:
            found = None if found is None else found[key]
        return found

    return value


# By title: the name of the axis, and the value of a layer.
QUANTITIES: Mapping[str, tuple[str, Callable[[Analysis, str], float | None]]] = {
    "How undecided: entropy": ("nats", _layer_value("entropy")),
    "How uneven: CV of the load": ("standard deviation / mean", _layer_value("load_cv")),
    "How sure: median margin": ("difference of probabilities", _layer_value("margin", "quantiles", 2)),
    "How restless: fluctuation": ("tokens with other experts in %", _fluctuation),
    "How sociable: tokens heard": ("effective number", _layer_value("graph", "effective_neighbours", "mean")),
    "How specialised: experts, classes": (
        "mutual information in nats",
        _layer_value("specialisation", "mutual_information"),
    ),
}


@plain
def comparison_figure(analyses: Mapping[str, Analysis]) -> Figure:
    """Entropy, load, margin, fluctuation, tokens heard and specialisation of each layer, a line for each run.

    Quantities that no run has are left out.

    Args:
      analyses: by the name to show, as analysis.json has them.

    Raises:
      ValueError: no analyses.
    """
    if not analyses:
        raise checks.error("analyses", "at least one", dict(analyses))
    layers = list(dict.fromkeys(block for analysis in analyses.values() for block in analysis["layers"]))
    found = {
        title: {
            run: {place: value(analysis, block) for place, block in enumerate(layers) if block in analysis["layers"]}
            for run, analysis in analyses.items()
        }
        for title, (_, value) in QUANTITIES.items()
    }
    shown = [
        title
        for title, by_run in found.items()
        if any(number is not None for line in by_run.values() for number in line.values())
    ]
    styles = series_styles(list(analyses))
    figure, drawn = panels(
        shown,
        "What the routers do",
        layout=Layout(width=max(2.3, 0.33 * len(layers)), height=1.9, left=0.75, beside=0.75, bottom=0.6, above=0.4),
        legend=[Line2D([], [], label=_label(run, analysis), **styles[run]) for run, analysis in analyses.items()],
        share=False,
        columns=min(3, len(shown)),
    )
    for title, axes in drawn.items():
        for run, line in found[title].items():
            known = {place: number for place, number in line.items() if number is not None}
            axes.plot(list(known), list(known.values()), markersize=5, label=run, **styles[run])
        layers_along(axes, layers)
        axes.xaxis.label.set_fontsize(8.5)
        axes.set_ylabel(QUANTITIES[title][0], fontsize=8.5)
        axes.set_ylim(0, 1.08 * max(axes.dataLim.y1, 1e-3))
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _label(run: str, analysis: Analysis) -> str:
    return f"{legend_name(run)} ({100 * analysis['run']['top1']:.1f} % right)"
