"""Pictures of how routing moves as images are corrupted, and of the accuracy that goes with it."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vmoe_inform.analysis.draw._panels import Layout, in_lines, named, panels
from vmoe_inform.analysis.results import Analysis, Corruptions
from vmoe_inform.lettering import plain, shown
from vmoe_inform.report.styles import BLACK, BLUE, GREEN, GREY, PURPLE, SHADES, VERMILION, empty_figure

# ImageNet-C's kinds of corruption (Hendrycks and Dietterich 2019).
FAMILIES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur"),
    "weather": ("snow", "frost", "fog", "brightness", "spatter"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression", "saturate"),
}
_STYLES = {
    "noise": (BLUE, "o"),
    "blur": (VERMILION, "s"),
    "weather": (GREEN, "^"),
    "digital": (PURPLE, "D"),
}
_OTHER_STYLE = (BLACK, "P")


def family_of(corruption: str) -> str:
    """``"fog"`` -> ``"weather"``; ``"other"`` for a corruption that is not ImageNet-C's."""
    return next((family for family, names in FAMILIES.items() if corruption in names), "other")


def family_styles(family: str) -> tuple[str, str]:
    """Colour and marker of a family."""
    return _STYLES.get(family, _OTHER_STYLE)


@plain
def rerouted_figure(analysis: Analysis) -> Figure:
    """Share of the tokens with other experts than on the clean image over the accuracy lost, by layer.

    Each line is a corruption, from its least to its greatest severity.

    Args:
      analysis: with ``corruptions``.
    """
    found = analysis.corruptions
    assert found is not None
    families = list(dict.fromkeys(family_of(name) for name in found.names))
    styles = {family: family_styles(family) for family in families}
    first, last = found.severities[0], found.severities[-1]
    figure, drawn = panels(
        list(found.rerouted),
        "As images get worse, do tokens go elsewhere?",
        subtitle=named(analysis.run),
        caption=f"top-1 accuracy lost, in points (clean: {100 * found.clean_top1:.1f} %);"
        f" a line is a corruption, from severity {first} to {last}",
        label="tokens with other experts",
        layout=Layout(width=2.2, height=1.9, left=0.75),
        legend=[
            Line2D([], [], color=color, marker=marker, markersize=5, label=family)
            for family, (color, marker) in styles.items()
        ],
    )
    lost = _lost(found)
    for block, axes in drawn.items():
        rerouted = 100 * np.asarray(found.rerouted[block], float)
        for row, name in enumerate(found.names):
            color, marker = styles[family_of(name)]
            axes.plot(lost[row], rerouted[row], color=color, marker=marker, markersize=3.5, linewidth=1, label=name)
        axes.yaxis.set_major_formatter("{x:g} %")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    axes.set_ylim(0, max(1.05 * axes.dataLim.y1 for axes in drawn.values()))
    return figure


@plain
def corruptions_figure(analysis: Analysis) -> Figure:
    """Accuracy lost and share of the tokens re-routed (mean over the layers), by corruption and severity.

    Args:
      analysis: with ``corruptions``.
    """
    found = analysis.corruptions
    assert found is not None
    names, severities = found.names, found.severities
    rerouted = 100 * np.mean([np.asarray(shares, float) for shares in found.rerouted.values()], axis=0)
    figure = empty_figure(7.2, 1.5 + 0.27 * len(names))
    moved, accuracy = figure.subplots(1, 2, sharey=True)
    num_layers = len(found.rerouted)
    mean = "" if num_layers == 1 else f" (mean of {num_layers} layers)"
    for axes, values, title, unit in (
        (moved, rerouted, "Tokens with other experts", f"%{mean}"),
        (accuracy, _lost(found), "Accuracy lost", "points"),
    ):
        _annotated(axes, values)
        axes.set_xticks(range(len(severities)), [str(severity) for severity in severities])
        axes.set_xlabel(f"severity; numbers in {unit}", fontsize=9)
        axes.set_title(title, fontsize=11)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    moved.set_yticks(range(len(names)), [shown(name.replace("_", " "), most=30) for name in names])
    figure.suptitle(f"What each corruption does (clean top-1: {100 * found.clean_top1:.1f} %)", fontsize=12)
    lines = in_lines(named(analysis.run), figure.get_figwidth() - 0.2)
    figure.supxlabel("\n".join(map(shown, lines)), fontsize=9, color=GREY)
    return figure


def _annotated(axes: Axes, values: np.ndarray) -> None:
    highest = max(float(values.max()), 1e-9)
    axes.imshow(values, aspect="auto", cmap=SHADES, vmin=min(0.0, float(values.min())), vmax=highest)
    for (row, column), value in np.ndenumerate(values):
        color = "black" if value > 0.55 * highest else "white"
        axes.text(column, row, str(round(value)), ha="center", va="center", fontsize=9, color=color)


def _lost(found: Corruptions) -> np.ndarray:
    """Points of top-1 accuracy [names, severities]."""
    return 100 * (found.clean_top1 - np.asarray(found.top1, float))
