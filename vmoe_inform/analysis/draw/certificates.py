"""Picture of how many tokens keep their experts: proven, and measured under corruptions."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vmoe_inform.analysis.draw._panels import Layout, named, panels
from vmoe_inform.analysis.draw.corruptions import family_of, family_styles
from vmoe_inform.analysis.results import Analysis, Certificate, Corruptions, layer_name
from vmoe_inform.lettering import plain, shown
from vmoe_inform.report.styles import BLACK, GREY, label_log_scale

_BY_PAIRS: dict[str, Any] = {"color": GREY, "linewidth": 1.8}
_BY_MARGIN: dict[str, Any] = {"color": GREY, "linewidth": 1.2, "linestyle": ":"}


@plain
def certificates_figure(analysis: Analysis) -> Figure:
    """Share of the tokens that keep their experts over the change of their base probabilities, by layer.

    Grey lines are certificates for a change of the same length of all tokens. Under corruptions each token changes by
    a length of its own. A colour is a family of corruptions, its points are the severities. Filled points are measured,
    hollow ones are proven of the same tokens.

    Args:
      analysis: with ``certificate`` in at least one layer.
    """
    layers = {block: layer.certificate for block, layer in analysis.layers.items() if layer.certificate is not None}
    found = analysis.corruptions
    families: list[str] = []
    caption = "length of the change of a token's base probabilities"
    if found is not None and found.certified:
        families = list(dict.fromkeys(map(family_of, found.names)))
        caption += f"; points: severities {found.severities[0]} to {found.severities[-1]}, mean lengths"
    figure, drawn = panels(
        list(layers),
        "How many tokens keep their experts: proven and measured" if families else "How many tokens keep their experts",
        subtitle=named(analysis.run),
        caption=caption,
        label="share of tokens",
        layout=Layout(width=2.6, height=2.1, left=0.75),
        legend=[
            Line2D([], [], **_BY_PAIRS, label="proven (pairs)"),
            Line2D([], [], **_BY_MARGIN, label="proven (margin)"),
            *([Line2D([], [], **_proven(BLACK, "o"), label="proven, own lengths")] if families else []),
            *(Line2D([], [], **_measured(family), label=family) for family in families),
        ],
    )
    for block, axes in drawn.items():
        certificate = layers[block]
        axes.plot(certificate.length, 100 * np.asarray(certificate.by_pairs), **_BY_PAIRS, label="pairs")
        axes.plot(certificate.length, 100 * np.asarray(certificate.by_margin), **_BY_MARGIN, label="margin")
        if found is not None and block in found.certified:
            _draw_corruptions(axes, found, block, families)
        axes.set_title(_title(block, certificate), fontsize=9.5)
        axes.set_xscale("log")
        label_log_scale(axes.xaxis)
        axes.yaxis.set_major_formatter("{x:g} %")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(0, 102)
    return figure


def _title(block: str, certificate: Certificate) -> str:
    return shown(f"{layer_name(block)}: rho = {certificate.rho:.3g}", most=40)


def _measured(family: str) -> dict[str, Any]:
    color, marker = family_styles(family)
    return {"color": color, "marker": marker, "markersize": 4, "linewidth": 1.2}


def _proven(color: str, marker: str) -> dict[str, Any]:
    return {"color": color, "marker": marker, "markersize": 4, "fillstyle": "none", "linewidth": 0.8, "linestyle": "--"}


def _draw_corruptions(axes: Axes, found: Corruptions, block: str, families: list[str]) -> None:
    certified = found.certified[block]
    kept = 1 - np.asarray(found.rerouted[block])
    for family in families:
        rows = [row for row, name in enumerate(found.names) if family_of(name) == family]
        lengths, measured, proven = (
            np.mean(np.asarray(values)[rows], axis=0) for values in (certified.length, kept, certified.by_pairs)
        )
        axes.plot(lengths, 100 * measured, **_measured(family), label=f"{family}, measured")
        axes.plot(lengths, 100 * proven, **_proven(*family_styles(family)), label=f"{family}, proven")
