"""Pictures of how sure routing is: margins, and how many tokens a small change could send elsewhere."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vmoe_inform.analysis.draw._panels import named, panels, titled
from vmoe_inform.analysis.results import Analysis, layer_name
from vmoe_inform.lettering import legend, plain, shown
from vmoe_inform.report.styles import BLUE, VERMILION, depth_styles, label_log_scale, single_axes


@plain
def margin_figure(analysis: Analysis) -> Figure:
    """Distribution over tokens of the K-th minus the (K + 1)-th largest probability, by layer; the line is its median.

    Args:
      analysis: with ``margin`` in at least one layer.
    """
    layers = {block: layer.margin for block, layer in analysis.layers.items() if layer.margin is not None}
    selected = analysis.run.num_selected_experts
    figure, drawn = panels(
        list(layers),
        "How far the chosen experts are ahead of those left out",
        subtitle=named(analysis.run),
        caption=f"margin: probability of choice {selected} minus that of choice {selected + 1} (line: median)",
        label="share of tokens",
    )
    for block, axes in drawn.items():
        margin = layers[block]
        counts = np.asarray(margin.counts, float)
        axes.stairs(100 * counts / max(counts.sum(), 1.0), margin.edges, fill=True, color=BLUE, alpha=0.75)
        axes.axvline(margin.median, color=VERMILION, linewidth=1.5)
        axes.set_title(f"{shown(layer_name(block))}: median {margin.median:.2g}", fontsize=9.5)
        axes.yaxis.set_major_formatter("{x:g} %")
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(0, max(1.05 * axes.dataLim.y1 for axes in drawn.values()))
    return figure


@plain
def flips_figure(analysis: Analysis) -> Figure:
    """Share of the tokens whose experts a change of every probability could alter, by layer.

    SymphonySMoE (arXiv 2510.16411), Proposition 1: those whose margin is at most twice the change.

    Args:
      analysis: with ``flips`` in at least one layer.
    """
    layers = {block: layer.flips for block, layer in analysis.layers.items() if layer.flips is not None}
    figure, axes = single_axes(6.4, 3.9)
    handles: list[Line2D] = []
    styles = depth_styles(list(layers))
    for block, flips in layers.items():
        handles += axes.plot(
            flips.perturbation,
            100 * np.asarray(flips.share, float),
            label=layer_name(block),
            **styles[block],
        )
    axes.set_xscale("log")
    label_log_scale(axes.xaxis)
    axes.set_ylim(0, 102)
    axes.yaxis.set_major_formatter("{x:g} %")
    axes.set_xlabel("largest change of a probability")
    axes.set_ylabel("share of tokens")
    axes.grid(alpha=0.3)
    titled(
        figure, axes, "Tokens that a small change of the probabilities could send to other experts", named(analysis.run)
    )
    legend(figure, handles, loc="outside right center", frameon=False)
    return figure
