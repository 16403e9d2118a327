"""What routers did, as tables: pure functions from records or sums to dicts of JSON values, as analysis.json has them.

Shares are between 0 and 1, entropies in nats. ``quantiles`` are those of 5, 25, 50, 75 and 95 %, read off bins that are
about a thousandth wide.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vmoe_inform import checks
from vmoe_inform.analysis.collect.sums import PERTURBATIONS, GraphSums, LayerSums, add, bin_edges, layer_sums
from vmoe_inform.analysis.collect.traces import Trace
from vmoe_inform.axes import Float, Int, Tree
from vmoe_inform.config import ModelConfig, options_of
from vmoe_inform.routing import spectral_gap
from vmoe_inform.routing.steps import INFORM_STEPS

Table = dict[str, Any]
Chosen = Mapping[str, Int[np.ndarray, "n N K"]]  # by block: the experts of every token, E where there is none

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_MARGIN_BARS = 32

_layer_sums = jax.jit(layer_sums, static_argnames="num_classes")


# ------------------------------------------------------------------------------------------- one set of images, layers


def layer_tables(trace: Trace, labels: Int[Any, " n"], *, num_classes: int) -> dict[str, Table]:
    """Tables of each MoE layer of a trace, by block; without ``adjacency``, which no image tells.

    Args:
      trace: with all fields.
      labels: of the images.
      num_classes: of the labels.

    Raises:
      ValueError: a field that is needed was not kept, or labels of other images or classes.
    """
    labels = jnp.asarray(labels)
    if labels.shape != (len(trace.logits),):
        raise checks.error("labels", f"one for each of the {len(trace.logits)} images", list(labels.shape))
    if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        raise checks.error("labels", f"0 to {num_classes - 1}, of {num_classes} classes", sorted(set(labels.tolist())))
    for block, layer in trace.layers.items():
        for field in ("base", "informed", "indices", "load", "dropped"):
            if getattr(layer, field) is None:
                raise checks.error(f"trace of {block}", f"the field {field!r} (trace(..., keep=...))", None)
    mask = jnp.ones(labels.shape, bool)
    sums = {
        block: add(None, _layer_sums(layer, labels, mask, num_classes=num_classes))
        for block, layer in trace.layers.items()
    }
    num_tokens = trace.grid[0] * trace.grid[1] + trace.class_token
    return {block: layer_table(own, num_tokens=num_tokens) for block, own in sums.items()}


def layer_table(sums: LayerSums, *, num_tokens: int) -> Table:
    """The table of one MoE layer; ``adjacency`` is None.

    Args:
      sums: added up over all images.
      num_tokens: N.
    """
    load = np.sum(sums.load, axis=0)
    load = load / max(float(load.sum()), np.finfo(np.float64).tiny)
    tokens = int(sums.tokens)
    return {
        "entropy": float(sums.entropy) / tokens,
        "base_entropy": float(sums.base_entropy) / tokens,
        "load": load.tolist(),
        "load_cv": coefficient_of_variation(load),
        "dropped": float(sums.dropped) / tokens,
        "graph": None if sums.graph is None else _graph_table(sums.graph, tokens, num_tokens),
        "margin": None if sums.margin_counts is None else _margin_table(np.asarray(sums.margin_counts)),
        "flips": None
        if sums.flips is None
        else {"perturbation": list(PERTURBATIONS), "share": (np.asarray(sums.flips) / tokens).tolist()},
        "specialisation": specialisation(np.asarray(sums.load)),
        "adjacency": None,
    }


def coefficient_of_variation(load: Float[np.ndarray, " E"]) -> float:
    """Standard deviation over mean of the experts' loads: 0 if all have the same, sqrt(E - 1) if one has all."""
    return float(np.std(load) / np.mean(load)) if np.any(load) else 0.0


def specialisation(load: Float[np.ndarray, "classes E"]) -> Table:
    """What an expert tells about the class of the image and the other way round: mutual information of the two.

    I(class; expert) = sum p(c, e) log [p(c, e) / (p(c) p(e))], with p(c, e) the share of all assignments that are of
    images of class c and go to expert e. It is 0 if every class uses the experts alike, and at most the smaller of the
    two entropies. Of few tokens it is too large: by about (classes - 1) (E - 1) / (2 assignments) if all are
    independent (Miller 1955).

    Args:
      load: assignments by class and expert.
    """
    joint = load / max(float(load.sum()), np.finfo(np.float64).tiny)
    of_class, of_expert = joint.sum(axis=1), joint.sum(axis=0)
    class_entropy, expert_entropy = _entropy(of_class), _entropy(of_expert)
    share = joint / np.where(of_class > 0, of_class, 1.0)[:, None]
    return {
        "mutual_information": max(class_entropy + expert_entropy - _entropy(joint), 0.0),
        "class_entropy": class_entropy,
        "expert_entropy": expert_entropy,
        "share": share.tolist(),
    }


def _entropy(shares: np.ndarray) -> float:
    positive = shares[shares > 0]
    return float(-np.sum(positive * np.log(positive)))


def _graph_table(sums: GraphSums, tokens: int, num_tokens: int) -> Table:
    neighbours = max(num_tokens, 2) ** bin_edges(1)
    return {
        "effective_neighbours": {
            "mean": float(sums.neighbours) / tokens,
            "quantiles": _quantiles(np.asarray(sums.neighbour_counts), neighbours),
        },
        "self_weight": {
            "mean": float(sums.self_weight) / tokens,
            "quantiles": _quantiles(np.asarray(sums.self_weight_counts), bin_edges(2)),
        },
    }


