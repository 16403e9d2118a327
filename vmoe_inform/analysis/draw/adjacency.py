"""Pictures of the expert graph of a Symphony router: as a heat map, as a graph, and its spectral gap in training."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from vmoe_inform.analysis.draw._panels import Layout, color_bar, named, panels, titled
from vmoe_inform.analysis.results import Analysis, layer_name
from vmoe_inform.lettering import legend, plain
from vmoe_inform.report.styles import SHADES, depth_styles, expert_colors, single_axes

_MOST_WRITTEN_EXPERTS = 8  # numbers in smaller cells could not be read
_MOST_NUMBERED_EXPERTS = 32
_MOST_JOINED_EXPERTS = 16  # of more, only the strongest edges are drawn


@plain
def adjacency_figure(analysis: Analysis) -> Figure:
    """The adjacency of each layer as a heat map.

    Args:
      analysis: with ``adjacency`` in at least one layer.
    """
    matrices = _matrices(analysis)
    num_experts = analysis.run.num_experts
    figure, drawn = panels(
        list(matrices),
        "How experts are mixed: the adjacency of each layer",
        subtitle=named(analysis.run),
        caption="expert whose probability is mixed in",
        label="expert",
        layout=Layout(width=2.1, height=2.1, left=0.6, right=0.95),
    )
    highest = max(matrix.max() for matrix in matrices.values())
    for block, axes in drawn.items():
        matrix = matrices[block]
        shown = axes.imshow(matrix, cmap=SHADES, norm=PowerNorm(0.5, 0, highest))
        for located in (axes.xaxis, axes.yaxis):
            located.set_major_locator(MaxNLocator(nbins=7, integer=True))
        if num_experts <= _MOST_WRITTEN_EXPERTS:
            for (row, column), value in np.ndenumerate(matrix):
                color = "black" if value > 0.3 * highest else "white"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=6.5, color=color)
    color_bar(figure, shown, list(drawn.values()), "entry of the adjacency")
    return figure


@plain
def adjacency_graph_figure(analysis: Analysis) -> Figure:
    """The adjacency of each layer as a graph: experts on a circle, edges as wide as their weight.

    An edge's weight is the mean of both directions. Of more than 16 experts only each one's three
    strongest edges are drawn, of more than 32 the strongest.

    Args:
      analysis: with ``adjacency`` in at least one layer, of at least two experts.
    """
    matrices = _matrices(analysis)
    num_experts = analysis.run.num_experts
    kept = None if num_experts <= _MOST_JOINED_EXPERTS else 3 if num_experts <= _MOST_NUMBERED_EXPERTS else 1
    which = {None: "", 3: "; the three strongest of each expert", 1: "; the strongest of each expert"}[kept]
    figure, drawn = panels(
        list(matrices),
        "Which experts are mixed with which",
        subtitle=named(analysis.run),
        caption=f"edges as wide as the adjacency of two experts, mean of both directions{which}",
        layout=Layout(width=2.3, height=2.3, left=0.1, right=0.1, between=0.05, bottom=0.05),
    )
    for block, axes in drawn.items():
        _draw_graph(axes, edges_of(matrices[block], kept), num_experts)
    return figure


def edges_of(matrix: np.ndarray, most_of_a_node: int | None) -> dict[tuple[int, int], float]:
    """Weights of the undirected graph of an adjacency, by pair of experts (the smaller number first).

    Args:
      matrix: [E, E]; the weight of {j, k} is the mean of [j, k] and [k, j].
      most_of_a_node: an edge is kept if it is among this number of strongest edges of one of its ends; None keeps all.
    """
    weights = (matrix + matrix.T) / 2
    np.fill_diagonal(weights, 0.0)
    kept = weights > 0
    if most_of_a_node is not None and most_of_a_node < len(weights) - 1:
        thresholds = np.sort(weights, axis=1)[:, -most_of_a_node]
        kept &= (weights >= thresholds[:, None]) | (weights >= thresholds[None, :])
    return {(int(j), int(k)): float(weights[j, k]) for j, k in np.argwhere(np.triu(kept, 1))}


@plain
def spectral_gap_figure(analysis: Analysis) -> Figure:
    """Spectral gap of each layer's adjacency over the steps of training.

    SymphonySMoE (arXiv 2510.16411), Proposition 1: the larger it is, the less a change of the probabilities stays.

    Args:
      analysis: with ``adjacency`` in at least one layer.
    """
    layers = {b: layer.adjacency for b, layer in analysis.layers.items() if layer.adjacency is not None}
    figure, axes = single_axes(6.4, 3.9)
    handles: list[Line2D] = []
    styles = depth_styles(list(layers))
    for block, adjacency in layers.items():
        handles += axes.plot(
            adjacency.steps,
            adjacency.spectral_gap,
            marker="o",
            markersize=4,
            label=layer_name(block),
            **styles[block],
        )
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylim(0, 1.05)
    axes.set_xlabel("step of training")
    axes.set_ylabel("spectral gap, 1 - second |eigenvalue|")
    axes.grid(alpha=0.3)
    titled(figure, axes, "How strongly the experts' graph mixes: 1 entirely, 0 not at all", named(analysis.run))
    legend(figure, handles, loc="outside right center", frameon=False)
    return figure


def _matrices(analysis: Analysis) -> dict[str, np.ndarray]:
    return {
        block: np.asarray(layer.adjacency.matrix, float)
        for block, layer in analysis.layers.items()
        if layer.adjacency is not None
    }


def _draw_graph(axes: Axes, edges: Mapping[tuple[int, int], float], num_experts: int) -> None:
    angles = np.pi / 2 - 2 * np.pi * np.arange(num_experts) / num_experts  # clockwise from the top
    nodes = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    strongest = max(edges.values(), default=1.0)
    ordered = sorted(edges, key=lambda pair: edges[pair])  # the strongest are drawn last, over the others
    widest = 5.0 if num_experts <= _MOST_NUMBERED_EXPERTS else 2.5
    shares = np.array([edges[pair] / strongest for pair in ordered])
    axes.add_collection(
        LineCollection(
            [nodes[list(pair)] for pair in ordered],
            linewidths=widest * shares,
            colors=[(0.15, 0.2, 0.3, 0.15 + 0.75 * share) for share in shares],
            zorder=1,
        )
    )
    numbered = num_experts <= _MOST_NUMBERED_EXPERTS
    size = min(170.0, 22_000 / (num_experts * max(num_experts, 10)))
    across, up = nodes.T
    colors = expert_colors(num_experts)
    axes.scatter(across, up, s=max(size, 8.0), c=colors, edgecolors="black", linewidths=0.6, zorder=2)
    if numbered:
        for expert, (x, y) in enumerate(1.24 * nodes):
            axes.text(x, y, str(expert), ha="center", va="center", fontsize=8)
    axes.set(xlim=(-1.4, 1.4), ylim=(-1.4, 1.4), aspect="equal")
    axes.axis("off")
