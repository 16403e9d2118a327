"""Load of each expert, and specialisation of experts on classes."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vmoe_inform import lettering
from vmoe_inform.analysis.draw._panels import Layout, color_bar, named, panel_columns, panels
from vmoe_inform.analysis.layer_results import Layer
from vmoe_inform.analysis.results import Analysis, OtherLayer, layer_name
from vmoe_inform.data.images import label_sets
from vmoe_inform.lettering import plain, shown
from vmoe_inform.report.styles import GREY, SHADES, expert_colors, legend_name

_MOST_NAMED_CLASSES = 30
_LONGEST_CLASS_NAME = 16


@plain
def load_figure(analysis: Analysis) -> Figure:
    """Share of the assignments that each expert gets, by layer, with its CV; the line is an even share.

    Below stand the same layers of the run compared with, if there is one.
    """
    against = analysis.against
    loads: list[tuple[str, str, Layer | OtherLayer]] = [(analysis.run.name, *of) for of in analysis.layers.items()]
    if against is not None:
        known = ((block, layer) for block, layer in against.layers.items() if layer.load is not None)
        loads += [(against.run.name, *of) for of in known]
    is_compared = len(loads) > len(analysis.layers)
    columns = panel_columns(len(analysis.layers))
    figure, drawn = panels(
        [str(position) for position in range(len(loads))],
        "How the work is shared between the experts",
        subtitle=named(analysis.run, None if against is None else against.run),
        caption="expert (dashed: an even share; CV: standard deviation / mean)",
        label="share of assignments",
        layout=Layout(left=1.1 if is_compared else 0.8),
        columns=columns,
    )
    highest = max(max(layer.load or ()) for _, _, layer in loads)
    for position, ((run, block, layer), axes) in enumerate(zip(loads, drawn.values(), strict=True)):
        _draw_load(axes, layer.load or (), layer.dropped or 0.0, highest)
        axes.set_title(f"{shown(layer_name(block))}: CV {layer.load_cv:.2f}", fontsize=9.5)
        if is_compared and position % columns == 0:
            axes.set_ylabel(shown(legend_name(run, most=24)), fontsize=8.5)
    return figure


def _draw_load(axes: Axes, load: tuple[float, ...], dropped: float, highest: float) -> None:
    axes.bar(range(len(load)), 100 * np.asarray(load), color=expert_colors(len(load)))
    axes.axhline(100 / len(load), color=GREY, linestyle="--", linewidth=1)
    words = f"{100 * dropped:.2g} % dropped" if dropped > 0 else ""
    axes.text(0.99, 0.99, words, transform=axes.transAxes, ha="right", va="top", fontsize=8, color=GREY)
    axes.set_xlim(-0.6, len(load) - 0.4)  # no number beyond the last expert's
    axes.set_ylim(0, 120 * max(highest, 1 / len(load)))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
    axes.yaxis.set_major_formatter("{x:g} %")
    axes.spines[["top", "right"]].set_visible(False)


@plain
def specialisation_figure(analysis: Analysis) -> Figure:
    """Share of each class's assignments by expert and layer, with their mutual information.

    Of more than 30 classes, each layer's are ordered by the expert that they use most.
    """
    layers = {block: layer.specialisation for block, layer in analysis.layers.items() if layer.specialisation}
    classes = [_class(name) for name in analysis.class_names]
    are_named = len(classes) <= _MOST_NAMED_CLASSES
    figure, drawn = panels(
        list(layers),
        "Which experts work on which class",
        subtitle=named(analysis.run),
        caption="expert (MI: mutual information of class and expert in nats, and its upper bound)",
        label="class" if are_named else f"{len(classes):,} classes, ordered by the expert that each uses most",
        layout=Layout(
            height=min(max(0.16 * len(classes), 1.4), 3.2),
            left=0.5 + (0.085 * max(map(len, classes)) if are_named else 0.0),
            right=0.95,
        ),
    )
    shares = {block: 100 * np.asarray(layer.share, float) for block, layer in layers.items()}
    highest = max(share.max() for share in shares.values())
    for block, axes in drawn.items():
        share = shares[block] if are_named else shares[block][_by_main_expert(shares[block])]
        picture = axes.imshow(share, aspect="auto", cmap=SHADES, norm=PowerNorm(0.5, 0, highest))
        most = min(layers[block].class_entropy, layers[block].expert_entropy)
        axes.set_title(
            f"{shown(layer_name(block))}: MI {layers[block].mutual_information:.2f} of {most:.2f}", fontsize=9.5
        )
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        axes.set_yticks(range(len(classes)) if are_named else [], map(shown, classes if are_named else []), fontsize=8)
    bar = color_bar(figure, picture, list(drawn.values()), "share of the class's assignments")
    bar.ax.yaxis.set_major_formatter("{x:g} %")
    return figure


def _by_main_expert(share: np.ndarray) -> np.ndarray:
    """Order of the classes [classes]: by their main expert, of each expert's the most faithful first."""
    return np.lexsort((-share.max(1), share.argmax(1)))


def _class(name: str) -> str:
    words = lettering.legible(label_sets.short_title(name), lettering.fonts())
    return words if len(words) <= _LONGEST_CLASS_NAME else words[: _LONGEST_CLASS_NAME - 1] + "…"
