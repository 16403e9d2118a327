r"""ImageNet (ILSVRC 2012), 1,281,167 photographs of 1,000 classes, at 224 px.

    python -m vmoe_inform.compile_check --config=configs/imagenet.py:variant=S/16,router=attention_vmoe \
        --topology=v5e:4x4 --per_device_batch=64

Argument: router=NAME, experts=NUMBER, where=lastN|everyN|INDEX+INDEX, variant=SIZE/PATCH.
Hardware: one TPU slice. Time and score: not yet run.
"""

import ml_collections

from vmoe_inform import presets


def get_config(argument: str | None = None) -> ml_collections.ConfigDict:
    """V-MoE S/32 with 8 experts in two blocks, trained as its paper trains from scratch."""
    config = presets.start(argument, router="vmoe", variant="S/32", experts="8", where="last2")
    config.model.num_classes = 1000
    config.model.image_size_px = 224
    config.model.dtype = "bfloat16"
    # With a sigmoid for each class, training starts from the share that a class has: log(1 / 1000).
    config.model.head_bias_initial_value = -6.9
    config.model.moe.group_size_images = 8

    config.model.router.options.distilled.switch_step = 9384  # a tenth of the run

    config.data.source = "tfds"
    config.data.tfds_name = "imagenet2012"
    config.data.test_split = "validation"
    config.data.num_threads = 16
    config.data.random_flip = True

    config.train.epochs = 300.0
    config.train.batch_size = 4096
    config.train.loss = "sigmoid"
    config.train.mixup_alpha = 0.2
    config.train.log_every_steps = 50

    config.optimizer.learning_rate = 3e-3
    config.optimizer.end_learning_rate = 1e-5
    config.optimizer.schedule = "linear"
    config.optimizer.warmup_steps = 10_000
    config.optimizer.weight_decay = 0.1
    config.optimizer.gradient_clip_norm = 1.0

    config.checkpoint.every_steps = 1000
    config.evaluation.batch_size = 2048
    return config
