r"""ImageNet (ILSVRC 2012), 1,281,167 photographs of 1,000 classes: training from scratch at 224 px, fine-tuning at 384.

Argument: recipe=NAME, router=NAME, experts=NUMBER, where=lastN|everyN|INDEX+INDEX, variant=SIZE/PATCH.
Images: TFDS's imagenet2012 in ~/tensorflow_datasets, or elsewhere with --config.data.directory=DIR. Of folders or tars
(DIR/train, DIR/val): --config.data.source=folder --config.data.directory=DIR --config.data.test_split=val
Suites of photographs (ImageNet-C, -R, ...): --config.data.suites_directory=DIR. Look before a long run:

    python -m vmoe_inform.data.check --config=configs/imagenet.py
    python -m vmoe_inform.compile_check --config=configs/imagenet.py:variant=S/16,router=attention_vmoe \
        --topology=v5e:4x4 --per_device_batch=64

recipe=vmoe300, the default: V-MoE S/32 from scratch, 300 epochs, as the original (github.com/google-research/vmoe,
configs/vmoe_paper/vmoe_s32_last2_ilsvrc2012_randaug_light1.py) trains it.

    python -m vmoe_inform.train --config=configs/imagenet.py:router=attention_vmoe --workdir=runs/imagenet
    python -m vmoe_inform.evaluate --workdir=runs/imagenet --suites=all

    Hardware: a TPU slice; the original took 5 h 50 min on a v3-32. Time here: not yet run.
    Score: not yet run. The original states 73.1 % top-1 (three seeds); Mutual-Inform SMoE, Table 2, 72.71 % for V-MoE,
    73.21 % informed by similarity, 73.33 % by attention.

recipe=deit: as DeiT-S trains (arXiv 2012.12877, Table 9), for smaller patches.

    python -m vmoe_inform.train --config=configs/imagenet.py:recipe=deit,variant=S/16,router=attention_vmoe \
        --workdir=runs/deit

    Hardware: a TPU slice. Time and score: not yet run, and none published for these models (DeiT-S itself, 12 dense
    blocks of width 384: 79.8 %).

recipe=finetune384: what vmoe300 has trained, 10,000 more steps at 384 px, as the original fine-tunes it
(vmoe_s32_last2_ilsvrc2012_randaug_light1_ft_ilsvrc2012.py).

    python -m vmoe_inform.train --config=configs/imagenet.py:recipe=finetune384,router=attention_vmoe \
        --workdir=runs/imagenet384 --config.train.initial_checkpoint=runs/imagenet

    Hardware: eight TPU cores; the original took 48 min on a v3-8. Time here: not yet run.
    Score: not yet run. The original states 75.9 % (three seeds).

Frozen features of any of them, few-shot and linear (hardware as for evaluation; time and score: not yet run):

    python -m vmoe_inform.evaluate --workdir=runs/imagenet --suites=fewshot,linear
"""

import math

import ml_collections

from vmoe_inform.config import presets


def get_config(argument: str | None = None) -> ml_collections.ConfigDict:
    """V-MoE S/32 with 8 experts in two blocks, or what the argument says, by the recipe that it names."""
    recipes = {"vmoe300": vmoe300, "deit": deit, "finetune384": finetune384}
    return presets.start(argument, router="vmoe", variant="S/32", experts="8", where="last2", recipes=recipes)


def _imagenet(config: ml_collections.ConfigDict) -> None:
    """What all recipes share."""
    config.model.num_classes = 1000
    config.model.image_size_px = 224
    config.model.dtype = "bfloat16"  # the original: only the products that move tokens to experts
    config.model.moe.group_size_sequences = 8
    config.model.moe.capacity_factor = 1.05
    config.model.moe.capacity_factor_evaluation = 4.0

    config.data.source = "tfds"
    config.data.tfds_name = "imagenet2012"
    config.data.test_split = "validation"
    config.data.crop = "inception"
    config.data.random_flip = True
    config.data.evaluation_crop = 224 / 256  # the shorter side to 256 px, and the 224 px in the middle of that
    # A core decodes and augments some hundred photographs a second: as many processes as a host has cores.
    config.data.num_workers = 32
    config.data.num_threads = 2

    config.train.log_every_steps = 50
    config.checkpoint.every_steps = 1000
    config.evaluation.every_steps = 5000
    config.evaluation.batch_size = 2048
    config.evaluation.suites = (
        *("clean", "c", "r", "a", "o", "v2", "sketch", "real"),
        *("fgsm", "pgd", "fewshot", "linear"),
    )


