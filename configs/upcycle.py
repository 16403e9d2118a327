"""Sparse upcycling (arXiv 2212.05055): a dense run becomes a mixture of experts, or one of experts gets more of them.

    python -m vmoe_inform.train --config=configs/fashion_mnist.py:where=none --workdir=runs/dense
    python -m vmoe_inform.train --config=configs/upcycle.py:from=runs/dense --workdir=runs/upcycled

Argument: from=RUN (a folder without commas in its path), router=NAME, experts=NUMBER, where=lastN|everyN|INDEX+INDEX.

Data, augmentation, objective and optimizer are those of RUN, imported runs included. The model has GLaM's router and
8 experts in every second block; the paper also replaces half of the MLPs. A RUN with experts keeps its router and their
places. Training and warm-up are half as long, with a third of the learning rate. A router with an auxiliary loss learns
alone for the first 100 steps: while experts are equal, this loss balances them and nothing else moves.

The first step has RUN's loss, since no token is dropped and weights sum to 1. For routers that do not scale them, say
router=vmoe@top_experts.renormalize=True; for one expert a token, smoe_top1@top_experts.renormalize=one.
From N to M experts, K M / N choices of a token keep the function: --config.model.moe.num_selected_experts.

With where=none the dense model trains on in the same way, for comparison.

On a mesh of experts, --config.model.moe.capacity_factor=2.0 costs less than room for all tokens.
Noise on the copies: --config.train.upcycling_noise=0.01. The paper found none that helped.
Hardware: that of RUN. Score on Fashion-MNIST: 82.12 % after 2 epochs from a dense Ti/4 with 80.21 %. With as many
operations more the dense model has 82.94 % (3 seeds; ./launch/measure_upcycling.sh, docs/finetuning.md).
"""

import ml_collections

from vmoe_inform.config import presets


def get_config(argument: str | None = None) -> ml_collections.ConfigDict:
    """RUN with experts."""
    config = presets.start_from_run(argument, router="glam", experts="8", where="every2")
    config.model.moe.capacity_factor = None
    config.model.moe.capacity_factor_evaluation = None
    if config.train.epochs is not None:
        config.train.epochs = config.train.epochs / 2
    else:
        config.train.steps = config.train.steps // 2

    config.optimizer.learning_rate = config.optimizer.learning_rate / 3
    config.optimizer.end_learning_rate = config.optimizer.end_learning_rate / 3
    config.optimizer.warmup_steps = config.optimizer.warmup_steps // 2
    config.optimizer.frozen = ()
    config.optimizer.layer_decay = 1.0
    config.optimizer.multipliers = ()
    routers_first = bool(config.model.router.losses) and config.model.moe.layers != "none"
    config.optimizer.trained_first = ("moe/router/",) if routers_first else ()
    config.optimizer.trained_first_steps = 100 if routers_first else 0
    return config
