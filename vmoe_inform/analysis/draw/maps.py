"""Routing maps: an image whose patches have the colour of their expert, its weight, or how undecided the router is."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from vmoe_inform import checks, lettering
from vmoe_inform.analysis.collect.views import neighbours_of, undecided
from vmoe_inform.analysis.draw._panels import Layout, color_bar, panels
from vmoe_inform.analysis.images.tracing import ImageTrace
from vmoe_inform.analysis.results import layer_name
from vmoe_inform.axes import Float
from vmoe_inform.report.patches import middle_of, paint_experts, show_image
from vmoe_inform.report.styles import SHADES, expert_colors, legend_name

Image: TypeAlias = UInt8[np.ndarray, "P P 3"]
By: TypeAlias = Literal["expert", "weight", "entropy"]

_TITLES = {
    "expert": "The first expert of each patch",
    "weight": "Weight of each patch's first expert",
    "entropy": "How undecided the router is about each patch",
}
_LABELS = {"weight": "weight of the first expert", "entropy": "entropy in nats"}
_NEIGHBOURS = 8
_LEAST_WEIGHT = 0.005  # below, there is no line


@lettering.plain
def routing_map(image: Image, trace: ImageTrace, index: int = 0, *, by: By = "expert") -> Figure:
    """An image, and the same image once for each MoE layer with its patches coloured.

    Args:
      image: as it is to be shown.
      trace: of images among which this is number ``index``. It has to have kept what is shown: ``indices`` for experts,
        ``weights``, or ``informed`` for the entropy.
      index: number of the image in the trace.
      by: what the colours show.

    Raises:
      ValueError: an unknown ``by``, an index beyond the trace, or a trace that has not kept what is to be shown.
    """
    figure, drawn = panels(
        ["image", *trace.layers], _TITLES[_check_by(by)], subtitle=trace.label, layout=_layout(), share=False
    )
    axes = list(drawn.values())
    norm = _norm([trace], list(trace.layers), index, by)
    show_image(axes[0], image)
    for block, panel in zip(trace.layers, axes[1:], strict=True):
        _paint(panel, image, trace, block, index, by, norm)
    _key(figure, axes, trace, by, norm)
    return figure


@lettering.plain
def side_by_side(
    shown: Mapping[str, tuple[Image, ImageTrace]],
    index: int = 0,
    *,
    by: By = "expert",
    layers: Sequence[str] | None = None,
) -> Figure:
    """Maps of two or more routers, or of one router at two or more severities, next to each other.

    Args:
      shown: by the title of each column, the image and a trace in which it is number ``index``.
      index, by: as in :func:`routing_map`.
      layers: one row each; None: those that all traces have.

    Raises:
      ValueError: as :func:`routing_map`; nothing to show, traces of different numbers of experts, or an unknown layer.
    """
    _check_by(by)
    if not shown:
        raise checks.error("shown", "at least one image with its trace", dict(shown))
    traces = [trace for _, trace in shown.values()]
    numbers = {title: trace.num_experts for title, (_, trace) in shown.items()}
    if len(set(numbers.values())) > 1:
        raise checks.error("shown", "traces of the same number of experts", numbers)
    common = [block for block in traces[0].layers if all(block in trace.layers for trace in traces)]
    layers = common if layers is None else list(layers)
    if not layers or not set(layers) <= set(common):
        raise checks.error("layers", f"at least one of {', '.join(common) or 'none'}", layers)
    width = 1.8 if max(map(len, shown)) <= 22 else 2.5
    names = [f"{row} {title}" for row in ("image", *layers) for title in shown]
    layout = Layout(width=width, height=width, left=0.4, right=0.95, between=0.12, above=0.12, bottom=0.0)
    figure, drawn = panels(names, _TITLES[by], layout=layout, share=False, columns=len(shown))
    norm = _norm(traces, layers, index, by)
    for title, (image, trace) in shown.items():
        show_image(drawn[f"image {title}"], image)
        for block in layers:
            _paint(drawn[f"{block} {title}"], image, trace, block, index, by, norm)
    for position, axes in enumerate(drawn.values()):
        row, column = divmod(position, len(shown))
        axes.set_title(lettering.shown(legend_name(list(shown)[column])) if row == 0 else "", fontsize=9.5)
        axes.set_ylabel(lettering.shown(("image", *map(layer_name, layers))[row]) if column == 0 else "", fontsize=9.5)
    _key(figure, list(drawn.values()), traces[0], by, norm)
    return figure


@lettering.plain
def expert_maps(image: Image, trace: ImageTrace, block: str, index: int = 0) -> Figure:
    """The probability of each expert of a layer for each patch: one map an expert.

    Args:
      image: as it is to be shown.
      trace: with ``informed``.
      block: the MoE layer.
      index: number of the image in the trace.

    Raises:
      ValueError: an unknown layer, an index beyond the trace, or a trace without ``informed``.
    """
    probabilities = _patches(_kept(trace, block, "informed", index), trace)
    names = ["image", *(f"expert {expert}" for expert in range(trace.num_experts))]
    figure, drawn = panels(
        names,
        f"Which patches each expert of {layer_name(block)} is probable for",
        subtitle=trace.label,
        layout=_layout(1.4 if trace.num_experts > 8 else 1.8),
        share=False,
        columns=min(len(names), 3 if len(names) <= 9 else 6),
    )
    axes = list(drawn.values())
    show_image(axes[0], image)
    norm = Normalize(0, float(probabilities.max()))
    for expert, panel in enumerate(axes[1:]):
        _shade(panel, image, probabilities[..., expert], norm)
        panel.set_title(names[expert + 1], fontsize=9.5, color="black")
    color_bar(figure, ScalarMappable(norm, SHADES), axes, "probability of the expert")
    return figure


@lettering.plain
def token_graph(image: Image, trace: ImageTrace, block: str, patch: tuple[int, int], index: int = 0) -> Figure:
    """To what one patch attends: lines to its strongest neighbours, and the weight of each patch.

    The patch itself has its weight in numbers: as a shade it would leave all others dark.

    Args:
      image: as it is to be shown.
      trace: with ``graph`` and ``indices``.
      block: the MoE layer.
      patch: row and column of the patch, from 0.
      index: number of the image in the trace.

    Raises:
      ValueError: an unknown layer, a patch outside the image, or a trace without graphs.
    """
    rows, columns = trace.grid
    row, column = patch
    if not (0 <= row < rows and 0 <= column < columns):
        raise checks.error("patch", f"a row below {rows} and a column below {columns}", patch)
    graph = _kept(trace, block, "graph", index)
    token = row * columns + column + trace.class_token
    near = neighbours_of(graph[None], _NEIGHBOURS)
    figure, drawn = panels(
        ["lines", "shares"],
        f"To what the patch in row {row + 1}, column {column + 1} attends in {layer_name(block)}",
        subtitle=trace.label,
        layout=Layout(width=3.0, height=3.0, left=0.2, right=1.0, between=0.3, bottom=0.1),
        share=False,
    )
    lines, shares = drawn.values()
    _paint(lines, image, trace, block, index, "expert", Normalize(), numbered=False)
    strongest = float(near.weights[0, token].max(initial=0.0))
    for other, weight in zip(near.others[0, token], near.weights[0, token], strict=True):
        if other >= trace.class_token and weight >= _LEAST_WEIGHT:
            width = 0.8 + 4.0 * weight / strongest
            patches = [divmod(end - int(trace.class_token), columns) for end in (token, int(other))]
            ends = [middle_of(patch_, trace.grid, image.shape) for patch_ in patches]
            for color, extra in (("white", 1.6), ("black", 0.0)):
                lines.plot(*zip(*ends, strict=True), color=color, linewidth=width + extra, solid_capstyle="round")
    lines.set_title("colours: first expert; lines: largest weights", fontsize=9)
    weights = 100 * _patches(graph[token][:, None], trace)[..., 0]
    weights[row, column] = np.nan  # not on the scale
    norm = Normalize(0, max(float(np.nanmax(weights, initial=0.0)), 1.0))
    _shade(shares, image, weights, norm, opacity=0.85)
    own = f"{100 * graph[token, token]:.0f} %"
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"}
    shares.text(*middle_of(patch, trace.grid, image.shape), own, ha="center", va="center", fontsize=8, bbox=box)
    class_token = f", class token {100 * graph[token, 0]:.0f} %" if trace.class_token else ""
    shares.set_title(f"itself {own}{class_token}", fontsize=9)
    for axes in (lines, shares):
        high, wide = image.shape[0] / rows, image.shape[1] / columns
        for color, width in (("white", 4.0), ("black", 1.8)):
            outline = Rectangle((column * wide, row * high), wide, high, fill=False, edgecolor=color, linewidth=width)
            axes.add_patch(outline)
    bar = color_bar(figure, ScalarMappable(norm, SHADES), [shares], "weight of each other patch")
    bar.ax.yaxis.set_major_formatter("{x:g} %")
    return figure


def _check_by(by: str) -> str:
    if by not in _TITLES:
        raise checks.error("by", f"one of {', '.join(map(repr, _TITLES))}", by)
    return by


def _layout(width: float = 1.8) -> Layout:
    return Layout(width=width, height=width, left=0.15, right=0.95, between=0.12, bottom=0.0)


def _kept(trace: ImageTrace, block: str, field: str, index: int) -> np.ndarray:
    """One image's part of a field of a layer [N, ...]."""
    if block not in trace.layers:
        raise checks.error("block", f"one of {', '.join(trace.layers)}", block)
    found = getattr(trace.layers[block], field)
    if found is None:
        raise checks.error(f"trace.layers[{block!r}]", f"a trace that kept {field!r}", checks.NOTHING)
    if not 0 <= index < len(found):
        raise checks.error("index", f"0 to {len(found) - 1}, the images of the trace", index)
    return found[index]


