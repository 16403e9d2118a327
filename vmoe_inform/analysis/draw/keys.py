"""Which keys win the rows of a router's graph of tokens, by their lengths."""

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vmoe_inform.analysis.draw._panels import Layout, named, panels
from vmoe_inform.analysis.results import Analysis
from vmoe_inform.lettering import plain
from vmoe_inform.report.styles import BLUE, GREY, VERMILION


@plain
def keys_figure(analysis: Analysis) -> Figure:
    """Share of the rows that a key wins against its squared length, by layer.

    A key wins a row if the row has its largest weight. Without a preference of its own each key wins as many rows.

    Args:
      analysis: with ``keys`` in at least one layer.
    """
    layers = {block: layer.keys for block, layer in analysis.layers.items() if layer.keys is not None}
    figure, drawn = panels(
        list(layers),
        "Rows of the graph that a key wins, by its length",
        subtitle=named(analysis.run),
        caption="squared length of the key's mean; each point is as many keys of every record",
        label="share of the rows",
        layout=Layout(width=2.6, height=2.0, between=0.55, bottom=0.4, left=0.85),
        legend=[
            Line2D([], [], color=BLUE, marker="o", markersize=4, label="a key of this length"),
            Line2D([], [], color=VERMILION, linewidth=1.2, label="the key that wins most"),
            Line2D([], [], color=GREY, linestyle="--", linewidth=1.2, label="all keys alike"),
        ],
        share=False,
    )
    for block, axes in drawn.items():
        found = layers[block]
        axes.axhline(100 * found.largest, color=VERMILION, linewidth=1.2)
        axes.axhline(100 * found.even, color=GREY, linestyle="--", linewidth=1.2)
        axes.plot(found.squares, [100 * share for share in found.share], color=BLUE, marker="o", markersize=4)
        axes.set_xlim(left=0.0)
        axes.set_ylim(0, 102)
        axes.yaxis.set_major_formatter("{x:g} %")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
    return figure
