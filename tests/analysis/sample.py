"""A made-up analysis with every key that analysis.json has, made-up traces of routers, and views of them."""

import math
from typing import Any

import numpy as np

from vmoe_inform import documents
from vmoe_inform.analysis.collect.traces import LayerTrace
from vmoe_inform.analysis.images.tracing import ImageTrace
from vmoe_inform.analysis.images.views import UNCORRUPTED, View, Views
from vmoe_inform.analysis.results import Analysis

QUANTILES = (5, 25, 50, 75, 95)


def content(
    *,
    num_experts: int = 4,
    num_layers: int = 2,
    num_classes: int = 3,
    name: str = "attention_vmoe",
    corruptions: tuple[str, ...] = ("shot_noise", "fog", "pixelate"),
    other_name: str = "vmoe",
    seed: int = 0,
) -> dict[str, Any]:
    """analysis.json of a run whose tokens attend to each other and whose experts have an adjacency."""
    random = np.random.default_rng(seed)
    blocks = [f"block_{2 * layer + 1}" for layer in range(num_layers)]

    def run_of(name: str) -> dict[str, Any]:
        return {
            "name": name,
            "step": 1380,
            "router": "attention, symphony",
            "num_experts": num_experts,
            "num_selected_experts": 2,
            "num_tokens": 65,
            "layers": blocks,
            "suite": "clean",
            "unit": "images",
            "count": 200,
            "metric": "top1",
            "score": 0.91,
            "looks_ahead": False,
        }

    return {
        "version": 3,
        "run": run_of(name),
        "layers": {block: _layer(random, num_experts, num_classes, depth) for depth, block in enumerate(blocks)},
        "class_names": [str(label) for label in range(num_classes)],
        "fluctuation": {
            "from_step": 1242,
            "to_step": 1380,
            "layers": {block: {"set": 0.04 + 0.02 * d, "first": 0.02 + 0.01 * d} for d, block in enumerate(blocks)},
        },
        "against": {
            "run": run_of(other_name),
            "layers": {
                block: {
                    "entropy_ratio": 0.8 + 0.03 * depth,
                    "entropy": 0.7,
                    "load_cv": 0.4,
                    "load": [1 / num_experts] * num_experts,
                    "dropped": 0.02,
                }
                for depth, block in enumerate(blocks)
            },
            "fluctuation": {
                "from_step": 1200,
                "to_step": 1380,
                "layers": {block: {"set": 0.10, "first": 0.05} for block in blocks},
            },
        },
        "corruptions": {
            "names": list(corruptions),
            "severities": [1, 2, 3, 4, 5],
            "top1": [_falling(0.88, 0.06 + 0.03 * place) for place in range(len(corruptions))],
            "clean_top1": 0.91,
            "rerouted": {
                block: [
                    [0.05 * severity + 0.02 * place + 0.02 * depth for severity in range(1, 6)]
                    for place in range(len(corruptions))
                ]
                for depth, block in enumerate(blocks)
            },
            "certified": {
                block: {
                    "length": [[0.02 * severity for severity in range(1, 6)]] * len(corruptions),
                    "by_margin": [_falling(0.5, 0.1)] * len(corruptions),
                    "by_pairs": [_falling(0.6, 0.1)] * len(corruptions),
                }
                for block in blocks
            },
        },
        "swapped_words": None,
    }


def analysis(**changes: Any) -> Analysis:
    """What :func:`content` is read as."""
    return of(content(**changes))


def of(found: dict[str, Any]) -> Analysis:
    """What a content of analysis.json is read as."""
    return documents.from_json(found, Analysis)


def plain_analysis(**changes: Any) -> Analysis:
    """What :func:`plain_content` is read as."""
    return of(plain_content(**changes))


def plain_content(**changes: Any) -> dict[str, Any]:
    """analysis.json of a run of the plain router: one checkpoint, no run beside it, no corruptions."""
    found = content(**changes)
    for layer in found["layers"].values():
        layer.update(graph=None, adjacency=None, keys=None)
    return {**found, "fluctuation": None, "against": None, "corruptions": None}


def _falling(first: float, by: float) -> list[float]:
    return [max(first - by * severity, 0.1) for severity in range(5)]


def _layer(random: np.random.Generator, num_experts: int, num_classes: int, depth: int) -> dict[str, Any]:
    load = random.dirichlet(np.full(num_experts, 8.0))
    margins = random.beta(1.2, 5.0 + depth, 4000)
    counts, edges = np.histogram(margins, bins=20, range=(0, 1))
    perturbation = np.geomspace(0.001, 0.3, 13)
    shares = random.dirichlet(np.full(num_experts, 1.0 / (1 + depth)), num_classes)
    together = random.gamma(0.5, size=(num_experts, num_experts))
    together = together + together.T + np.eye(num_experts)
    matrix = together / together.sum(1, keepdims=True)
    return {
        "entropy": 0.5 * math.log(num_experts),
        "base_entropy": 0.6 * math.log(num_experts),
        "load": load.tolist(),
        "load_cv": float(load.std() / load.mean()),
        "dropped": 0.01 * depth,
        "graph": {
            "effective_neighbours": {"mean": 9.0 + depth, "quantiles": [2.0, 5.0, 8.0 + depth, 14.0, 30.0]},
            "self_weight": {"mean": 0.3, "quantiles": [0.02, 0.1, 0.25, 0.5, 0.9]},
        },
        "margin": {
            "edges": edges.tolist(),
            "counts": counts.tolist(),
            "quantiles": np.percentile(margins, QUANTILES).tolist(),
            "mean": float(margins.mean()),
        },
        "flips": {
            "perturbation": perturbation.tolist(),
            "share": [float(np.mean(margins <= 2 * size)) for size in perturbation],
        },
        "specialisation": {
            "mutual_information": 0.5 + 0.05 * depth,
            "class_entropy": math.log(num_classes),
            "expert_entropy": math.log(num_experts),
            "share": shares.tolist(),
        },
        "adjacency": {
            "steps": [460, 920, 1380],
            "spectral_gap": [0.9, 0.6 - 0.02 * depth, 0.5 - 0.02 * depth],
            "matrix": matrix.tolist(),
        },
        "keys": {
            "squares": [10.0 + 3.0 * group for group in range(24)],
            "share": np.exp(-0.8 * np.arange(24)).tolist(),
            "even": 1 / 65,
            "largest": 0.7,
        },
        "collapsed": 0.5 / (1 + depth),
        "certificate": {
            "rho": 0.6 + 0.1 * depth,
            "length": [0.001, 0.01, 0.1, 1.0],
            "by_margin": [0.99, 0.8, 0.3, 0.0],
            "by_pairs": [0.995, 0.9, 0.5, 0.02],
        },
    }


