"""Fashion-MNIST, 70,000 gray images of garments, at 32 px.

    apt-get install dataset-fashion-mnist  # Debian and Ubuntu; or put the four files of MNIST's format in a directory
    python -m vmoe_inform.train --config=configs/fashion_mnist.py:router=attention_vmoe --workdir=runs/fashion_mnist

Files elsewhere: --config.data.directory=DIR.
Argument: router=NAME, experts=NUMBER, where=lastN|everyN|INDEX+INDEX, variant=SIZE/PATCH.
Settings are chosen with --config.data.validation_share=0.1667, on a sixth of the training images.
Hardware: one accelerator, or CPU cores and patience. Scores of 3 epochs: docs/studies.md.
"""

import ml_collections

from vmoe_inform.config import presets


def get_config(argument: str | None = None) -> ml_collections.ConfigDict:
    """Size Ti with smaller patches than the digits have, for images that need the detail."""
    options = {"distilled.switch_step": 703}  # StableMoE: a tenth of the run, as in its paper
    config = presets.start(argument, router="vmoe", variant="Ti/4", experts="8", where="last2", options=options)
    config.model.num_classes = 10
    config.model.image_size_px = 32
    config.model.moe.group_size_sequences = 8

    config.data.source = "idx"
    config.data.num_threads = 0
    config.data.directory = "/usr/share/datasets/fashion-mnist"
    config.data.random_shift_px = 2
    config.data.random_flip = True

    config.train.epochs = 30.0
    config.train.batch_size = 256

    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_steps = 500
    config.optimizer.weight_decay = 1e-2
    config.optimizer.gradient_clip_norm = 1.0
    return config
