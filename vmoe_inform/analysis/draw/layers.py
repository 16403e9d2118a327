"""Pictures of each MoE layer of one run: tables in the format of analysis.json in, a matplotlib Figure out."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from vmoe_inform import lettering
from vmoe_inform.analysis.draw._panels import (
    Layout,
    color_bar,
    layer_name,
    layers_along,
    layers_axes,
    panels,
    titled,
)
from vmoe_inform.data.images import label_sets
from vmoe_inform.lettering import legend, plain, shown
from vmoe_inform.report.styles import BLUE, GREY, SHADES, VERMILION, expert_colors, legend_name, series_styles

Analysis = Mapping[str, Any]

_MOST_NAMED_CLASSES = 30
_LONGEST_CLASS_NAME = 16


@plain
def fluctuation_figure(analysis: Analysis) -> Figure:
    """Share of the tokens whose experts changed from one checkpoint to another, by layer.

    Args:
      analysis: with ``fluctuation``.
    """
    found = analysis["fluctuation"]
    layers = list(found["layers"])
    figure, axes = layers_axes(layers)
    series = {
        "another set of experts": ("set", BLUE, "o", "-"),
        "another first expert": ("first", VERMILION, "s", "--"),
    }
    for label, (key, color, marker, line) in series.items():
        shares = [100 * found["layers"][block][key] for block in layers]
        axes.plot(range(len(layers)), shares, color=color, marker=marker, linestyle=line, label=label)
    axes.set_ylim(0, max(1.1 * axes.dataLim.y1, 1.0))
    axes.yaxis.set_major_formatter("{x:g} %")
    axes.set_ylabel("share of tokens")
    titled(figure, axes, f"Tokens routed elsewhere at step {found['to_step']:,} than at step {found['from_step']:,}")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


@plain
def entropy_figure(analysis: Analysis) -> Figure:
    """Routing entropy of each layer as the experts are chosen from, of the router's own logits, and of another run."""
    layers, against = analysis["layers"], analysis["against"]
    blocks, name = list(layers), analysis["run"]["name"]
    figure, axes = layers_axes(blocks)
    handles: list[Line2D] = []
    informed = [layers[block]["entropy"] for block in blocks]
    base = [layers[block]["base_entropy"] for block in blocks]
    places = range(len(blocks))
    if not np.allclose(informed, base, rtol=0, atol=1e-6):
        label = f"{legend_name(name)}, before informing"
        handles += axes.plot(places, base, color=BLUE, marker="v", linestyle=":", label=label)
    handles += axes.plot(places, informed, color=BLUE, marker="o", label=legend_name(name))
    if against is not None:
        found = {blocks.index(block): of["other_entropy"] for block, of in against["layers"].items()}
        other = against["run"]["name"]
        style = series_styles(["", other])[other]
        handles += axes.plot(list(found), list(found.values()), label=legend_name(other), **style)
    undecided = math.log(analysis["run"]["num_experts"])
    axes.axhline(undecided, color=GREY, linestyle=":", linewidth=1)
    axes.annotate(
        f"all {analysis['run']['num_experts']} experts alike: {undecided:.2f}",
        (0.01, undecided),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        color=GREY,
        fontsize=9,
    )
    axes.set_ylim(0, 1.15 * undecided if undecided > 0 else 1.0)
    axes.set_ylabel("routing entropy in nats")
    titled(figure, axes, "How undecided the router is")
    legend(figure, handles, loc="outside lower center", ncols=1, frameon=False)
    return figure


@plain
def entropy_ratio_figure(analysis: Analysis) -> Figure:
    """Routing entropy of each layer over that of another run.

    Args:
      analysis: with ``against``.
    """
    against = analysis["against"]
    ratio_of = {block: layer["entropy_ratio"] for block, layer in against["layers"].items()}
    blocks = [block for block, ratio in ratio_of.items() if ratio is not None]  # None: the other run's entropy is 0
    ratios = [ratio_of[block] for block in blocks]
    figure, axes = layers_axes(blocks)
    axes.axhline(1.0, color=GREY, linestyle="--", linewidth=1)
    axes.vlines(range(len(blocks)), 1.0, ratios, color=BLUE, linewidth=2)
    axes.plot(range(len(blocks)), ratios, color=BLUE, marker="o", linestyle="none")
    lowest, highest = min([*ratios, 1.0]), max([*ratios, 1.0])
    room = 0.15 * max(highest - lowest, 0.1)
    axes.set_ylim(lowest - room, highest + room)
    axes.set_ylabel("ratio of the routing entropies")
    less = sum(ratio < 1 for ratio in ratios)
    name, other = legend_name(analysis["run"]["name"]), legend_name(against["run"]["name"])
    number = f"{less} of {len(blocks)} layers" if len(blocks) > 1 else ("its layer" if less else "no layer")
    titled(figure, axes, f"{name} is more decided than {other} in {number} (below 1)")
    return figure