def vmoe300(config: ml_collections.ConfigDict) -> None:
    """The original's numbers, with three differences.

    The original leaves out 1 % of the training images for validation, and so takes 46,448 steps, not 46,918. Its
    experts start alike; these do not. It mixes by one share for the images of a device, this by one for the batch.

    Its Adam has decoupled weight decay on kernels, also of head, router and patch embedding. That is the optimizer
    ``adamw`` with its default pattern: gradients clipped, Adam's step, decay added, all times the learning rate.
    """
    _imagenet(config)
    # With a sigmoid for each class, training starts from the share that a class has.
    config.model.head_bias_initial_value = -math.log(1000)
    config.model.moe.expert_dropout_rate = 0.2
    config.model.router.options.distilled.switch_step = 4_692  # a tenth of the run

    config.data.crop_min_area = 0.05
    config.data.randaugment_layers = 2
    config.data.randaugment_magnitude = 10.0

    config.train.epochs = 300.0
    config.train.batch_size = 8192
    config.train.loss = "sigmoid"
    config.train.mixup_alpha = 0.2

    config.optimizer.learning_rate = 3e-3
    config.optimizer.end_learning_rate = 1e-5
    config.optimizer.schedule = "linear"
    config.optimizer.warmup_steps = 10_000
    config.optimizer.weight_decay = 0.1
    config.optimizer.gradient_clip_norm = 1.0


def deit(config: ml_collections.ConfigDict) -> None:
    """DeiT-S's numbers, but for what is said here.

    The model is V-MoE's, with 8 blocks of width 512 for S. Not here: each image three times in a batch (repeated
    augmentation), random magnitudes and the colour jitter of its RandAugment. Its warm-up begins at 1e-6, this at 0.
    Scale the learning rate with the batch: 5e-4 x batch / 512.
    """
    _imagenet(config)
    config.model.representation_size = None
    config.model.stochastic_depth_rate = 0.1
    config.model.router.options.distilled.switch_step = 37_534  # a tenth of the run

    config.data.pixel_mean = (0.485, 0.456, 0.406)
    config.data.pixel_std = (0.229, 0.224, 0.225)
    config.data.crop_min_area = 0.08
    config.data.randaugment_layers = 2
    config.data.randaugment_magnitude = 9.0
    config.data.random_erasing = 0.25

    config.train.epochs = 300.0
    config.train.batch_size = 1024
    config.train.loss = "softmax"
    config.train.label_smoothing = 0.1
    config.train.mixup_alpha = 0.8
    config.train.cutmix_alpha = 1.0

    config.optimizer.learning_rate = 5e-4 * 1024 / 512
    config.optimizer.end_learning_rate = 1e-5
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 6_256  # five epochs
    config.optimizer.weight_decay = 0.05


def finetune384(config: ml_collections.ConfigDict) -> None:
    """The original's numbers, but for what is said here.

    In evaluation it squeezes the whole photograph into the square, this takes the largest square in the middle. As
    there, the head starts anew without the tanh layer, and slots are as many in evaluation as in training.
    """
    _imagenet(config)
    config.model.image_size_px = 384
    config.model.representation_size = None
    config.model.moe.capacity_factor = 1.5
    config.model.moe.capacity_factor_evaluation = 1.5
    config.model.router.options.distilled.switch_step = 1_000  # a tenth of the run

    config.data.crop_min_area = 0.05
    config.data.evaluation_crop = 1.0

    config.train.initial_checkpoint = "runs/imagenet"
    config.train.steps = 10_000
    config.train.batch_size = 1024
    config.train.loss = "softmax"

    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9
    config.optimizer.learning_rate = 3e-3
    config.optimizer.end_learning_rate = 1e-5
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 500
    config.optimizer.weight_decay = 0.0
    config.optimizer.gradient_clip_norm = 10.0

    config.evaluation.batch_size = 1024
