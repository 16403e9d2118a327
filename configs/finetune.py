"""Fine-tunes a run on images: at another resolution, for other classes, or in parts.

    python -m vmoe_inform.train --config=configs/finetune.py:from=runs/imported --workdir=runs/tuned \
        --config.data.source=folder --config.data.directory=DIR --config.model.num_classes=37 \
        --config.model.image_size_px=384

Argument: from=RUN (a folder without commas in its path), recipe=vit|layerwise|head, router=NAME.

Model, data and preprocessing are those of RUN, imported runs included. The router may be another whose parameters RUN
has: router=similarity_vmoe for a V-MoE. Position embeddings are interpolated to the image size. The head has no tanh
layer before it. It starts anew, unless RUN's head has none either, and the same classes.

    vit         SGD with momentum, no weight decay and no mixup (ViT, arXiv 2010.11929, Appendix B.1.1)
    layerwise   AdamW, with a learning rate that falls by 0.75 from layer to layer (MAE, arXiv 2111.06377, Table 9)
    head        only the head learns, on frozen features (MAE, Table 10)

Learning rates are for 512 images; scale them with the batch.
Hardware: that of RUN. Time and score: not yet run.
"""

import ml_collections

from vmoe_inform import config as config_lib
from vmoe_inform.config import presets


def get_config(argument: str | None = None) -> ml_collections.ConfigDict:
    """RUN with a new optimizer, and a head on its features."""
    return presets.start_from_run(
        argument, inputs=("images",), recipes={"vit": _vit, "layerwise": _layerwise, "head": _head}
    )


def _vit(config: ml_collections.ConfigDict) -> None:
    """The paper's numbers for CIFAR. It chooses the learning rate among 1e-3, 3e-3, 1e-2 and 3e-2."""
    _start(config, "sgd", learning_rate=1e-2, warmup_steps=500, steps=10_000)
    _no_regularisation(config)
    config.optimizer.gradient_clip_norm = 1.0


def _layerwise(config: ml_collections.ConfigDict) -> None:
    """The optimizer of MAE's fine-tuning of a ViT-L. Augmentation, mixup and dropout are RUN's."""
    _start(config, "adamw", learning_rate=1e-3 * 512 / 256, warmup_steps=500, epochs=50.0)
    config.train.label_smoothing = 0.1
    config.optimizer.layer_decay = 0.75
    config.optimizer.weight_decay = 0.05


def _head(config: ml_collections.ConfigDict) -> None:
    """MAE's linear probing with SGD in place of LARS, and without its batch normalisation."""
    _start(config, "sgd", learning_rate=0.1 * 512 / 256, warmup_steps=0, epochs=50.0)
    _no_regularisation(config)
    config.optimizer.frozen = ("^(?!head/)",)


def _start(
    config: ml_collections.ConfigDict,
    optimizer: str,
    *,
    learning_rate: float,
    warmup_steps: int,
    epochs: float | None = None,
    steps: int | None = None,
) -> None:
    """A linear head, and an optimizer by its defaults, whose learning rate falls as a cosine."""
    config.model.representation_size = None
    config.model.head_bias_initial_value = 0.0
    config.train.loss = "softmax"
    config.train.batch_size = 512
    config.train.gradient_accumulation_steps = 1
    config.train.ema_decay = 0.0
    config.train.epochs = epochs
    config.train.steps = steps
    config.optimizer = config_lib.default(config.model.inputs).optimizer
    config.optimizer.name = optimizer
    config.optimizer.schedule = "cosine"
    config.optimizer.learning_rate = learning_rate
    config.optimizer.warmup_steps = warmup_steps


def _no_regularisation(config: ml_collections.ConfigDict) -> None:
    config.model.dropout_rate = 0.0
    config.model.attention_dropout_rate = 0.0
    config.model.stochastic_depth_rate = 0.0
    config.model.moe.expert_dropout_rate = 0.0
    config.data.randaugment_layers = 0
    config.data.random_erasing = 0.0
    config.train.label_smoothing = 0.0
    config.train.mixup_alpha = 0.0
    config.train.cutmix_alpha = 0.0
