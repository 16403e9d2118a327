"""How runs and experts look in every picture of the report.

Colours are those of Okabe and Ito (2008; grey for black), which people with any common colour blindness tell apart.
Runs differ in marker and line style too, and expert colours are the same in every picture.
"""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from vmoe_inform import lettering

Color = tuple[float, float, float]

GREY = "#666666"
WRONG = "#D55E00"
_OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
_RUN_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MARKERS = "os^Dv*PX"
_LINES = ("-", "--", "-.", ":")
_LONGEST_NAME = 34  # characters of a run's name that a legend has room for


def run_styles(runs: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour, marker and line style of each run, by its place in ``runs``."""
    return {
        run: {
            "color": _RUN_COLORS[place % len(_RUN_COLORS)],
            "marker": _MARKERS[place % len(_MARKERS)],
            "linestyle": _LINES[place % len(_LINES)],
        }
        for place, run in enumerate(runs)
    }


def expert_colors(num_experts: int) -> list[Color]:
    """Colour of each expert: of Okabe and Ito up to eight, evenly spaced on the viridis scale beyond."""
    if num_experts <= len(_OKABE_ITO):
        return [to_rgb(color) for color in _OKABE_ITO[:num_experts]]
    return [tuple(color[:3]) for color in matplotlib.colormaps["viridis"](np.linspace(0, 1, num_experts))]


def legend_name(run: str) -> str:
    """A run's name for a legend: of a long one, as of a path, the end."""
    run = lettering.legible(run, lettering.fonts())
    return run if len(run) <= _LONGEST_NAME else "…" + run[1 - _LONGEST_NAME :]


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


def empty_figure(width: float, height: float) -> Figure:
    """A figure of so many inches without pyplot's global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def single_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of so many inches with one diagram."""
    figure = empty_figure(width, height)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def small_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of so many inches with one diagram, one of many beside each other.

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
