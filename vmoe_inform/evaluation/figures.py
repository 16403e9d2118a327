"""The report's pictures: each function takes numbers and returns a matplotlib Figure, without pyplot's global state.

Colours are those of Okabe and Ito (2008; grey for black), which people with any common colour blindness tell apart.
Runs differ in marker and line style too, and expert colours are the same in every picture.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from vmoe_inform import checks
from vmoe_inform.evaluation.headlines import Results, headline, suite_kind, suites_of

Color = tuple[float, float, float]

_OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
_RUN_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MARKERS = "os^Dv*PX"
_LINES = ("-", "--", "-.", ":")
_GREY = "#666666"
_WRONG = "#D55E00"


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


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def headline_figure(results: Mapping[str, Results]) -> Figure:
    """Headline of every suite, one point with its 95 % interval for each run.

    Args:
      results: results.json by run name.
    """
    suites = [
        suite
        for suite in suites_of(results)
        if any("not_available" not in r["suites"].get(suite, {"not_available": ""}) for r in results.values())
    ]
    figure, axes = _figure(5.6, 1.2 + 0.75 * len(suites))
    # Titles stand above their rows, not beside them: the page may be as narrow as a telephone.
    for row, suite in enumerate(suites):
        axes.text(0, row - 0.38, suite_kind(suite).title, va="center", fontsize=10)
    offsets = np.linspace(-0.1, 0.26, len(results)) if len(results) > 1 else [0.08]
    for (run, style), offset in zip(run_styles(list(results)).items(), offsets, strict=True):
        shown = {
            row: found
            for row, suite in enumerate(suites)
            if suite in results[run]["suites"] and (found := headline(suite, results[run]["suites"][suite]))
        }
        values = [100 * found.value for found in shown.values()]
        errors = [[100 * (f.value - f.low) for f in shown.values()], [100 * (f.high - f.value) for f in shown.values()]]
        axes.errorbar(
            values,
            [row + offset for row in shown],
            xerr=np.clip(errors, 0.0, None),
            fmt=style["marker"],
            color=style["color"],
            label=run,
            capsize=3,
        )
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylim(len(suites) - 0.5, -0.65)
    axes.set_xlim(0, 101)
    axes.set_xlabel("score in % (bars: 95 % interval)")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def corruption_figures(results: Mapping[str, Results]) -> dict[str, Figure]:
    """Accuracy over severity, one figure for each corruption, all on one scale; the dotted line is the clean score.

    Args:
      results: results.json by run name; runs without suite C are left out.
    """
    by_run = {run: result["suites"].get("c", {}).get("per_corruption", {}) for run, result in results.items()}
    names = list(dict.fromkeys(name for corruptions in by_run.values() for name in corruptions))
    styles = run_styles(list(results))
    lowest = min((100 * v for c in by_run.values() for scores in c.values() for v in scores), default=0.0)
    bottom = 10 * math.floor(max(lowest - 2, 0.0) / 10)
    figures = {}
    for name in names:
        figure, axes = _figure(2.6, 2.1)
        for run, corruptions in by_run.items():
            if name in corruptions:
                severities = range(1, len(corruptions[name]) + 1)
                axes.plot(severities, [100 * v for v in corruptions[name]], markersize=5, label=run, **styles[run])
                clean = results[run]["suites"].get("clean", {})
                if "top1" in clean:
                    axes.axhline(100 * clean["top1"], color=styles[run]["color"], linestyle=":", linewidth=1, zorder=1)
        axes.set_ylim(bottom, 101.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(name.replace("_", " "), fontsize=10)
        axes.set_xlabel("severity", fontsize=9)
        axes.set_ylabel("top-1 in %", fontsize=9)
        axes.grid(alpha=0.3)
        figures[name] = figure
    return figures


def legend_figure(runs: Sequence[str]) -> Figure:
    """The marks of the runs, for pictures too small to hold a legend of their own."""
    figure = Figure(figsize=(3.2, 0.1 + 0.26 * len(runs)))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    for run, style in run_styles(runs).items():
        axes.plot([], [], label=run, **style)
    axes.legend(loc="center left", frameon=False)
    return figure


def reliability_figure(results: Mapping[str, Results]) -> Figure:
    """How often answers are right at each confidence (above), and how many images have it (below).

    Args:
      results: results.json by run name; runs without ``suites.clean.reliability`` are left out.
    """
    figure = Figure(figsize=(5.2, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot([0, 100], [0, 100], color=_GREY, linewidth=1, label="perfectly calibrated")
    for run, style in run_styles(list(results)).items():
        clean = results[run]["suites"].get("clean", {})
        if "reliability" not in clean:
            continue
        bins = {key: np.asarray(values, float) for key, values in clean["reliability"].items()}
        filled = bins["count"] > 0  # an empty bin has no accuracy
        confidence = 100 * bins["confidence"][filled]
        label = f"{run} (mean gap {100 * clean['ece']:.1f} points)"
        above.plot(confidence, 100 * bins["accuracy"][filled], label=label, **style)
        below.plot(confidence, bins["count"][filled], **style)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    above.set_ylabel("share that is right in %")
    above.set_ylim(-3, 103)
    below.set_yscale("log")
    below.yaxis.set_major_formatter("{x:,.0f}")
    below.set_ylabel("images")
    below.set_xlabel("confidence of the answer in %")
    below.set_xlim(-2, 102)
    figure.legend(loc="outside upper left", frameon=False)
    return figure


def load_figures(routing: Mapping[str, Mapping[str, Any]]) -> dict[str, Figure]:
    """Share of the assignments that each expert gets, one figure for each MoE layer; the line is an even share.

    Args:
      routing: one run's ``routing``: by layer, with ``load`` [E] that sums to 1.
    """
    figures = {}
    highest = max((max(layer["load"]) for layer in routing.values()), default=1.0)
    for name, layer in routing.items():
        load = np.asarray(layer["load"], float)
        figure, axes = _figure(3.2, 2.2)
        axes.bar(range(len(load)), 100 * load, color=expert_colors(len(load)))
        axes.axhline(100 / len(load), color=_GREY, linestyle="--", linewidth=1)
        axes.set_ylim(0, 110 * max(highest, 1 / len(load)))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True))
        axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("expert", fontsize=9)
        axes.set_ylabel("share of tokens", fontsize=9)
        figures[name] = figure
    return figures


def entropy_figure(results: Mapping[str, Results]) -> Figure:
    """Routing entropy of each MoE layer, for each run, and the most it could be.

    Args:
      results: results.json by run name.
    """
    layers = list(dict.fromkeys(layer for result in results.values() for layer in result["routing"]))
    figure, axes = _figure(1.8 + max(3.4, 0.8 * len(layers)), 3.2)
    for run, style in run_styles(list(results)).items():
        routing = results[run]["routing"]
        places = [place for place, layer in enumerate(layers) if layer in routing]
        axes.plot(places, [routing[layers[place]]["entropy"] for place in places], label=run, **style)
    for num_experts in sorted({len(layer["load"]) for r in results.values() for layer in r["routing"].values()}):
        axes.axhline(math.log(num_experts), color=_GREY, linestyle="--", linewidth=1)
        axes.annotate(
            f"undecided between {num_experts} experts: ln {num_experts} = {math.log(num_experts):.2f}",
            (0.01, math.log(num_experts)),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            color=_GREY,
            fontsize=9,
        )
    axes.set_xticks(range(len(layers)), layers)
    axes.set_xlim(-0.5, len(layers) - 0.5)
    axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
    axes.set_ylabel("entropy in nats")
    axes.set_xlabel("MoE layer")
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


def example_figure(example: Mapping[str, Any], *, num_experts: int) -> Figure:
    """One image beside itself with each patch in the colour, and with the number, of its first-choice expert.

    Args:
      example: ``image`` uint8 [P, P, 3] (or [P, P]), ``label``, ``prediction``, ``confidence`` (a share), and
        ``experts``: by MoE layer, integers [rows, columns] of the patches, E for a patch that no expert took.
      num_experts: E, which fixes the colours.

    Raises:
      ValueError: experts of a shape other than [rows, columns], or outside 0 ... E.
    """
    image = np.asarray(example["image"])
    colors = np.asarray([*expert_colors(num_experts), to_rgb(_GREY)])
    layers = {name: np.asarray(experts) for name, experts in example["experts"].items()}
    figure = Figure(figsize=(1.35 * (1 + len(layers)), 1.95), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 1 + len(layers), squeeze=False)[0]
    wrong = example["prediction"] != example["label"]
    height, width = image.shape[:2]
    for axes, title in zip(panels, ["image", *layers], strict=True):
        axes.imshow(image, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0), interpolation="nearest")
        axes.set_title(title, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set(color=_WRONG if wrong else "black", linewidth=3 if wrong else 0.8)
    for axes, (name, experts) in zip(panels[1:], layers.items(), strict=True):
        if experts.ndim != 2:
            raise checks.error(f"experts[{name!r}]", "shape (rows, columns)", experts.shape)
        if experts.min() < 0 or experts.max() > num_experts:
            raise checks.error(f"experts[{name!r}]", f"0 to {num_experts}", (int(experts.min()), int(experts.max())))
        axes.imshow(colors[experts], alpha=0.6, extent=(0, width, height, 0), interpolation="nearest")
        rows, columns = experts.shape
        if rows <= 8:  # numbers on smaller patches could not be read
            for row in range(rows):
                for column in range(columns):
                    axes.text(
                        (column + 0.5) * width / columns,
                        (row + 0.5) * height / rows,
                        str(experts[row, column]) if experts[row, column] < num_experts else "–",
                        ha="center",
                        va="center",
                        fontsize=7,
                        bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
                    )
    verdict = f"wrong: says {example['prediction']}, is {example['label']}" if wrong else f"right: {example['label']}"
    figure.suptitle(
        f"{verdict} ({100 * example['confidence']:.0f} % sure)", fontsize=10, color="#A03000" if wrong else "black"
    )
    return figure
