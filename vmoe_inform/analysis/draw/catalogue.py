"""All pictures of an analysis: a dict in the format of analysis.json in, matplotlib Figures out."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from vmoe_inform.analysis.draw import adjacency as figures_adjacency
from vmoe_inform.analysis.draw import corruptions as figures_corruptions
from vmoe_inform.analysis.draw import layers as figures_layers
from vmoe_inform.analysis.draw import margins as figures_margins

Analysis = Mapping[str, Any]


def figures(analysis: Analysis) -> dict[str, Figure]:
    """The figures that there are data for, by name, in the order in which they are best read.

    Args:
      analysis: as analysis.json has it.
    """
    layers = analysis["layers"].values()

    def in_a_layer(key: str) -> bool:
        return any(layer[key] is not None for layer in layers)

    has_experts = analysis["run"]["num_experts"] > 1
    against = analysis["against"]
    has_ratios = against is not None and any(layer["entropy_ratio"] is not None for layer in against["layers"].values())
    drawings = {
        "load": (figures_layers.load_figure, True),
        "entropy": (figures_layers.entropy_figure, True),
        "entropy_ratio": (figures_layers.entropy_ratio_figure, has_ratios),
        "fluctuation": (figures_layers.fluctuation_figure, analysis["fluctuation"] is not None),
        "margin": (figures_margins.margin_figure, in_a_layer("margin")),
        "flips": (figures_margins.flips_figure, in_a_layer("flips")),
        "neighbours": (figures_layers.neighbours_figure, in_a_layer("graph")),
        "specialisation": (figures_layers.specialisation_figure, in_a_layer("specialisation")),
        "adjacency": (figures_adjacency.adjacency_figure, in_a_layer("adjacency")),
        "adjacency_graph": (figures_adjacency.adjacency_graph_figure, in_a_layer("adjacency") and has_experts),
        "spectral_gap": (figures_adjacency.spectral_gap_figure, in_a_layer("adjacency")),
        "corruptions": (figures_corruptions.corruptions_figure, analysis["corruptions"] is not None),
        "rerouted": (figures_corruptions.rerouted_figure, analysis["corruptions"] is not None),
    }
    return {name: draw(analysis) for name, (draw, has_data) in drawings.items() if has_data}
