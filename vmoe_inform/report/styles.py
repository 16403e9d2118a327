"""The one palette of runs, layers and experts in every picture and page.

Colours are those of Okabe and Ito (2008), which people with any common colour blindness tell apart. Runs differ in
marker and line style too, and expert colours are the same in every picture.
"""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from vmoe_inform import lettering

Color = tuple[float, float, float]

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"  # Okabe and Ito's, by their names there
SKY_BLUE, ORANGE, YELLOW, BLACK = "#56B4E9", "#E69F00", "#F0E442", "#000000"
GREY, LIGHT_GREY = "#666666", "#999999"
WRONG, WRONG_TEXT = VERMILION, "#A03000"  # of wrong answers; darker for letters, which are thin
SHADES = "cividis"  # of heat maps: even for the eye, in any kind of colour blindness
# Of HTML pages, by the names that their style sheets have for them.
PAGE = {
    "ink": "#1c1f23",
    "quiet": "#5b6168",
    "line": "#d9dde2",
    "band": "#f5f7f9",
    "mark": BLUE,
    "wrong": WRONG_TEXT,
}
MOST_NUMBERED_ROWS = 8  # of patches: numbers on smaller ones could not be read

_EXPERTS = (BLUE, ORANGE, GREEN, PURPLE, SKY_BLUE, VERMILION, YELLOW, LIGHT_GREY)
_SERIES = (BLUE, VERMILION, GREEN, PURPLE, SKY_BLUE, ORANGE, BLACK)
_MARKERS = "os^Dv*PX"
_LINES = ("-", "--", "-.", ":")
_LONGEST_NAME = 34  # characters of a run's name that a legend has room for


def series_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour, marker and line style of each of several runs (or layers of a study), by its position in ``names``."""
    return {
        name: {
            "color": _SERIES[position % len(_SERIES)],
            "marker": _MARKERS[position % len(_MARKERS)],
            "linestyle": _LINES[position % len(_LINES)],
        }
        for position, name in enumerate(names)
    }


def depth_styles(blocks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and line style of each layer in one diagram: the first dark, the last light, but not lost on white."""
    shades = np.linspace(0.0, 0.85, len(blocks)) if len(blocks) > 1 else [0.2]
    colors = matplotlib.colormaps["viridis"](shades)
    return {
        block: {"color": tuple(color[:3]), "linestyle": _LINES[position % len(_LINES)]}
        for position, (block, color) in enumerate(zip(blocks, colors, strict=True))
    }


def expert_colors(num_experts: int) -> list[Color]:
    """Colour of each expert: of Okabe and Ito up to eight, evenly spaced on the viridis scale beyond."""
    if num_experts <= len(_EXPERTS):
        return [to_rgb(color) for color in _EXPERTS[:num_experts]]
    return [tuple(color[:3]) for color in matplotlib.colormaps["viridis"](np.linspace(0, 1, num_experts))]


def legend_name(run: str, *, most: int = _LONGEST_NAME) -> str:
    """A run's name for a legend: of one of more than ``most`` characters, as of a path, the end."""
    run = lettering.legible(run, lettering.fonts())
    return run if len(run) <= most else "…" + run[1 - most :]


def legend_columns(runs: Sequence[str]) -> int:
    """Columns of a legend above a picture: two where the names are short."""
    return 2 if max(len(legend_name(run)) for run in runs) <= _LONGEST_NAME // 2 else 1


def room_for_legend(runs: Sequence[str], columns: int | None = None) -> float:
    """Inches that a legend above a picture needs beyond two lines.

    Args:
      runs: names.
      columns: of the legend; None: :func:`legend_columns`.
    """
    lines = math.ceil(len(runs) / (columns or legend_columns(runs)))
    return 0.21 * max(lines - 2, 0)


def label_log_scale(axis: Axis) -> None:
    """Labels a logarithmic axis at powers of ten, or at 1, 2 and 5 times these where it has fewer than two of them."""
    lowest, highest = sorted(axis.get_view_interval())
    powers = math.floor(math.log10(highest)) - math.ceil(math.log10(lowest)) + 1
    axis.set_major_locator(LogLocator(subs=(1.0,) if powers > 2 else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axis.set_minor_formatter(NullFormatter())


def empty_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches without pyplot's global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def single_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of this size in inches with one diagram."""
    figure = empty_figure(width, height)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def small_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of this size in inches with one diagram, one of many in a row.

    Their margins are fixed: diagrams line up, and are drawn in half the time that finding margins takes.
    """
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    left, right, bottom, top = 0.66, 0.12, 0.44, 0.26
    axes = figure.add_axes(
        (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height),
    )
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