def images(count: int = 2, size_px: int = 32) -> np.ndarray:
    """uint8 [count, size, size, 3]: a disc in front of a slope of colour, another on each."""
    rows, columns = np.mgrid[:size_px, :size_px] / size_px
    found = []
    for place in range(count):
        middle = 0.3 + 0.4 * place / max(count - 1, 1)
        disc = (rows - middle) ** 2 + (columns - 0.5) ** 2 < 0.06
        slope = np.stack([rows, columns, np.full_like(rows, 0.5)], axis=-1)
        found.append(np.where(disc[..., None], (0.95, 0.9, 0.3), slope))
    return (255 * np.stack(found)).astype(np.uint8)


def trace(
    count: int = 2,
    *,
    num_experts: int = 4,
    num_selected_experts: int = 2,
    grid: tuple[int, int] = (4, 4),
    class_token: bool = True,
    layers: tuple[str, ...] = ("block_1", "block_3"),
    graphs: bool = True,
    seed: int = 0,
) -> ImageTrace:
    """A router's random choices, near patches alike."""
    random = np.random.default_rng(seed)
    num_tokens = grid[0] * grid[1] + class_token
    return ImageTrace(
        logits=random.normal(size=(count, 3)).astype(np.float32),
        layers={
            block: _layer_trace(random, count, num_tokens, num_experts, num_selected_experts, grid, class_token, graphs)
            for block in layers
        },
        num_experts=num_experts,
        grid=grid,
        class_token=class_token,
    )


def views(
    runs: tuple[str, ...] = ("attention_vmoe", "vmoe"),
    *,
    count: int = 3,
    severities: tuple[int, ...] = (1, 5),
    size_px: int = 32,
    seed: int = 0,
    **of_traces: Any,
) -> Views:
    """Images, clean and in fog, before several routers; in the second run no token attends to another."""
    random = np.random.default_rng(seed)
    conditions = [UNCORRUPTED, *(("fog", severity) for severity in severities)]
    shown = {
        (name, severity): np.clip(
            (1 - 0.15 * severity) * images(count, size_px)
            + 30 * severity
            + random.normal(size=(count, size_px, size_px, 3)) * 4 * severity,
            0,
            255,
        ).astype(np.uint8)
        for name, severity in conditions
    }
    return Views(
        images=shown,
        labels=[place % 3 for place in range(count)],
        class_names=["n02099601", "n01484850", "disc"],
        views=[
            View.of(
                trace(count, seed=10 * place + condition[1] + seed, **{"graphs": place == 0, **of_traces}),
                run=run,
                condition=condition,
            )
            for place, run in enumerate(runs)
            for condition in conditions
        ],
    )


def _layer_trace(
    random: np.random.Generator,
    count: int,
    num_tokens: int,
    num_experts: int,
    num_selected_experts: int,
    grid: tuple[int, int],
    class_token: bool,
    graphs: bool,
) -> LayerTrace:
    base = _softmax(2 * random.normal(size=(count, num_tokens, num_experts)))
    rows, columns = (place.ravel() for place in np.mgrid[: grid[0], : grid[1]])
    distances = np.full((num_tokens, num_tokens), 4.0)
    distances[class_token:, class_token:] = np.hypot(rows[:, None] - rows, columns[:, None] - columns)
    np.fill_diagonal(distances, 0.0)
    graph = _softmax(-distances + 0.1 * random.normal(size=(count, num_tokens, num_tokens)))
    informed = graph @ base if graphs else base
    ordered = np.sort(informed, axis=-1)[..., ::-1]
    indices, base_indices = (np.argsort(-rows_, axis=-1)[..., :num_selected_experts] for rows_ in (informed, base))
    margin = np.full(informed.shape[:2], np.inf)
    if num_selected_experts < num_experts:
        margin = ordered[..., num_selected_experts - 1] - ordered[..., num_selected_experts]
    return LayerTrace(
        base=base.astype(np.float32),
        informed=informed.astype(np.float32),
        base_indices=base_indices.astype(np.int32),
        indices=indices.astype(np.int32),
        weights=ordered[..., :num_selected_experts].astype(np.float32),
        dropped=np.zeros(informed.shape[:2], np.float32),
        margin=margin.astype(np.float32),
        graph=graph.astype(np.float32) if graphs else None,
    )


def _softmax(rows: np.ndarray) -> np.ndarray:
    weights = np.exp(rows - rows.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)