def _margin_table(counts: Int[np.ndarray, " bins"]) -> Table:
    """Bars of nearly the same width, from 0 to the largest margin."""
    edges = bin_edges(2)
    last = int(np.flatnonzero(counts)[-1]) + 1
    places = np.unique(np.searchsorted(edges, np.linspace(0.0, edges[last], _MARGIN_BARS + 1)))
    return {
        "edges": edges[places].tolist(),
        "counts": np.add.reduceat(counts, places[:-1]).tolist(),
        "quantiles": _quantiles(counts, edges),
    }


def _quantiles(counts: Int[np.ndarray, " bins"], edges: Float[np.ndarray, " edges"]) -> list[float]:
    """Where so large a share of the values is below; within a bin they are taken as evenly spread."""
    below = np.concatenate([[0], np.cumsum(counts)])
    found = []
    for share in QUANTILES:
        place = int(np.searchsorted(below, share * below[-1], side="left"))  # the first edge with enough below it
        lower, upper = edges[place - 1], edges[place]
        within = (share * below[-1] - below[place - 1]) / (below[place] - below[place - 1])
        found.append(float(lower + within * (upper - lower)))
    return found


# ------------------------------------------------------------------------------------------------ two sets of choices


def fluctuation(before: Chosen, after: Chosen) -> dict[str, dict[str, float]]:
    """By block the share of tokens whose choice changed between two checkpoints, shown the same images.

    ``set``: their K experts are not the same (Mutual-Inform SMoE, Fig. 2: one or both of two were switched);
    ``first``: the first choice is not.

    Raises:
      ValueError: choices of other layers, or of other images, tokens or K.
    """
    _check_alike(before, after)
    return {
        block: {
            "set": float(np.mean(changed(before[block], after[block]))),
            "first": float(np.mean(before[block][..., 0] != after[block][..., 0])),
        }
        for block in after
    }


def changed(before: Int[np.ndarray, "*batch K"], after: Int[np.ndarray, "*batch K"]) -> np.ndarray:
    """Whether each token's set of K experts is another one."""
    return np.any(np.sort(before, axis=-1) != np.sort(after, axis=-1), axis=-1)


def choices(trace: Trace) -> dict[str, np.ndarray]:
    """The experts of every token, by block, as :func:`fluctuation` takes them.

    Raises:
      ValueError: they were not kept.
    """
    found = {}
    for block, layer in trace.layers.items():
        if layer.indices is None:
            raise checks.error(f"trace of {block}", "the field 'indices' (trace(..., keep=...))", None)
        found[block] = layer.indices
    return found


def _check_alike(before: Chosen, after: Chosen) -> None:
    if list(before) != list(after):
        raise checks.error("MoE layers", ", ".join(before), ", ".join(after))
    for block in before:
        checks.shape(f"choices of {block}", after[block].shape, before[block].shape)


def against(own: Mapping[str, Table], other: Mapping[str, Table]) -> dict[str, Table]:
    """By block the ratio of a run's mean entropy to another's (Mutual-Inform SMoE, Fig. 2, right), and the other's.

    The ratio is None where the other's entropy is 0.

    Args:
      own, other: layer tables of the two runs, shown the same images.

    Raises:
      ValueError: they have other layers.
    """
    if list(own) != list(other):
        raise checks.error("MoE layers", ", ".join(own), ", ".join(other))
    return {
        block: {
            "entropy_ratio": own[block]["entropy"] / theirs["entropy"] if theirs["entropy"] > 0 else None,
            "other_entropy": theirs["entropy"],
            "other_load_cv": theirs["load_cv"],
        }
        for block, theirs in other.items()
    }


# ------------------------------------------------------------------------------------------------------- experts' graph


def adjacency(config: ModelConfig, states: Mapping[int, Tree], *, step: int | None = None) -> dict[str, Table | None]:
    """By block the matrix that a token's probabilities are multiplied with, and its spectral gap over the training.

    The gap is 1 - the second largest absolute eigenvalue (SymphonySMoE, Proposition 1), of the matrix as the router
    applies it: small entries left out if it has a threshold, identity rows for experts that were never chosen. None
    where no step multiplies with such a matrix; a product where several do.

    Args:
      config: of the model.
      states: by training step, the collection ``routing``.
      step: whose matrix is kept; None: the newest.
    """
    found: dict[str, Table | None] = {}
    for ordinal, layer in enumerate(config.moe_layers):
        block = f"block_{layer}"
        names = [name for name in config.router.inform_steps_of(ordinal) if INFORM_STEPS[name].adjacency is not None]
        if not names:
            found[block] = None
            continue
        matrices = {step: _matrix(names, config, states[step][block]) for step in sorted(states)}
        found[block] = {
            "steps": list(matrices),
            "spectral_gap": [_spectral_gap(matrix) for matrix in matrices.values()],
            "matrix": matrices[max(matrices) if step is None else step].tolist(),
        }
    return found


def _matrix(names: Sequence[str], config: ModelConfig, states: Tree) -> Float[np.ndarray, "E E"]:
    product = np.eye(config.moe.num_experts, dtype=np.float32)
    for name in names:
        function = INFORM_STEPS[name].adjacency
        assert function is not None
        state = jnp.asarray(states["moe"]["router"][name]["state"])
        product = np.asarray(function(state, **options_of(config.router, INFORM_STEPS[name]))) @ product
    return product


def _spectral_gap(matrix: Float[np.ndarray, "E E"]) -> float:
    with jax.default_device(jax.local_devices(backend="cpu")[0]):  # accelerators have no such eigenvalues
        return float(spectral_gap(jnp.asarray(matrix)))
