"""Layout of figures of many MoE layers: one small diagram a layer, or the layers along an axis.

Margins are fixed: to find them takes matplotlib longer than to draw a dozen diagrams.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure

from vmoe_inform import lettering
from vmoe_inform.analysis.results import RunFacts, layer_name
from vmoe_inform.lettering import shown
from vmoe_inform.report.styles import GREY, legend_name, single_axes

_MOST_COLUMNS = 4
_TITLE_LINE, _SMALL_LINE = 0.22, 0.17  # inches
_TITLE_CHARACTERS, _SMALL_CHARACTERS = 9.3, 12.5  # an inch of letters of 12 and 9 points
_NO_BREAK = "\u00a0"
_KEY, _LEGEND_CHARACTERS = 0.6, 13.0  # inches of a key with its distances, and characters an inch of its label


@dataclasses.dataclass(frozen=True)
class Layout:
    """Sizes of a figure of many diagrams, in inches.

    Attributes:
      width, height: of each diagram.
      left: left of the diagrams, for tick labels and the name of the axis.
      right: for a colour bar.
      between, above: between columns, and above each row for its titles.
      bottom: for the tick labels below the diagrams.
    """

    width: float = 2.0
    height: float = 1.6
    left: float = 0.8
    right: float = 0.2
    between: float = 0.2
    above: float = 0.32
    bottom: float = 0.3


def panels(
    names: Sequence[str],
    title: str,
    *,
    subtitle: str = "",
    caption: str = "",
    label: str = "",
    layout: Layout | None = None,
    legend: Sequence[Artist] = (),
    share: bool = True,
    columns: int | None = None,
) -> tuple[Figure, dict[str, Axes]]:
    """A figure with one diagram for each name, at most four in a row.

    Args:
      names: one diagram each; those of layers are written with spaces.
      title: of the figure.
      subtitle: below the title, smaller: which run, at which step (:func:`named`).
      caption: below all diagrams: what their x axes show.
      label: left of all diagrams: what their y axes show.
      layout: sizes.
      legend: what is explained at the bottom, in as many lines as it needs.
      share: whether the diagrams share both axes.
      columns: diagrams in a row.
    """
    size = layout or Layout()
    columns = columns or panel_columns(len(names))
    rows = math.ceil(len(names) / columns)
    inner = columns * size.width + (columns - 1) * size.between
    width = max(size.left + inner + size.right, 4.6)
    title_lines, caption_lines = in_lines(title, width, _TITLE_CHARACTERS), in_lines(caption, width)
    subtitle_lines = in_lines(subtitle, width) if subtitle else []
    titles = _TITLE_LINE * len(title_lines) + _SMALL_LINE * len(subtitle_lines) + 0.04 * bool(subtitle)
    top = 0.15 + titles + max(size.above, 0.32)
    legend_columns = _legend_columns([str(artist.get_label()) for artist in legend], width - 0.2)
    legend_height = 0.1 + 0.2 * math.ceil(len(legend) / legend_columns) if legend else 0.0
    bottom = size.bottom + (_SMALL_LINE * len(caption_lines) + 0.08) * bool(caption) + legend_height + 0.08
    height = top + rows * size.height + (rows - 1) * (size.above + size.bottom * (not share)) + bottom
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    spare = width - size.left - inner - size.right
    grid = figure.add_gridspec(
        rows,
        columns,
        left=(size.left + spare / 2) / width,
        right=1 - (size.right + spare / 2) / width,
        bottom=bottom / height,
        top=1 - top / height,
        wspace=size.between / size.width,
        hspace=(size.above + size.bottom * (not share)) / size.height,
    )
    all_axes = grid.subplots(squeeze=False, sharex=share, sharey=share)
    drawn = dict(zip(names, all_axes.flat, strict=False))
    for axes in all_axes.flat[len(names) :]:
        axes.remove()
    for position, (name, axes) in enumerate(drawn.items()):
        axes.set_title(shown(layer_name(name), most=40), fontsize=9.5)
        axes.tick_params(labelsize=8.5)
        if share and position + columns >= len(names):  # the lowest of its column
            axes.xaxis.set_tick_params(labelbottom=True)
    figure.suptitle("\n".join(map(shown, title_lines)), fontsize=12, y=1 - 0.1 / height, va="top")
    if subtitle:
        y = 1 - (0.13 + _TITLE_LINE * len(title_lines)) / height
        figure.text(0.5, y, "\n".join(map(shown, subtitle_lines)), fontsize=9, color=GREY, ha="center", va="top")
    if caption:
        middle = (size.left + spare / 2 + inner / 2) / width if width > 6 else 0.5
        y = (0.08 + legend_height) / height
        figure.supxlabel("\n".join(map(shown, caption_lines)), fontsize=9, x=middle, y=y, va="bottom")
    if label:
        middle = (bottom + (height - top - bottom) / 2) / height
        figure.supylabel(shown(label), fontsize=9, x=(0.08 + spare / 2) / width, y=middle, ha="left")
    if legend:
        lettering.legend(figure, legend, loc="lower center", ncols=legend_columns, frameon=False, fontsize=9)
    return figure, drawn


def _legend_columns(labels: Sequence[str], width: float) -> int:
    """The most columns that fit into a width in inches; a legend fills them one after the other, of even lengths."""
    for number in range(len(labels), 1, -1):
        columns = np.array_split([_KEY + len(label) / _LEGEND_CHARACTERS for label in labels], number)
        if sum(column.max() for column in columns) <= width:
            return number
    return 1


def panel_columns(number: int) -> int:
    """Columns for ``number`` diagrams."""
    return 3 if number in (5, 6, 9) else min(number, _MOST_COLUMNS)


def color_bar(figure: Figure, shown: ScalarMappable, drawn: Sequence[Axes], label: str) -> Colorbar:
    """A colour bar right of all diagrams; the layout has to leave an inch for it."""
    boxes = [axes.get_position() for axes in drawn]
    bottom, top, right = min(box.y0 for box in boxes), max(box.y1 for box in boxes), max(box.x1 for box in boxes)
    width = figure.get_figwidth()
    length = min(top - bottom, 3.0 / figure.get_figheight())
    box = (right + 0.15 / width, (top + bottom - length) / 2, 0.14 / width, length)
    bar = figure.colorbar(shown, cax=figure.add_axes(box))
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8.5)
    return bar


def layers_axes(layers: Sequence[str]) -> tuple[Figure, Axes]:
    """A figure with one diagram, wide enough for the layers along its x axis."""
    figure, axes = single_axes(max(5.2, 1.6 + 0.45 * len(layers)), 3.8)
    axes.grid(axis="y", alpha=0.3)
    layers_along(axes, layers)
    return figure, axes


def layers_along(axes: Axes, layers: Sequence[str]) -> None:
    """Names the positions 0, 1, ... of the x axis after the layers."""
    numbers = [block.removeprefix("block_") for block in layers]
    all_numbered = all(number.isdecimal() for number in numbers)
    names = numbers if all_numbered else list(layers)
    axes.set_xticks(
        range(len(layers)),
        [shown(name, most=20) for name in names],
        rotation=0 if all_numbered or len(layers) <= 4 else 45,
    )
    axes.set_xlabel("MoE layer (number of its block)" if all_numbered else "MoE layer")
    axes.set_xlim(-0.5, len(layers) - 0.5)


def titled(figure: Figure, axes: Axes, title: str, subtitle: str) -> None:
    """Writes the titles of a figure with one diagram above it, each in as many lines as it needs."""
    width = figure.get_figwidth() - 0.7
    lines, small = in_lines(title, width, _TITLE_CHARACTERS), in_lines(subtitle, width)
    axes.annotate(
        "\n".join(map(shown, small)),
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 8),
        textcoords="offset points",
        fontsize=9,
        color=GREY,
        va="bottom",
    )
    axes.set_title("\n".join(map(shown, lines)), fontsize=12, loc="left", pad=12 + 72 * _SMALL_LINE * len(small))


def named(run: RunFacts, other: RunFacts | None = None) -> str:
    """Which run a figure shows, at which step and on which records; and the run that it is compared with."""
    compared = "" if other is None else f", compared with {_at_step(other)}"
    ahead = "; routers look ahead" if run.looks_ahead else ""
    return f"{_at_step(run)}{compared}; {run.count:,} {run.unit} ({run.suite}){ahead}"


def _at_step(run: RunFacts) -> str:
    return f"{legend_name(run.name)}, step{_NO_BREAK}{run.step:,}"


def in_lines(text: str, width: float, characters: float = _SMALL_CHARACTERS) -> list[str]:
    """A text in lines of about the same length that fit into a width in inches, of ``characters`` an inch each.

    No line is broken at a no-break space, which becomes a plain one.
    """
    number = max(math.ceil(len(text) / (characters * width)), 1)
    while True:
        longest, found = math.ceil(len(text) / number), [""]
        for word in text.split(" "):
            if found[-1] and len(found[-1]) + len(word) / 2 > longest and len(found) < number:
                found.append(word)
            else:
                found[-1] = f"{found[-1]} {word}".strip()
        if max(map(len, found)) <= characters * width or number >= len(text.split(" ")):
            return [line.replace(_NO_BREAK, " ") for line in found]
        number += 1
