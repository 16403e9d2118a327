"""Picture of how many tokens keep their experts: proven, and measured under corruptions."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vmoe_inform.analysis.draw._panels import Layout, named, panels
from vmoe_inform.analysis.draw.corruptions import family_of, family_styles
from vmoe_inform.analysis.layer_results import Certificate, Row
from vmoe_inform.analysis.results import Analysis, Certified, layer_name
from vmoe_inform.lettering import plain, shown
from vmoe_inform.report.styles import BLACK, BLUE, GREY, label_log_scale

_BY_PAIRS: dict[str, Any] = {"color": GREY, "linewidth": 1.8}
_BY_MARGIN: dict[str, Any] = {"color": GREY, "linewidth": 1.2, "linestyle": ":"}
_SWAPS = (BLUE, "o")


@dataclasses.dataclass(frozen=True)
class _Series:
    """A kind of changes of the inputs, with growing strength: in each layer the means at each.

    Attributes:
      label: in the legend.
      style: colour and marker.
      points: by block, lengths, and the shares that were measured and proven to keep their experts.
    """

    label: str
    style: tuple[str, str]
    points: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]


@plain
def certificates_figure(analysis: Analysis) -> Figure:
    """Share of the tokens that keep their experts over the change of their base probabilities, by layer.

    Grey lines are certificates for a change of the same length of all tokens. Where inputs were changed each token
    moves by a length of its own. A colour is a family of corruptions, or swapped words; points are severities or
    shares. Filled points are measured, hollow ones are proven of the same tokens.

    Args:
      analysis: with ``certificate`` in at least one layer.
    """
    layers = {block: layer.certificate for block, layer in analysis.layers.items() if layer.certificate is not None}
    series, points = _series(analysis)
    title = "How many tokens keep their experts"
    figure, drawn = panels(
        list(layers),
        f"{title}: proven and measured" if series else title,
        subtitle=named(analysis.run),
        caption="length of the change of a token's base probabilities" + (f"; points: {points}" if series else ""),
        label="share of tokens",
        layout=Layout(width=2.6, height=2.1, left=0.75),
        legend=[
            Line2D([], [], **_BY_PAIRS, label="proven (pairs)"),
            Line2D([], [], **_BY_MARGIN, label="proven (margin)"),
            *([Line2D([], [], **_proven(BLACK, "o"), label="proven, own lengths")] if series else []),
            *(Line2D([], [], **_measured(*one.style), label=one.label) for one in series),
        ],
    )
    for block, axes in drawn.items():
        certificate = layers[block]
        axes.plot(certificate.length, 100 * np.asarray(certificate.by_pairs), **_BY_PAIRS, label="pairs")
        axes.plot(certificate.length, 100 * np.asarray(certificate.by_margin), **_BY_MARGIN, label="margin")
        for one in series:
            if block in one.points:
                lengths, measured, proven = one.points[block]
                axes.plot(lengths, 100 * measured, **_measured(*one.style), label=f"{one.label}, measured")
                axes.plot(lengths, 100 * proven, **_proven(*one.style), label=f"{one.label}, proven")
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


def _measured(color: str, marker: str) -> dict[str, Any]:
    return {"color": color, "marker": marker, "markersize": 4, "linewidth": 1.2}


def _proven(color: str, marker: str) -> dict[str, Any]:
    return {"color": color, "marker": marker, "markersize": 4, "fillstyle": "none", "linewidth": 0.8, "linestyle": "--"}


def _series(analysis: Analysis) -> tuple[list[_Series], str]:
    """What was changed in the inputs, and what its points are, in words."""
    corruptions, swaps = analysis.corruptions, analysis.swapped_words
    if corruptions is not None and corruptions.certified:
        found = corruptions.certified, corruptions.rerouted
        families = list(dict.fromkeys(map(family_of, corruptions.names)))
        rows = {
            family: [row for row, name in enumerate(corruptions.names) if family_of(name) == family]
            for family in families
        }
        series = [_Series(family, family_styles(family), _points(*found, rows[family])) for family in families]
        return series, f"severities {corruptions.severities[0]} to {corruptions.severities[-1]}, mean lengths"
    if swaps is not None and swaps.certified:
        rerouted = {block: (shares,) for block, shares in swaps.rerouted.items()}
        shares = ", ".join(f"{100 * share:g}" for share in swaps.share)
        return [
            _Series("swapped words", _SWAPS, _points(swaps.certified, rerouted, [0]))
        ], f"{shares} % of the words swapped"
    return [], ""


def _points(
    certified: Mapping[str, Certified], rerouted: Mapping[str, Sequence[Row]], rows: list[int]
) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Means over rows."""

    def mean(values: Sequence[Row]) -> np.ndarray:
        return np.mean(np.asarray(values, float)[rows], axis=0)

    return {block: (mean(of.length), 1 - mean(rerouted[block]), mean(of.by_pairs)) for block, of in certified.items()}
