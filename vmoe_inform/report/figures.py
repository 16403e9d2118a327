"""The report's pictures of scores: each function takes numbers and returns a matplotlib Figure."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from vmoe_inform.evaluation.headlines import headline, suites_of
from vmoe_inform.evaluation.metrics import calibration_error
from vmoe_inform.evaluation.results import SHARE, Reliability, Results, Unit
from vmoe_inform.lettering import legend, plain, shown
from vmoe_inform.report import domains
from vmoe_inform.report.entries import entries_of, per_corruption, title
from vmoe_inform.report.styles import (
    GREY,
    empty_figure,
    label_log_scale,
    legend_columns,
    legend_name,
    room_for_legend,
    series_styles,
    single_axes,
    small_axes,
)


def suites_in(unit: Unit, results: Mapping[str, Results]) -> list[str]:
    """Suites with a result, whose headline has this unit."""
    found = {suite: entries_of(results, suite).values() for suite in suites_of(results)}
    return [suite for suite, of in found.items() if any((entry.scale or SHARE).unit == unit for entry in of)]


@plain
def headline_figure(results: Mapping[str, Results], *, unit: Unit = "share") -> Figure:
    """Headline of every suite, one point with its 95 % interval for each run.

    Args:
      results: by run name.
      unit: of the headlines that are shown.
    """
    suites, factor = suites_in(unit, results), 100 if unit == "share" else 1
    figure, axes = single_axes(5.6, 1.2 + 0.75 * len(suites) + room_for_legend(list(results)))
    # Titles stand above their rows, not to the left: the page may be as narrow as a telephone.
    for row, suite in enumerate(suites):
        place = axes.transData if unit == "share" else axes.get_yaxis_transform()
        words = axes.text(0, row - 0.38, shown(title(results, suite)), va="center", fontsize=10, transform=place)
        words.set_in_layout(False)  # a title that is too long is cut off by the edge
    handles = []
    offsets = np.linspace(-0.1, 0.26, len(results)) if len(results) > 1 else [0.08]
    for (run, style), offset in zip(series_styles(list(results)).items(), offsets, strict=True):
        found_in_row = {
            row: headline(results[run].suites[suite])
            for row, suite in enumerate(suites)
            if suite in results[run].suites
        }
        values = [factor * found.value for found in found_in_row.values()]
        errors = [
            (factor * (found.value - found.low), factor * (found.high - found.value)) for found in found_in_row.values()
        ]
        drawn = axes.errorbar(
            values,
            [row + offset for row in found_in_row],
            xerr=np.clip(np.reshape(errors, (-1, 2)).T, 0.0, None),
            fmt=style["marker"],
            color=style["color"],
            label=legend_name(run),
            capsize=3,
        )
        handles.append(drawn)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylim(len(suites) - 0.5, -0.65)
    if unit == "share":
        axes.set_xlim(0, 101)
        axes.set_xlabel("score in % (bars: 95 % interval)")
    else:
        axes.set_xlabel(f"{unit}, less is better (bars: 95 % interval)")
    axes.grid(axis="x", alpha=0.3)
    legend(figure, handles, loc="outside upper center", ncols=legend_columns(list(results)), frameon=False)
    return figure


@plain
def corruption_figures(results: Mapping[str, Results]) -> dict[str, Figure]:
    """Accuracy over severity, one figure for each corruption, all on one scale; the dotted line is the clean score.

    Args:
      results: by run name; runs without suite C are left out.
    """
    by_run = per_corruption(results)
    names = list(dict.fromkeys(name for corruptions in by_run.values() for name in corruptions))
    styles = series_styles(list(results))
    lowest = min((100 * v for c in by_run.values() for scores in c.values() for v in scores), default=0.0)
    bottom = 10 * math.floor(max(lowest - 2, 0.0) / 10)
    figures = {}
    for name in names:
        figure, axes = small_axes(2.6, 2.1)
        for run, corruptions in by_run.items():
            if name in corruptions:
                severities = range(1, len(corruptions[name]) + 1)
                axes.plot(severities, [100 * v for v in corruptions[name]], markersize=5, label=run, **styles[run])
                if "clean" in results[run].suites:
                    clean = headline(results[run].suites["clean"])
                    axes.axhline(100 * clean.value, color=styles[run]["color"], linestyle=":", linewidth=1, zorder=1)
        axes.set_ylim(bottom, 101.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(shown(name.replace("_", " "), most=30), fontsize=10)
        axes.set_xlabel("severity", fontsize=9)
        axes.set_ylabel("top-1 in %", fontsize=9)
        axes.grid(alpha=0.3)
        figures[name] = figure
    return figures


@plain
def swap_figures(results: Mapping[str, Results]) -> dict[str, Figure]:
    """Perplexity over the share of swapped words, one figure for each variant of the attack, all on one scale.

    Args:
      results: by run name; runs without suite word_swap are left out.
    """
    entries = entries_of(results, "word_swap")
    figures = {}
    highest = max((max(c.perplexity) for e in entries.values() for c in e.swapped.values()), default=1.0)
    lowest = min((min(c.perplexity) for e in entries.values() for c in e.swapped.values()), default=1.0)
    for variant in dict.fromkeys(variant for entry in entries.values() for variant in entry.swapped):
        figure, axes = small_axes(3.4, 2.6)
        for run, entry in entries.items():
            if variant in entry.swapped:
                curve, style = entry.swapped[variant], series_styles(list(results))[run]
                axes.plot(100 * np.asarray(curve.swapped), curve.perplexity, label=run, markersize=5, **style)
        axes.set_ylim(lowest - 0.06 * (highest - lowest), highest + 0.06 * (highest - lowest) + 1e-6)
        axes.set_xlim(left=0)
        axes.set_title(_VARIANTS.get(variant, shown(variant, most=40)), fontsize=10)
        axes.set_xlabel("words that were swapped in %", fontsize=9)
        axes.set_ylabel("perplexity", fontsize=9)
        axes.grid(alpha=0.3)
        figures[variant] = figure
    return figures


_VARIANTS = {
    "text": "test text swapped",
    "inputs": "test inputs swapped",
    "validation_text": "validation text swapped",
    "validation_inputs": "validation inputs swapped",
}


@plain
def legend_figure(runs: Sequence[str]) -> Figure:
    """The marks of the runs, for pictures too small to hold a legend of their own."""
    figure, axes = single_axes(3.4, 0.1 + 0.26 * len(runs))
    axes.axis("off")
    handles = [Line2D([], [], label=legend_name(run), **style) for run, style in series_styles(runs).items()]
    legend(axes, handles, loc="center left", frameon=False, borderaxespad=0)
    return figure


def reliability_diagrams(results: Mapping[str, Results]) -> dict[str, Reliability]:
    """The diagrams of the clean records, by run name."""
    entries = {**entries_of(results, "classification"), **entries_of(results, "clean")}
    found = {run: entry.reliability for run, entry in entries.items()}
    return {run: diagram for run, diagram in found.items() if diagram is not None}


@plain
def reliability_figure(results: Mapping[str, Results]) -> Figure:
    """Accuracy at each confidence (above), and the number of images with it (below).

    Args:
      results: by run name; runs without a diagram are left out.
    """
    diagrams = reliability_diagrams(results)
    figure = empty_figure(5.2, 5.6 + room_for_legend(list(results), columns=1))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    handles = above.plot([0, 100], [0, 100], color=GREY, linewidth=1, label="perfectly calibrated")
    for run, style in series_styles(list(results)).items():
        if run not in diagrams:
            continue
        bins = diagrams[run]
        filled = np.asarray(bins.count) > 0  # an empty bin has no accuracy
        confidence = 100 * np.asarray(bins.confidence)[filled]
        label = f"{legend_name(run)} (mean gap {100 * calibration_error(bins):.1f} points)"
        handles += above.plot(confidence, 100 * np.asarray(bins.accuracy)[filled], label=label, **style)
        below.plot(confidence, np.asarray(bins.count)[filled], **style)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    above.set_ylabel("share that is right in %")
    above.set_ylim(-3, 103)
    lowest, highest = below.dataLim.intervaly
    if highest > 20 * lowest:
        below.set_yscale("log")
        label_log_scale(below.yaxis)
    else:
        below.set_ylim(bottom=0)
        below.yaxis.set_major_formatter("{x:,.0f}")
    below.set_ylabel(domains.words_of(results).confident)
    below.set_xlabel("confidence of the answer in %")
    below.set_xlim(-2, 102)
    legend(figure, handles, loc="outside upper left", frameon=False)
    return figure


@plain
def risk_coverage_figures(results: Mapping[str, Results]) -> dict[str, Figure]:
    """Share of wrong answers among the surest ones, one figure for each suite, all on one scale.

    Args:
      results: by run name; suites without ``risk_coverage`` are left out.
    """
    found = {suite: entries_of(results, suite) for suite in suites_of(results)}
    curves = {
        suite: {run: entry.risk_coverage for run, entry in entries.items() if entry.risk_coverage is not None}
        for suite, entries in found.items()
    }
    curves = {suite: by_run for suite, by_run in curves.items() if by_run}
    highest = max((max(curve.risk) for by_run in curves.values() for curve in by_run.values()), default=1.0)
    figures = {}
    for suite, by_run in curves.items():
        figure, axes = small_axes(3.4, 2.5)
        for run, curve in by_run.items():
            axes.plot(
                100 * np.asarray(curve.coverage),
                100 * np.asarray(curve.risk),
                label=run,
                markersize=4,
                markevery=4,
                **series_styles(list(results))[run],
            )
        axes.set_xlim(0, 102)
        axes.set_ylim(0, max(1.0, 105 * highest))
        axes.set_title(shown(title(results, suite, short=True), most=50), fontsize=9)
        axes.set_xlabel(f"{domains.words_of(results).confident} that get an answer in %", fontsize=9)
        axes.set_ylabel("wrong answers in %", fontsize=9)
        axes.grid(alpha=0.3)
        figures[suite] = figure
    return figures
