"""Invented results: of two small runs, to check by eye, and of three on ImageNet with every suite."""

import numpy as np

from vmoe_inform.evaluation.corruptions import CORRUPTIONS


def results() -> dict:
    """A run with every suite, and one that lacks some and knows one more that has no data."""
    return {
        "attention_vmoe": {
            "checkpoint_step": 1380,
            "config_hash": "0123456789abcdef",
            "model": {"parameters": 1234567, "router": {"score": "linear", "inform": "attention"}},
            "suites": {
                "clean": {
                    "top1": 0.9,
                    "top5": 1.0,
                    "nll": 0.25,
                    "ece": 0.02,
                    "count": 200,
                    "skipped": 3,
                    "reliability": {
                        "confidence": [0.25, 0.5, 0.9],
                        "accuracy": [0.5, 0.0, 0.95],
                        "count": [20, 0, 180],
                    },
                },
                "c": {
                    "mean_top1": 0.6,
                    "per_corruption": {"shot_noise": [0.9, 0.8, 0.6, 0.5, 0.4], "fog": [0.8, 0.7, 0.5, 0.4, 0.4]},
                    "count": 200,
                    "generated": True,
                },
                "r": {"top1": 0.5, "nll": 1.5, "count": 400},
                "o": {"aupr": 0.75, "count": 100, "count_in_distribution": 200},
            },
            "routing": {
                "block_1": {
                    "entropy": 1.0,
                    "load": [0.5, 0.25, 0.25, 0.0],
                    "effective_neighbours": 6.5,
                    "dropped": 0.01,
                },
                "block_3": {"entropy": 1.2, "load": [0.25] * 4, "effective_neighbours": 4.0, "dropped": 0.0},
            },
        },
        "vmoe": {
            "checkpoint_step": 1380,
            "config_hash": "fedcba9876543210",
            "model": {"parameters": 1234567, "router": {"score": "linear", "inform": "none"}},
            "suites": {
                "clean": {"top1": 0.8, "top5": 1.0, "nll": 0.5, "ece": 0.1, "count": 200, "skipped": 0},
                "r": {"not_available": "put the fonts into DIRECTORY <here>"},
            },
            "routing": {
                "block_1": {"entropy": 0.8, "load": [0.25] * 4, "effective_neighbours": None, "dropped": 0.02},
            },
        },
    }


def example(**changes: object) -> dict:
    """An 8 px image in 2 x 2 patches with two MoE layers."""
    image = np.full((8, 8, 3), 128, np.uint8)
    experts = {"block_1": np.array([[0, 1], [2, 3]]), "block_3": np.array([[3, 3], [0, 0]])}
    return {"image": image, "label": "3", "prediction": "3", "confidence": 0.9, "experts": experts, **changes}


WORST_CLASSES = [
    {"class": "n04525038", "title": "velvet", "top1": 0.08, "count": 50},
    {"class": "n04355933", "title": "sunglass", "top1": 0.1, "count": 50},
    {
        "class": "n03642806",
        "title": "laptop, laptop computer",
        "top1": 0.125,
        "count": 40,
    },
]


def imagenet_results() -> dict:
    """V-MoE S/32 and its two informed kinds with every suite; one of them has drawn its C itself."""
    informs = {"vmoe": "none", "similarity_vmoe": ["similarity"], "attention_vmoe": ["attention"]}
    found = {run: _imagenet_run(inform, gain=0.01 * place) for place, (run, inform) in enumerate(informs.items())}
    found["similarity_vmoe"]["suites"]["c"]["origin"] = "generated"
    return found


