"""All figures of an analysis, by name."""

from collections.abc import Callable

from matplotlib.figure import Figure

from vmoe_inform.analysis.draw import (
    adjacency,
    certificates,
    corruptions,
    decisions,
    experts,
    keys,
    margins,
    neighbours,
)
from vmoe_inform.analysis.layer_results import Layer
from vmoe_inform.analysis.results import Analysis


def figures(analysis: Analysis) -> dict[str, Figure]:
    """The figures that there are data for, by name, in the order in which they are best read.

    Args:
      analysis: as analysis.json has it.
    """
    against = analysis.against

    def in_a_layer(part: Callable[[Layer], object]) -> bool:
        return any(part(layer) is not None for layer in analysis.layers.values())

    has_experts = analysis.run.num_experts > 1
    has_ratios = against is not None and any(layer.entropy_ratio is not None for layer in against.layers.values())
    has_adjacency = in_a_layer(lambda layer: layer.adjacency)
    drawings = {
        "load": (experts.load_figure, True),
        "entropy": (decisions.entropy_figure, True),
        "entropy_ratio": (decisions.entropy_ratio_figure, has_ratios),
        "fluctuation": (decisions.fluctuation_figure, analysis.fluctuation is not None),
        "margin": (margins.margin_figure, in_a_layer(lambda layer: layer.margin)),
        "flips": (margins.flips_figure, in_a_layer(lambda layer: layer.flips)),
        "certificates": (certificates.certificates_figure, in_a_layer(lambda layer: layer.certificate)),
        "neighbours": (neighbours.neighbours_figure, in_a_layer(lambda layer: layer.graph)),
        "keys": (keys.keys_figure, in_a_layer(lambda layer: layer.keys)),
        "specialisation": (experts.specialisation_figure, in_a_layer(lambda layer: layer.specialisation)),
        "adjacency": (adjacency.adjacency_figure, has_adjacency),
        "adjacency_graph": (adjacency.adjacency_graph_figure, has_adjacency and has_experts),
        "spectral_gap": (adjacency.spectral_gap_figure, has_adjacency),
        "corruptions": (corruptions.corruptions_figure, analysis.corruptions is not None),
        "rerouted": (corruptions.rerouted_figure, analysis.corruptions is not None),
    }
    return {name: draw(analysis) for name, (draw, has_data) in drawings.items() if has_data}
