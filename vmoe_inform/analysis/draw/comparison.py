"""One figure of the routers of several runs, layer by layer."""

from collections.abc import Callable, Mapping

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vmoe_inform import checks
from vmoe_inform.analysis.draw._panels import Layout, layers_along, panels
from vmoe_inform.analysis.layer_results import Layer
from vmoe_inform.analysis.results import Analysis
from vmoe_inform.lettering import plain
from vmoe_inform.report.styles import legend_name, series_styles

# By title: the name of the axis, and the value of a layer.
QUANTITIES: Mapping[str, tuple[str, Callable[[Layer], float | None]]] = {
    "Routing entropy": ("nats", lambda layer: layer.entropy),
    "CV of the load": ("standard deviation / mean", lambda layer: layer.load_cv),
    "Collapse": (
        "records with one first expert in %",
        lambda layer: None if layer.collapsed is None else 100 * layer.collapsed,
    ),
    "Median margin": ("difference of probabilities", lambda layer: layer.margin.median if layer.margin else None),
    "Effective neighbours": (
        "tokens, itself included",
        lambda layer: layer.graph.effective_neighbours.mean if layer.graph else None,
    ),
    "Specialisation in classes": (
        "mutual information in nats",
        lambda layer: layer.specialisation.mutual_information if layer.specialisation else None,
    ),
}
_FLUCTUATION, _FLUCTUATION_UNIT = "Fluctuation", "tokens with other experts in %"


def _values(analysis: Analysis) -> dict[str, dict[str, float]]:
    """By title and block, what there is of a run."""
    found = {
        title: {b: number for b, layer in analysis.layers.items() if (number := value(layer)) is not None}
        for title, (_, value) in QUANTITIES.items()
    }
    changes = {} if analysis.fluctuation is None else analysis.fluctuation.layers
    return found | {_FLUCTUATION: {block: 100 * change.set for block, change in changes.items()}}


@plain
def comparison_figure(analyses: Mapping[str, Analysis]) -> Figure:
    """Entropy, load, margin, neighbours, specialisation and fluctuation of each layer, a line for each run.

    Quantities that no run has are left out.

    Args:
      analyses: by the name to show.

    Raises:
      ValueError: no analyses.
    """
    if not analyses:
        raise checks.error("analyses", "at least one", dict(analyses))
    layers = list(dict.fromkeys(block for analysis in analyses.values() for block in analysis.layers))
    found = {run: _values(analysis) for run, analysis in analyses.items()}
    units = {title: unit for title, (unit, _) in QUANTITIES.items()} | {_FLUCTUATION: _FLUCTUATION_UNIT}
    drawn_titles = [title for title in units if any(of_run[title] for of_run in found.values())]
    styles = series_styles(list(analyses))
    figure, drawn = panels(
        drawn_titles,
        "What the routers do",
        layout=Layout(width=max(2.3, 0.33 * len(layers)), height=1.9, left=0.75, between=0.75, bottom=0.6, above=0.4),
        legend=[Line2D([], [], label=_label(run, analysis), **styles[run]) for run, analysis in analyses.items()],
        share=False,
        columns=min(3, len(drawn_titles)),
    )
    for title, axes in drawn.items():
        for run, of_run in found.items():
            positions = [layers.index(block) for block in of_run[title]]
            axes.plot(positions, list(of_run[title].values()), markersize=5, label=run, **styles[run])
        layers_along(axes, layers)
        axes.xaxis.label.set_fontsize(8.5)
        axes.set_ylabel(units[title], fontsize=8.5)
        axes.set_ylim(0, 1.08 * max(axes.dataLim.y1, 1e-3))
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _label(run: str, analysis: Analysis) -> str:
    return f"{legend_name(run)}, step {analysis.run.step:,} ({analysis.run.score_in_words})"
