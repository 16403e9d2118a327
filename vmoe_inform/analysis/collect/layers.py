"""Statistics of one MoE layer on a set of sequences: pure functions from records or sums to numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vmoe_inform import checks
from vmoe_inform.analysis.collect._sums import (
    LENGTHS,
    PERTURBATIONS,
    GraphSums,
    KeySums,
    LayerSums,
    add,
    bin_edges,
    layer_sums,
)
from vmoe_inform.analysis.collect.traces import Trace
from vmoe_inform.analysis.layer_results import (
    QUANTILES,
    Certificate,
    Flips,
    Keys,
    Layer,
    Margin,
    Specialisation,
    Spread,
    TokenGraph,
)
from vmoe_inform.axes import Float, Int
from vmoe_inform.evaluation.metrics import coefficient_of_variation

_MARGIN_BARS = 32

_layer_sums = jax.jit(layer_sums, static_argnames="num_classes")


def of_trace(trace: Trace, labels: Int[Any, " n"], *, num_classes: int) -> dict[str, Layer]:
    """Each MoE layer of a trace, by block; without ``adjacency`` and ``certificate``, which no input tells.

    Args:
      trace: with all fields.
      labels: of the sequences.
      num_classes: of the labels.

    Raises:
      ValueError: a field that is needed was not kept, or labels of other sequences or classes.
    """
    labels = jnp.asarray(labels)
    if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        raise checks.error("labels", f"0 to {num_classes - 1}, of {num_classes} classes", sorted(set(labels.tolist())))
    for block, layer in trace.layers.items():
        for field in ("base", "informed", "indices", "load", "dropped"):
            if getattr(layer, field) is None:
                raise checks.error(f"trace of {block}", f"the field {field!r} (trace(..., keep=...))", None)
        if labels.shape != (number := len(np.asarray(layer.informed)),):
            raise checks.error("labels", f"one for each of the {number} sequences", list(labels.shape))
    found = {}
    for block, layer in trace.layers.items():
        real = jnp.ones(np.asarray(layer.informed).shape[:2], bool)
        found[block] = of_sums(add(None, _layer_sums(layer, real, labels, num_classes=num_classes)))
    return found


def of_sums(sums: LayerSums, rho: float | None = None) -> Layer:
    """One MoE layer, without ``adjacency``, of sums over all sequences.

    Args:
      sums: over tokens.
      rho: of the matrix that certificates are of; None if there are none.
    """
    load = np.sum(sums.load, axis=0)
    load = load / max(float(load.sum()), np.finfo(np.float64).tiny)
    tokens = int(sums.tokens)
    return Layer(
        entropy=float(sums.entropy) / tokens,
        base_entropy=float(sums.base_entropy) / tokens,
        load=_row(load),
        load_cv=coefficient_of_variation(load),
        dropped=float(sums.dropped) / tokens,
        graph=None if sums.graph is None else _token_graph(sums.graph, tokens),
        margin=None
        if sums.margin_counts is None or sums.margin is None
        else _margin(np.asarray(sums.margin_counts), float(sums.margin) / tokens),
        flips=None if sums.flips is None else Flips(PERTURBATIONS, _row(np.asarray(sums.flips) / tokens)),
        specialisation=specialisation(np.asarray(sums.load)) if len(sums.load) > 1 else None,
        keys=None if sums.keys is None else _keys(sums.keys, int(sums.sequences)),
        collapsed=int(sums.collapsed) / int(sums.sequences),
        certificate=None
        if sums.certified is None or rho is None
        else Certificate(rho, LENGTHS, *(_row(shares) for shares in np.asarray(sums.certified) / tokens)),
    )


def specialisation(load: Float[np.ndarray, "classes E"]) -> Specialisation:
    """Mutual information of the class of the sequence and the expert.

    I(class; expert) = sum p(c, e) log [p(c, e) / (p(c) p(e))]. Here p(c, e) is the share of all assignments that are of
    sequences of class c and go to expert e. It is 0 if every class uses the experts alike, and at most the smaller of
    the two entropies. Few tokens bias it upwards, by about (classes - 1) (E - 1) / (2 assignments) if all are
    independent (Miller 1955).

    Args:
      load: assignments by class and expert.
    """
    joint = load / max(float(load.sum()), np.finfo(np.float64).tiny)
    of_class, of_expert = joint.sum(axis=1), joint.sum(axis=0)
    class_entropy, expert_entropy = _entropy(of_class), _entropy(of_expert)
    share = joint / np.where(of_class > 0, of_class, 1.0)[:, None]
    return Specialisation(
        mutual_information=max(class_entropy + expert_entropy - _entropy(joint), 0.0),
        class_entropy=class_entropy,
        expert_entropy=expert_entropy,
        share=tuple(map(_row, share)),
    )


def _entropy(shares: np.ndarray) -> float:
    positive = shares[shares > 0]
    return float(-np.sum(positive * np.log(positive)))


def _token_graph(sums: GraphSums, tokens: int) -> TokenGraph:
    neighbours = max(sums.num_tokens, 2) ** bin_edges(1)
    return TokenGraph(
        effective_neighbours=Spread(
            float(sums.neighbours) / tokens, _quantiles(np.asarray(sums.neighbour_counts), neighbours)
        ),
        self_weight=Spread(
            float(sums.self_weight) / tokens, _quantiles(np.asarray(sums.self_weight_counts), bin_edges(2))
        ),
    )


def _keys(sums: KeySums, sequences: int) -> Keys:
    counts = np.maximum(np.asarray(sums.counts), 1)
    return Keys(
        squares=_row(np.asarray(sums.squares) / counts),
        share=_row(np.asarray(sums.shares) / counts),
        even=float(sums.even) / sequences,
        largest=float(sums.largest) / sequences,
    )


def _margin(counts: Int[np.ndarray, " bins"], mean: float) -> Margin:
    """Bars of nearly the same width, from 0 to the largest margin."""
    edges = bin_edges(2)
    last = int(np.flatnonzero(counts)[-1]) + 1
    bars = np.unique(np.searchsorted(edges, np.linspace(0.0, edges[last], _MARGIN_BARS + 1)))
    return Margin(
        edges=_row(edges[bars]),
        counts=tuple(np.add.reduceat(counts, bars[:-1]).tolist()),
        quantiles=_quantiles(counts, edges),
        mean=mean,
    )


def _quantiles(counts: Int[np.ndarray, " bins"], edges: Float[np.ndarray, " edges"]) -> tuple[float, ...]:
    """Values below which each share of the tokens lies; within a bin they count as evenly spread."""
    below = np.concatenate([[0], np.cumsum(counts)])
    found = []
    for share in QUANTILES:
        upper = int(np.searchsorted(below, share * below[-1], side="left"))  # the first edge with enough below it
        within = (share * below[-1] - below[upper - 1]) / (below[upper] - below[upper - 1])
        found.append(float(edges[upper - 1] + within * (edges[upper] - edges[upper - 1])))
    return tuple(found)


def _row(values: np.ndarray) -> tuple[float, ...]:
    return tuple(values.tolist())