def _imagenet_run(inform: object, gain: float) -> dict:
    coverage = np.arange(1, 21) / 20
    curves = {
        "risk_coverage": {"coverage": coverage.tolist(), "risk": ((0.27 - gain) * coverage**2).tolist()},
        "aurc": 0.1 - gain,
        "worst_classes": WORST_CLASSES,
        "skipped": 0,
    }
    confidence = (np.arange(15) + 0.5) / 15
    reliability = {
        "confidence": confidence.tolist(),
        "accuracy": np.clip(confidence - 0.05 + gain, 0, 1).tolist(),
        "count": (1000 + 4000 * confidence).astype(int).tolist(),
    }
    corruptions = {
        name: (0.7 + gain - 0.01 * place - np.array([0.05, 0.12, 0.2, 0.3, 0.4])).tolist()
        for place, name in enumerate(CORRUPTIONS)
    }
    folder = {"origin": "published folder"}
    return {
        "checkpoint_step": 46_900,
        "config_hash": "0123456789abcdef",
        "seed": 0,
        "data": {"source": "tfds", "classes_are_imagenet": True},
        "model": {
            "parameters": 57_300_000,
            "router": {"score": "linear", "inform": inform},
            "experts": 8,
            "experts_per_token": 2,
            "num_classes": 1000,
            "image_size_px": 224,
            "patch_size_px": 32,
            "num_layers": 8,
            "hidden_size": 512,
            "moe_layers": [5, 7],
        },
        "suites": {
            "clean": {
                **curves,
                "origin": "TFDS",
                "top1": 0.7271 + gain,
                "top5": 0.905,
                "nll": 1.1,
                "ece": 0.031,
                "count": 50_000,
                "reliability": reliability,
            },
            "c": {
                **folder,
                "mean_top1": 0.48 + gain,
                "mean_top1_standard_error": 0.0018,
                "mce": 0.66 - gain,
                "relative_mce": 0.92 - gain,
                "per_corruption": corruptions,
                "count": 50_000,
                "skipped": 0,
            },
            "r": {**curves, **folder, **_masked(0.3542 + gain, 0.24 + gain, 30_000)},
            "a": {**curves, "origin": "published tar", **_masked(0.0527 + gain, 0.02 + gain, 7_500)},
            "o": {
                **folder,
                "aupr": 0.21 + gain,
                "count": 2_000,
                "count_in_distribution": 10_000,
                "classes": 200,
                "skipped": 0,
            },
            "v2": {**curves, **folder, "top1": 0.592 + gain, "top5": 0.81, "nll": 1.9, "count": 10_000},
            "sketch": {**curves, **folder, "top1": 0.21 + gain, "top5": 0.37, "nll": 5.2, "count": 50_889},
            "real": {**curves, "origin": "TFDS", "top1": 0.794 + gain, "count": 46_837, "excluded": 3_163},
            "fgsm": _attacked(0.31 + gain, num_steps=1),
            "pgd": _attacked(0.12 + gain, num_steps=10),
            "fewshot": {"top1": 0.61, "top1_by_shots": {"1": 0.31, "5": 0.55, "10": 0.61}, "count": 50_000},
            "linear": {"top1": 0.68 + gain, "count": 50_000},
        },
        "routing": {
            f"block_{block}": {
                "entropy": 1.5 - 10 * gain,
                "load": [0.125] * 6 + [0.2, 0.05],
                "effective_neighbours": 1.0 if inform == "none" else 12.5,
                "dropped": 0.001,
            }
            for block in (5, 7)
        },
    }


def _masked(top1: float, unmasked: float, count: int) -> dict:
    return {
        "top1": top1,
        "top1_unmasked": unmasked,
        "top1_unmasked_standard_error": 0.0015,
        "classes": 200,
        "nll": 4.1,
        "count": count,
    }


def _attacked(top1: float, num_steps: int) -> dict:
    of_attack = {"loss": "margin", "without_gradient": 0.0021, "epsilon": 1.0, "num_steps": num_steps, "seed": 0}
    return {"origin": "TFDS", "top1": top1, "clean_top1": 0.7271, **of_attack, "count": 50_000, "skipped": 0}


def imagenet_examples() -> list[dict]:
    """Images of 224 px: one named right, two named wrong, of those one in patches too small for numbers."""
    rows, columns = np.mgrid[:224, :224]
    image = np.stack([rows, columns, 255 - rows], axis=-1).astype(np.uint8)
    coarse = {f"block_{block}": (np.arange(49).reshape(7, 7) * block) % 8 for block in (5, 7)}
    fine = {f"block_{block}": (np.arange(196).reshape(14, 14) // block) % 9 for block in (5, 7)}
    shark, laptop = "n01484850", "n03642806"
    return [
        {"image": image, "label": shark, "prediction": shark, "confidence": 0.95, "experts": coarse},
        {"image": image, "label": shark, "prediction": laptop, "confidence": 0.4, "experts": coarse},
        {"image": image, "label": laptop, "prediction": shark, "confidence": 0.31, "experts": fine},
    ]
