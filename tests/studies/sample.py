"""Made-up results of runs, for tests of what is done with them."""

from typing import Any


def result(
    router: str, seed: int, *, clean: float = 0.9, entropy: float = 1.0, fluctuation: float = 0.1
) -> dict[str, Any]:
    """What a run's result.json holds."""

    def epoch(step: int, top1: float) -> dict[str, Any]:
        return {
            "step": step,
            "suites": {
                "clean": {"top1": top1, "count": 100},
                "o": {"aupr": 0.5, "count": 50},
                "c": {"not_available": "install it"},
            },
            "routing": {
                "block_1": {
                    "entropy": entropy,
                    "load": [0.5, 0.5, 0.0, 0.0],
                    "effective_neighbours": 2.0 if router == "mixing" else 1.0,
                    "dropped": 0.0,
                }
            },
        }

    return {
        "router": router,
        "seed": seed,
        "config_hash": "0" * 16,
        "parameters": 1000,
        "flops": {"training_step": 100.0 if router == "plain" else 125.0, "evaluation_batch": 40.0},
        "seconds": {"training": 1.0, "evaluation": 1.0},
        "one_epoch_before": epoch(3, clean - 0.1),
        "last": epoch(6, clean),
        "fluctuation": {"block_1": fluctuation},
    }
