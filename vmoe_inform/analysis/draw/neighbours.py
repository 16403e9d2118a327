"""Effective neighbours of tokens in a router's graph of tokens."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vmoe_inform.analysis.draw._panels import Layout, layers_along, named, panels
from vmoe_inform.analysis.layer_results import Spread
from vmoe_inform.analysis.results import Analysis
from vmoe_inform.lettering import plain
from vmoe_inform.report.styles import BLUE, VERMILION


@plain
def neighbours_figure(analysis: Analysis) -> Figure:
    """To how many tokens a token attends, and with what weight to itself, by layer: the spread over tokens.

    Args:
      analysis: with ``graph`` in at least one layer.
    """
    layers = {block: layer.graph for block, layer in analysis.layers.items() if layer.graph is not None}
    blocks = list(layers)
    figure, drawn = panels(
        ["Effective neighbours", "Weight of the token itself"],
        "How far tokens attend to each other",
        subtitle=named(analysis.run),
        layout=Layout(width=max(2.7, 0.4 * len(blocks)), height=2.5, between=0.95, bottom=0.55, left=0.75),
        legend=[
            Line2D([], [], color=BLUE, marker="o", linestyle="none", label="median"),
            Line2D([], [], color=VERMILION, marker="D", linestyle="none", label="mean"),
            Line2D([], [], color=BLUE, linewidth=7, alpha=0.45, label="half of the tokens"),
            Line2D([], [], color=BLUE, linewidth=1.2, label="9 of 10 tokens"),
        ],
        share=False,
    )
    number, own = drawn.values()
    _draw_spreads(number, [layer.effective_neighbours for layer in layers.values()], 1.0)
    _draw_spreads(own, [layer.self_weight for layer in layers.values()], 100.0)
    for axes in (number, own):
        layers_along(axes, blocks)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
    highest = max(layer.effective_neighbours.quantiles[-1] for layer in layers.values())
    number.set_ylim(0, max(1.1 * highest, 2.0))
    number.set_ylabel(f"tokens, of {analysis.run.num_tokens}; itself included")
    own.set_ylim(0, 102)
    own.yaxis.set_major_formatter("{x:g} %")
    own.set_ylabel("share of its weights")
    return figure


def _draw_spreads(axes: Axes, spreads: Sequence[Spread], scale: float) -> None:
    """Thin from the 5th to the 95th percentile, thick from the 25th to the 75th, points at the median and the mean."""
    for position, spread in enumerate(spreads):
        low, lower, middle, upper, high = (scale * value for value in spread.quantiles)
        axes.plot([position, position], [low, high], color=BLUE, linewidth=1.2)
        axes.plot([position, position], [lower, upper], color=BLUE, linewidth=7, alpha=0.45, solid_capstyle="butt")
        axes.plot(position, middle, color=BLUE, marker="o", markersize=6, clip_on=False)
        axes.plot(position, scale * spread.mean, color=VERMILION, marker="D", markersize=5, clip_on=False)