def _patches(of_tokens: Float[np.ndarray, "N X"], trace: ImageTrace) -> np.ndarray:
    """Values of tokens [N, X] as those of patches [rows, columns, X]."""
    return of_tokens[int(trace.class_token) :].reshape(*trace.grid, -1)


def _shade(axes: Axes, image: np.ndarray, values: np.ndarray, norm: Normalize, opacity: float = 0.7) -> None:
    show_image(axes, image, grey=True)
    extent = axes.images[0].get_extent()
    axes.imshow(values, cmap=SHADES, norm=norm, alpha=opacity, extent=extent, interpolation="nearest")


def _paint(
    axes: Axes,
    image: Image,
    trace: ImageTrace,
    block: str,
    index: int,
    by: str,
    norm: Normalize,
    numbered: bool = True,
) -> None:
    if by == "weight":
        weights = _patches(_kept(trace, block, "weights", index)[:, :1], trace)[..., 0]
        _shade(axes, image, weights, norm)
        return
    if by == "entropy":
        probabilities = _kept(trace, block, "informed", index)
        entropy = math.log(max(trace.num_experts, 2)) * undecided(probabilities, trace.num_experts)
        _shade(axes, image, _patches(entropy[:, None], trace)[..., 0], norm)
        return
    experts = _patches(_kept(trace, block, "indices", index)[:, :1], trace)[..., 0]
    paint_experts(axes, image, experts, trace.num_experts, numbered=numbered)


