"""scikit-learn's 1,797 handwritten digits at 32 px: the embedded default, nothing to download.

    python -m vmoe_inform.train --config=configs/digits.py:router=attention_vmoe --workdir=runs/digits

Argument: router=NAME, experts=NUMBER, where=lastN|everyN|INDEX+INDEX, variant=SIZE/PATCH.
Hardware: 2 CPU cores. Time: both runs of launch/quickstart.sh side by side about 1 min 20 s, compilation included.
Clean top-1 on 364 images: vmoe 98.6 to 99.2 %, attention_vmoe 99.2 % (seed 0; rounding differs between
processors and versions). Held-out training images confirm the settings: docs/quickstart.md. Other routers, half as long
and with two MoE layers, over three seeds: docs/studies.md.
"""

import ml_collections

from vmoe_inform.config import presets


def get_config(argument: str | None = None) -> ml_collections.ConfigDict:
    """The run that ``launch/quickstart.sh`` trains."""
    options = {"distilled.switch_step": 286}  # StableMoE: a tenth of the run, as in its paper
    config = presets.start(argument, router="vmoe", variant="Ti/8", experts="8", where="last1", options=options)
    config.model.num_classes = 10
    config.model.image_size_px = 32
    config.model.classifier = "gap"
    config.model.representation_size = None
    config.model.moe.group_size_sequences = 8
    # An informed router tends to send a whole image to the same experts: small groups need room for that.
    config.model.moe.capacity_factor = 2.0

    config.data.source = "digits"
    config.data.num_threads = 0
    config.data.random_rotation_degrees = 12.0
    config.data.random_zoom = 0.12
    config.data.random_shift_px = 2

    config.train.epochs = 64.0
    config.train.batch_size = 32
    config.train.ema_decay = 0.98
    config.train.log_every_steps = 50

    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_steps = 100
    config.optimizer.weight_decay = 1e-2
    config.optimizer.gradient_clip_norm = 1.0

    config.evaluation.batch_size = 128
    return config
