"""Pictures of what routers do: numbers in, a matplotlib Figure out."""

import math
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from vmoe_inform import checks, text
from vmoe_inform.data.images import label_sets
from vmoe_inform.evaluation.results import LayerRouting, Results
from vmoe_inform.lettering import legend, plain, shown
from vmoe_inform.report.patches import paint_experts, show_image
from vmoe_inform.report.styles import (
    BLACK,
    GREY,
    MOST_NUMBERED_ROWS,
    WRONG,
    WRONG_TEXT,
    empty_figure,
    expert_colors,
    legend_columns,
    legend_name,
    room_for_legend,
    series_styles,
    single_axes,
    small_axes,
)

_PANEL = 1.35  # inches


@plain
def load_figures(routing: Mapping[str, LayerRouting]) -> dict[str, Figure]:
    """Share of the assignments that each expert gets, one figure for each MoE layer; the line is an even share.

    Args:
      routing: of one run, by layer.
    """
    figures = {}
    highest = max((max(layer.load) for layer in routing.values()), default=1.0)
    for name, layer in routing.items():
        load = np.asarray(layer.load, float)
        figure, axes = small_axes(3.2, 2.2)
        axes.bar(range(len(load)), 100 * load, color=expert_colors(len(load)))
        axes.axhline(100 / len(load), color=GREY, linestyle="--", linewidth=1)
        axes.set_ylim(0, 110 * max(highest, 1 / len(load)))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True))
        axes.set_xlim(-0.6, len(load) - 0.4)  # no number beyond the last expert's
        axes.yaxis.set_major_formatter("{x:g} %")
        axes.set_title(shown(name, most=30), fontsize=10)
        axes.set_xlabel("expert", fontsize=9)
        axes.set_ylabel("share of assignments", fontsize=9)
        figures[name] = figure
    return figures


@plain
def entropy_figure(results: Mapping[str, Results]) -> Figure:
    """Routing entropy of each MoE layer, for each run, and the most it could be.

    Args:
      results: results.json by run name.
    """
    layers = list(dict.fromkeys(layer for result in results.values() for layer in result.routing))
    figure, axes = single_axes(5.2, 3.2 + room_for_legend(list(results)))
    handles: list[Line2D] = []
    for run, style in series_styles(list(results)).items():
        routing = results[run].routing
        columns = [column for column, layer in enumerate(layers) if layer in routing]
        entropies = [routing[layers[column]].entropy for column in columns]
        handles += axes.plot(columns, entropies, label=legend_name(run), **style)
    for num_experts in sorted({len(layer.load) for r in results.values() for layer in r.routing.values()}):
        axes.axhline(math.log(num_experts), color=GREY, linestyle="--", linewidth=1)
        axes.annotate(
            f"undecided between {num_experts} experts: ln {num_experts} = {math.log(num_experts):.2f}",
            (0.01, math.log(num_experts)),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            color=GREY,
            fontsize=9,
        )
    axes.set_xticks(
        range(len(layers)), [shown(layer, most=20) for layer in layers], rotation=0 if len(layers) <= 4 else 45
    )
    axes.set_xlim(-0.5, len(layers) - 0.5)
    axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
    axes.set_ylabel("entropy in nats")
    axes.set_xlabel("MoE layer")
    axes.grid(axis="y", alpha=0.3)
    legend(figure, handles, loc="outside upper center", ncols=legend_columns(list(results)), frameon=False)
    return figure


@plain
def example_figure(example: Mapping[str, Any], *, num_experts: int) -> Figure:
    """One image, and the same image with each patch in the colour of its first-choice expert.

    Patches have their experts' numbers too, or, where they are too small for numbers, there is a key of the colours.

    Args:
      example: ``image`` uint8 [P, P, 3] (or [P, P]), ``label``, ``prediction``, ``confidence`` (a share) and
        ``experts``. These are integers [rows, columns] of the patches by MoE layer, E for a patch that no expert took.
      num_experts: E, which fixes the colours.

    Raises:
      ValueError: experts of a shape other than [rows, columns], or outside 0 ... E.
    """
    layers = {name: np.asarray(experts) for name, experts in example["experts"].items()}
    for name, experts in layers.items():
        if experts.ndim != 2:
            raise checks.error(f"experts[{name!r}]", "shape (rows, columns)", experts.shape)
        if experts.min() < 0 or experts.max() > num_experts:
            raise checks.error(f"experts[{name!r}]", f"0 to {num_experts}", (int(experts.min()), int(experts.max())))
    has_key = any(len(experts) > MOST_NUMBERED_ROWS for experts in layers.values())
    # Rows of at most three, so that patches can be told apart where the page is narrow too.
    panels = 1 + len(layers)
    columns = {1: 1, 2: 2, 4: 2}.get(panels, 3)
    rows = math.ceil(panels / columns)
    width = _PANEL * columns
    verdict = textwrap.wrap(text.printable(_verdict(example)), width=round(13 * width))  # characters in an inch
    figure = empty_figure(width, (_PANEL + 0.25) * rows + 0.17 * len(verdict) + 0.2 + 0.45 * has_key)
    grid = figure.add_gridspec(rows + has_key, columns, height_ratios=[1] * rows + [0.08] * has_key)
    wrong = example["prediction"] != example["label"]
    for panel, title in enumerate(["image", *layers]):
        axes = figure.add_subplot(grid[divmod(panel, columns)])
        axes.set_title(shown(title, most=20), fontsize=9)
        for spine in axes.spines.values():
            spine.set(color=WRONG if wrong else BLACK, linewidth=3 if wrong else 0.8)
        image = np.asarray(example["image"])
        if title in layers:
            paint_experts(axes, image, layers[title], num_experts)
        else:
            show_image(axes, image)
    if has_key:
        key = figure.add_subplot(grid[rows, :])
        key.imshow([expert_colors(num_experts)], aspect="auto", extent=(-0.5, num_experts - 0.5, 0, 1))
        key.set(yticks=[])
        key.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True))
        key.tick_params(labelsize=7)
        key.set_xlabel("expert", fontsize=8)
    figure.suptitle("\n".join(map(shown, verdict)), fontsize=10, color=WRONG_TEXT if wrong else BLACK)
    return figure


def _verdict(example: Mapping[str, Any]) -> str:
    """E.g. ``"wrong: says tabby, is Egyptian cat (90 % sure)"``."""
    label, prediction = (label_sets.short_title(example[key]) for key in ("label", "prediction"))
    sure = f"({100 * example['confidence']:.0f} % sure)"
    if example["prediction"] == example["label"]:
        return f"right: {label} {sure}"
    return f"wrong: says {prediction}, is {label} {sure}"
