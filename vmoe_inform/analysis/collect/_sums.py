"""Sums over tokens from which all tables follow: their size does not depend on the number of records.

They are made on the devices, batch by batch, and added up on the host. Distributions have enough bins for quantiles and
diagrams.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from vmoe_inform.analysis.collect.traces import LayerTrace
from vmoe_inform.axes import Array, Bool, Float, Int, Tree
from vmoe_inform.routing import (
    collapsed_sequences,
    effective_neighbours,
    margin_radius,
    pairwise_radius,
    routing_entropy,
)

NUM_BINS = 4096
_MOST_KEY_GROUPS = 24

# Changes of the probabilities for which it is counted how many tokens they could give another choice.
PERTURBATIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


# Lengths of changes of the base probabilities for which it is counted how many tokens provably keep their experts. A
# distribution is at most sqrt(2) away from another.
LENGTHS = tuple(float(f"{length:.3g}") for length in np.geomspace(1e-3, 1.0, 25))


def bin_edges(power: int) -> Float[np.ndarray, " edges"]:
    """Edges of the bins between 0 and 1: evenly spaced (power 1), or the nearer to 0 the narrower."""
    return np.linspace(0.0, 1.0, NUM_BINS + 1) ** power


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GraphSums:
    """Of the rows of token graphs.

    Attributes:
      num_tokens: N.
      neighbours: sum of the effective neighbours.
      neighbour_counts: rows by log(effective neighbours) / log(N), in even bins.
      self_weight: sum of the weights of the tokens themselves.
      self_weight_counts: rows by that, in quadratic bins.
    """

    num_tokens: int = dataclasses.field(metadata={"static": True})
    neighbours: Array
    neighbour_counts: Int[Array, " bins"]
    self_weight: Array
    self_weight_counts: Int[Array, " bins"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KeySums:
    """Of keys of token graphs, in groups of those of a sequence from the shortest to the longest.

    Attributes:
      counts: keys of each group.
      squares: sum of their squared lengths.
      shares: sum of the shares of their sequence's rows that they win.
      even: sum over sequences of one over the number of their keys.
      largest: sum over sequences of the share of the key that wins most.
    """

    counts: Int[Array, " groups"]
    squares: Float[Array, " groups"]
    shares: Float[Array, " groups"]
    even: Array
    largest: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerSums:
    """Of the tokens of one MoE layer.

    Attributes:
      tokens: how many.
      entropy, base_entropy: sums of the entropies of informed and base probabilities, nats.
      dropped: sum of the shares of choices without a slot.
      sequences: how many.
      collapsed: those whose tokens all have the same first expert.
      margin: sum of the margins; None as ``margin_counts``.
      load: by class of the sequence and expert; a single row where there are no classes.
      margin_counts: tokens by margin, in quadratic bins; None where there are no margins or all are infinite.
      flips: tokens that each of PERTURBATIONS could give another choice; None as ``margin_counts``.
      graph: None where tokens do not mix.
      certified: tokens that provably keep their experts for each of LENGTHS, by their margin and by pairs of experts;
        None where that is not known.
      keys: None where the keys of the graph have no lengths.
    """

    tokens: Int[Array, ""]
    entropy: Array
    base_entropy: Array
    dropped: Array
    sequences: Int[Array, ""]
    collapsed: Int[Array, ""]
    margin: Array | None
    load: Float[Array, "classes E"]
    margin_counts: Int[Array, " bins"] | None
    flips: Int[Array, " p"] | None
    graph: GraphSums | None
    certified: Int[Array, "2 lengths"] | None
    keys: KeySums | None


def layer_sums(
    layer: LayerTrace,
    real: Bool[Array, "n N"],
    labels: Int[Array, " n"] | None,
    *,
    num_classes: int | None,
    matrix: Float[Array, "E E"] | None = None,
) -> LayerSums:
    """Sums over the tokens of sequences.

    Args:
      layer: with all fields but ``weights`` and ``base_indices``; graph, key squares and margin may be None.
      real: False for filler tokens, which are left out.
      labels: of the sequences; None where there are no classes.
      num_classes: of the labels; None where there are none.
      matrix: by which alone a token's experts follow from its base probabilities; None where there is no such.
    """
    base, informed, load, dropped = (
        jnp.asarray(getattr(layer, name)) for name in ("base", "informed", "load", "dropped")
    )
    of_sequences = jnp.sum(jnp.where(real[..., None], load, 0.0), axis=1)
    classes = jnp.ones((len(load), 1))
    if labels is not None and num_classes is not None:
        classes = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)

    def total(values: Float[Array, "n N"]) -> Array:
        return jnp.sum(jnp.where(real, values, 0.0))

    indices = jnp.asarray(layer.indices)
    margins = None
    if layer.margin is not None and indices.shape[-1] < base.shape[-1]:
        margins = jnp.asarray(layer.margin)
    counted = jnp.any(real, axis=-1)
    sizes = jnp.asarray(PERTURBATIONS, jnp.float32)
    return LayerSums(
        tokens=jnp.sum(real),
        entropy=total(routing_entropy(informed)),
        base_entropy=total(routing_entropy(base)),
        dropped=total(dropped),
        sequences=jnp.sum(counted),
        collapsed=jnp.sum(counted & collapsed_sequences(indices, real)),
        margin=None if margins is None else total(margins),
        load=jnp.einsum("nc,ne->ce", classes, of_sequences, precision="highest"),
        margin_counts=None if margins is None else _count(jnp.sqrt(margins), real),
        # A change of that size at most can lower the K-th and raise the (K + 1)-th probability by as much.
        flips=None
        if margins is None
        else jnp.sum(real[..., None] & (margins[..., None] <= 2 * sizes[None, None]), (0, 1)),
        graph=None if layer.graph is None else _graph_sums(jnp.asarray(layer.graph), real),
        certified=None if matrix is None else _certified(base, matrix, indices.shape[-1], real),
        keys=None
        if layer.graph is None or layer.key_squares is None
        else _key_sums(jnp.asarray(layer.graph), jnp.asarray(layer.key_squares), real),
    )


def _key_sums(graph: Float[Array, "n N N"], squares: Float[Array, "n N"], real: Bool[Array, "n N"]) -> KeySums:
    num_tokens = graph.shape[-1]
    groups = min(num_tokens, _MOST_KEY_GROUPS)
    number = jnp.maximum(jnp.sum(real, axis=-1, keepdims=True), 1)  # [n, 1]
    winners = jax.nn.one_hot(jnp.argmax(graph, axis=-1), num_tokens) * real[..., None]
    shares = jnp.sum(winners, axis=1) / number  # [n, N]
    ranks = jnp.argsort(jnp.argsort(jnp.where(real, squares, jnp.inf), axis=-1), axis=-1)
    of_group = jax.nn.one_hot(ranks * groups // number, groups) * real[..., None]  # [n, N, groups]
    counted = jnp.any(real, axis=-1)

    def by_group(values: Float[Array, "n N"]) -> Float[Array, " groups"]:
        return jnp.einsum("nj,njg->g", values, of_group, precision="highest")

    return KeySums(
        counts=jnp.sum(of_group, (0, 1)).astype(jnp.int32),
        squares=by_group(jnp.where(real, squares, 0.0)),
        shares=by_group(shares),
        even=jnp.sum(jnp.where(counted, 1.0 / number[:, 0], 0.0)),
        largest=jnp.sum(jnp.where(counted, jnp.max(shares, axis=-1), 0.0)),
    )


def radii(base: Float[Array, "n N E"], matrix: Float[Array, "E E"], k: int) -> Float[Array, "n N 2"]:
    """How far each token's base probabilities may move with the same experts, by their margin and by pairs."""
    return jnp.stack([margin_radius(base, matrix, k), pairwise_radius(base, matrix, k)], axis=-1)


