"""Entropy of the router in each layer, and changes of its choices in training."""

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vmoe_inform.analysis.draw._panels import layers_axes, named, titled
from vmoe_inform.analysis.results import Analysis
from vmoe_inform.lettering import legend, plain
from vmoe_inform.report.styles import BLUE, GREY, legend_name, series_styles

# By what changed: line and marker, which alone shows where there is one layer.
_LOOKS: Mapping[str, tuple[Literal["-", "--"], Literal["full", "none"]]] = {
    "set": ("-", "full"),
    "first": ("--", "none"),
}


@plain
def fluctuation_figure(analysis: Analysis) -> Figure:
    """Share of the tokens whose experts changed from one checkpoint to another, by layer, of both runs.

    Args:
      analysis: with ``fluctuation``.
    """
    against, other = analysis.against, None
    found = {"own": (analysis.run, analysis.fluctuation)}
    if against is not None and against.fluctuation is not None:  # None: of a single checkpoint there is none
        other = against.run
        found["other"] = (other, against.fluctuation)
    blocks = list(analysis.layers)
    styles = series_styles(list(found))
    figure, axes = layers_axes(blocks)
    handles: list[Line2D] = []
    for which, (run, fluctuation) in found.items():
        if fluctuation is None:
            continue
        for key, (line, filled) in _LOOKS.items():
            look = styles[which] | {"linestyle": line, "fillstyle": filled}
            changed = {blocks.index(b): 100 * getattr(of, key) for b, of in fluctuation.layers.items()}
            label = f"{run.name}, {key}"
            axes.plot(list(changed), list(changed.values()), label=label, clip_on=False, **look)
        label = f"{legend_name(run.name)}, step {fluctuation.from_step:,} to {fluctuation.to_step:,}"
        handles.append(Line2D([], [], label=label, **(styles[which] | {"linestyle": "none"})))
    for words, (line, filled) in zip(("another set of experts", "another first expert"), _LOOKS.values(), strict=True):
        handles.append(Line2D([], [], color=GREY, linestyle=line, marker="o", fillstyle=filled, label=words))
    axes.set_ylim(0, max(1.1 * axes.dataLim.y1, 1.0))
    axes.yaxis.set_major_formatter("{x:g} %")
    axes.set_ylabel("share of tokens")
    titled(figure, axes, "Tokens whose experts changed between two checkpoints", named(analysis.run, other))
    legend(figure, handles, loc="outside lower center", ncols=1, frameon=False, fontsize=9)
    return figure


@plain
def entropy_figure(analysis: Analysis) -> Figure:
    """Routing entropy of each layer as the experts are chosen from, of the router's own logits, and of another run."""
    layers, against = analysis.layers, analysis.against
    blocks, name = list(layers), legend_name(analysis.run.name)
    figure, axes = layers_axes(blocks)
    handles: list[Line2D] = []
    informed = [layer.entropy for layer in layers.values()]
    base = [layer.base_entropy for layer in layers.values()]
    positions = range(len(blocks))
    if not np.allclose(informed, base, rtol=0, atol=1e-6):
        label = f"{name}, before informing"
        handles += axes.plot(positions, base, color=BLUE, marker="v", linestyle=":", label=label)
    handles += axes.plot(positions, informed, color=BLUE, marker="o", label=name)
    if against is not None:
        found = {blocks.index(block): layer.entropy for block, layer in against.layers.items()}
        style = series_styles(["own", "other"])["other"]
        handles += axes.plot(list(found), list(found.values()), label=legend_name(against.run.name), **style)
    undecided = math.log(analysis.run.num_experts)
    axes.axhline(undecided, color=GREY, linestyle=":", linewidth=1)
    axes.annotate(
        f"all {analysis.run.num_experts} experts equally probable: {undecided:.2f}",
        (0.01, undecided),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        color=GREY,
        fontsize=9,
    )
    axes.set_ylim(0, 1.15 * undecided if undecided > 0 else 1.0)
    axes.set_ylabel("routing entropy in nats")
    titled(figure, axes, "How undecided the router is", _subtitle(analysis))
    legend(figure, handles, loc="outside lower center", ncols=1, frameon=False, fontsize=9)
    return figure


@plain
def entropy_ratio_figure(analysis: Analysis) -> Figure:
    """Routing entropy of each layer over that of another run.

    Args:
      analysis: with ``against``.
    """
    against = analysis.against
    assert against is not None
    found = {block: layer.entropy_ratio for block, layer in against.layers.items()}
    ratio_of = {block: ratio for block, ratio in found.items() if ratio is not None}  # None: the other's entropy is 0
    ratios = list(ratio_of.values())
    figure, axes = layers_axes(list(ratio_of))
    axes.axhline(1.0, color=GREY, linestyle="--", linewidth=1)
    axes.vlines(range(len(ratios)), 1.0, ratios, color=BLUE, linewidth=2)
    axes.plot(range(len(ratios)), ratios, color=BLUE, marker="o", linestyle="none")
    lowest, highest = min([*ratios, 1.0]), max([*ratios, 1.0])
    room = 0.15 * max(highest - lowest, 0.1)
    axes.set_ylim(lowest - room, highest + room)
    axes.set_ylabel("ratio of the routing entropies")
    title = f"Entropy relative to {legend_name(against.run.name)}: below 1 is more decided"
    titled(figure, axes, title, _subtitle(analysis))
    return figure


def _subtitle(analysis: Analysis) -> str:
    return named(analysis.run, None if analysis.against is None else analysis.against.run)