def _norm(traces: Sequence[ImageTrace], layers: Sequence[str], index: int, by: str) -> Normalize:
    """From 0 to the most that the entropy could be, or to the largest weight that is shown."""
    highest = math.log(max(traces[0].num_experts, 2))
    if by == "weight":
        shown = (_kept(t, block, "weights", index)[int(t.class_token) :, 0] for t in traces for block in layers)
        highest = max(float(weights.max()) for weights in shown)
    return Normalize(0, max(highest, 1e-6))


def _key(figure: Figure, axes: Sequence[Axes], trace: ImageTrace, by: str, norm: Normalize) -> None:
    """The key of the colours, right of the maps."""
    if by != "expert":
        color_bar(figure, ScalarMappable(norm, SHADES), axes, _LABELS[by])
        return
    colors = ListedColormap(expert_colors(trace.num_experts))
    edges = BoundaryNorm(np.arange(trace.num_experts + 1) - 0.5, trace.num_experts)
    bar = color_bar(figure, ScalarMappable(edges, colors), axes, "expert")
    bar.ax.yaxis.set_major_locator(MaxNLocator(nbins=9, integer=True))
    bar.ax.yaxis.set_minor_locator(MaxNLocator(nbins=1))
    bar.ax.invert_yaxis()
    bar.ax.tick_params(which="minor", length=0)