def _certified(
    base: Float[Array, "n N E"], matrix: Float[Array, "E E"], k: int, real: Bool[Array, "n N"]
) -> Int[Array, "2 lengths"]:
    lengths = jnp.asarray(LENGTHS, jnp.float32)
    holds = radii(base, matrix, k)[..., None] > lengths[None, None, None]
    return jnp.sum(holds & real[..., None, None], (0, 1))


def _graph_sums(graph: Float[Array, "n N N"], real: Bool[Array, "n N"]) -> GraphSums:
    neighbours = effective_neighbours(graph)
    alone = jnp.diagonal(graph, axis1=-2, axis2=-1)
    num_tokens = graph.shape[-1]
    most = max(num_tokens, 2)  # of a single token it is always 1
    return GraphSums(
        num_tokens=num_tokens,
        neighbours=jnp.sum(jnp.where(real, neighbours, 0.0)),
        neighbour_counts=_count(jnp.log(neighbours) / jnp.log(most), real),
        self_weight=jnp.sum(jnp.where(real, alone, 0.0)),
        self_weight_counts=_count(jnp.sqrt(jnp.maximum(alone, 0.0)), real),
    )


def _count(values: Float[Array, "n N"], real: Bool[Array, "n N"]) -> Int[Array, " bins"]:
    """How many of the values are in each of the even bins from 0 to 1; rounding may have led out of them."""
    bins = jnp.clip((values * NUM_BINS).astype(jnp.int32), 0, NUM_BINS - 1)
    return jnp.zeros(NUM_BINS, jnp.int32).at[bins].add(real.astype(jnp.int32))


def add(total: Tree | None, new: Tree) -> Tree:
    """Adds sums up on the host in double precision; None is nothing yet."""

    def widened(values: Array) -> np.ndarray:
        found = np.asarray(values)
        return found.astype(np.int64 if found.dtype.kind in "iub" else np.float64)

    new = jax.tree.map(widened, new)
    return new if total is None else jax.tree.map(np.add, total, new)


Sums = Mapping[str, LayerSums]  # by block