@plain
def load_figure(analysis: Analysis) -> Figure:
    """Share of the assignments that each expert gets, by layer, with the CV (and another run's); the line is even."""
    layers, against = analysis["layers"], analysis["against"]
    num_experts = analysis["run"]["num_experts"]
    other = "" if against is None else f"; the other run: {legend_name(against['run']['name'])}"
    figure, drawn = panels(
        list(layers),
        "How the work is shared between the experts",
        caption=f"expert (dashed: an even share; CV: standard deviation / mean{other})",
        label="share of assignments",
    )
    highest = max(max(layer["load"]) for layer in layers.values())
    for block, axes in drawn.items():
        layer = layers[block]
        axes.bar(range(num_experts), 100 * np.asarray(layer["load"], float), color=expert_colors(num_experts))
        axes.axhline(100 / num_experts, color=GREY, linestyle="--", linewidth=1)
        axes.set_title(f"{shown(layer_name(block))}: CV {layer['load_cv']:.2f}", fontsize=9.5)
        words = [f"{100 * layer['dropped']:.2g} % dropped"] if layer["dropped"] > 0 else []
        if against is not None and block in against["layers"]:
            words.append(f"the other run: CV {against['layers'][block]['other_load_cv']:.2f}")
        axes.text(0.99, 0.99, "\n".join(words), transform=axes.transAxes, ha="right", va="top", fontsize=8, color=GREY)
        axes.set_ylim(0, 135 * highest)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        axes.yaxis.set_major_formatter("{x:g} %")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


@plain
def neighbours_figure(analysis: Analysis) -> Figure:
    """How many tokens a token hears, and how much of that is itself, by layer: the spread over tokens.

    Args:
      analysis: with ``graph`` in at least one layer.
    """
    layers = {block: layer["graph"] for block, layer in analysis["layers"].items() if layer["graph"] is not None}
    blocks = list(layers)
    figure, drawn = panels(
        ["Tokens that a token hears", "How much of it is itself"],
        "How far tokens listen to each other",
        layout=Layout(width=max(2.7, 0.4 * len(blocks)), height=2.5, beside=0.95, bottom=0.55, left=0.75),
        legend=[
            Line2D([], [], color=BLUE, marker="o", linestyle="none", label="median"),
            Line2D([], [], color=VERMILION, marker="D", linestyle="none", label="mean"),
            Line2D([], [], color=BLUE, linewidth=7, alpha=0.45, label="half of the tokens"),
            Line2D([], [], color=BLUE, linewidth=1.2, label="9 of 10 tokens"),
        ],
        share=False,
    )
    number, own = drawn.values()
    for axes, key, scale in ((number, "effective_neighbours", 1.0), (own, "self_weight", 100.0)):
        for place, block in enumerate(blocks):
            _draw_spread(axes, place, [scale * value for value in layers[block][key]["quantiles"]])
            axes.plot(place, scale * layers[block][key]["mean"], color=VERMILION, marker="D", markersize=5)
        layers_along(axes, blocks)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
    highest = max(layer["effective_neighbours"]["quantiles"][-1] for layer in layers.values())
    number.set_ylim(0, max(1.1 * highest, 2.0))
    number.set_ylabel(f"effective number, of {analysis['run']['num_tokens']}")
    own.set_ylim(0, 102)
    own.yaxis.set_major_formatter("{x:g} %")
    own.set_ylabel("share of what it hears")
    return figure


def _draw_spread(axes: Axes, place: float, quantiles: list[float]) -> None:
    """Thin from the 5th to the 95th percentile, thick from the 25th to the 75th, a point at the median."""
    low, lower, middle, upper, high = quantiles
    axes.plot([place, place], [low, high], color=BLUE, linewidth=1.2)
    axes.plot([place, place], [lower, upper], color=BLUE, linewidth=7, alpha=0.45, solid_capstyle="butt")
    axes.plot(place, middle, color=BLUE, marker="o", markersize=6)


@plain
def specialisation_figure(analysis: Analysis) -> Figure:
    """Which experts work on the images of which class, by layer, and how much that says about the class.

    Of more than 30 classes, each layer's are ordered by the expert that they use most.
    """
    layers = {block: layer["specialisation"] for block, layer in analysis["layers"].items() if layer["specialisation"]}
    classes = [_class(name) for name in analysis["class_names"]]
    named = len(classes) <= _MOST_NAMED_CLASSES
    figure, drawn = panels(
        list(layers),
        "Which experts work on which class",
        caption="expert (MI: mutual information of class and expert in nats, and the most it could be)",
        label="class" if named else f"{len(classes):,} classes, ordered by the expert that each uses most",
        layout=Layout(
            height=min(max(0.16 * len(classes), 1.4), 3.2),
            left=0.5 + (0.085 * max(map(len, classes)) if named else 0.0),
            right=0.95,
        ),
    )
    shares = {block: 100 * np.asarray(layer["share"], float) for block, layer in layers.items()}
    highest = max(share.max() for share in shares.values())
    for block, axes in drawn.items():
        share = shares[block] if named else shares[block][_by_main_expert(shares[block])]
        picture = axes.imshow(share, aspect="auto", cmap=SHADES, norm=PowerNorm(0.5, 0, highest))
        most = min(layers[block]["class_entropy"], layers[block]["expert_entropy"])
        axes.set_title(
            f"{shown(layer_name(block))}: MI {layers[block]['mutual_information']:.2f} of {most:.2f}", fontsize=9.5
        )
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        axes.set_yticks(range(len(classes)) if named else [], map(shown, classes if named else []), fontsize=8)
    bar = color_bar(figure, picture, list(drawn.values()), "share of the class's assignments")
    bar.ax.yaxis.set_major_formatter("{x:g} %")
    return figure


def _by_main_expert(share: np.ndarray) -> np.ndarray:
    """Order of the classes [classes]: by their main expert, of each expert's the most faithful first."""
    return np.lexsort((-share.max(1), share.argmax(1)))


def _class(name: str) -> str:
    words = lettering.legible(label_sets.short_title(name), lettering.fonts())
    return words if len(words) <= _LONGEST_CLASS_NAME else words[: _LONGEST_CLASS_NAME - 1] + "…"
