"""Routing as pure functions of arrays: scores, graphs, adjacency, selection, losses, statistics.

The public names are jittable and take any leading batch axes. The registries of steps, which a config picks from by
name, are in :mod:`vmoe_inform.routing.steps`.
"""

import importlib
import pkgutil

from vmoe_inform.routing.adaptive_clusters import cluster_weights
from vmoe_inform.routing.adjacency import (
    coselection_counts,
    expert_informed,
    normalize_adjacency,
    transition_counts,
    transition_informed,
    update_adjacency,
    update_adjacency_oja,
)
from vmoe_inform.routing.assignment import balanced_assignment
from vmoe_inform.routing.certificates import difference_norm, margin_radius, pairwise_radius
from vmoe_inform.routing.distillation import light_scores
from vmoe_inform.routing.eigenbasis import eigenbasis_scores, orthonormal_basis
from vmoe_inform.routing.graphs import inform, similarity_informed, token_similarity
from vmoe_inform.routing.loss_free import balanced_bias, biased_top_experts
from vmoe_inform.routing.losses import (
    balance_loss,
    gshard_loss,
    importance_loss,
    load_loss,
    router_z_loss,
    switch_loss,
)
from vmoe_inform.routing.posteriors import (
    attention_informed,
    attention_posterior,
    head_posterior,
    lowest_entropy_head,
    posterior_distances,
)
from vmoe_inform.routing.relu import adapted_coefficient, positive_experts, sparsity_loss
from vmoe_inform.routing.scores import balanced_table, cosine_scores, hash_scores, linear_scores, soft_slot_scores
from vmoe_inform.routing.selection import expert_choice, top_experts
from vmoe_inform.routing.simbal import orthogonality_loss
from vmoe_inform.routing.stats import (
    collapsed_sequences,
    effective_neighbours,
    expert_load,
    fluctuation_rate,
    routing_entropy,
    spectral_gap,
    topk_margin,
)

__all__ = [
    "adapted_coefficient",
    "attention_informed",
    "attention_posterior",
    "balance_loss",
    "balanced_assignment",
    "balanced_bias",
    "balanced_table",
    "biased_top_experts",
    "cluster_weights",
    "collapsed_sequences",
    "coselection_counts",
    "cosine_scores",
    "difference_norm",
    "effective_neighbours",
    "eigenbasis_scores",
    "expert_choice",
    "expert_informed",
    "expert_load",
    "fluctuation_rate",
    "gshard_loss",
    "hash_scores",
    "head_posterior",
    "importance_loss",
    "inform",
    "light_scores",
    "linear_scores",
    "load_loss",
    "lowest_entropy_head",
    "margin_radius",
    "normalize_adjacency",
    "orthogonality_loss",
    "orthonormal_basis",
    "pairwise_radius",
    "positive_experts",
    "posterior_distances",
    "router_z_loss",
    "routing_entropy",
    "similarity_informed",
    "soft_slot_scores",
    "sparsity_loss",
    "spectral_gap",
    "switch_loss",
    "token_similarity",
    "top_experts",
    "topk_margin",
    "transition_counts",
    "transition_informed",
    "update_adjacency",
    "update_adjacency_oja",
]


def import_steps() -> None:
    """Imports every module of this folder, so that a new file registers its steps by being there."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")


import_steps()
