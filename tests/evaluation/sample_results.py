"""Invented results of two runs, small enough to check by eye."""

import numpy as np


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
