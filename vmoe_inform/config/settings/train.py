"""Settings of training: length, objective, optimizer and checkpoints."""

import dataclasses
from typing import Annotated, Literal

from vmoe_inform.checks import (
    Bound,
    Name,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    RunPath,
    Seconds,
    ShareBelowOne,
)
from vmoe_inform.config.identity import Effect
from vmoe_inform.config.settings.bounds import Batch, Beta, Factor, Pattern


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Length and objective of training; exactly one of ``steps`` and ``epochs`` is set.

    Attributes:
      batch_size: images of one optimizer step over all devices, all accumulation steps together.
      loss: ``"softmax"`` or ``"sigmoid"`` cross-entropy.
      mixup_alpha, cutmix_alpha: parameters of the Beta distributions of mixup and CutMix on the device; 0 is off.
        Where both are on, each batch gets one of them with probability 1/2.
      initial_checkpoint: folder of a run whose newest parameters this one starts from (fine-tuning). Its position
        embeddings are interpolated to this image size, and a head for other classes starts anew. Where this model has
        more experts, or the other an MLP, experts are copies (upcycling).
      upcycling_noise: standard deviation of the noise on such copies, in units of that of each copied array.
      gradient_accumulation_steps: parts of a batch, processed one after the other.
      ema_decay: decay of the moving average of parameters that evaluation uses; 0 is off.
      log_every_steps: steps from one log entry to the next.
      writers: where metrics are written, by registered names: jsonl, tensorboard, wandb, mlflow.
      max_nonfinite_steps: at most this many steps in a row may have a loss or gradient that is not finite; their
        updates are skipped. One more stops the run.
      watchdog_seconds: timeout between finished steps, batches of evaluation and saves; None disables the watchdog.
      watchdog_start_seconds: timeout until the first step, and the first batch of evaluation, which are compiled. Also
        for the work of ``vmoe_inform.evaluate`` between two sets of images.
    """

    steps: Annotated[PositiveInt | None, Effect.RESULTS] = None
    epochs: Annotated[Annotated[float, Bound(above=0.0, at_most=1e9)] | None, Effect.RESULTS] = None
    batch_size: Batch = 128
    loss: Literal["softmax", "sigmoid"] = "softmax"
    label_smoothing: ShareBelowOne = 0.0
    mixup_alpha: Beta = 0.0
    cutmix_alpha: Beta = 0.0
    initial_checkpoint: RunPath = ""
    upcycling_noise: NonNegativeFloat = 0.0
    gradient_accumulation_steps: Batch = 1
    ema_decay: ShareBelowOne = 0.0
    log_every_steps: Annotated[PositiveInt, Effect.MACHINE] = 20
    writers: Annotated[tuple[Name, ...], Effect.MACHINE] = ("jsonl", "tensorboard")
    max_nonfinite_steps: Annotated[NonNegativeInt, Effect.MACHINE] = 0
    watchdog_seconds: Annotated[Seconds | None, Effect.MACHINE] = 1800.0
    watchdog_start_seconds: Annotated[Seconds, Effect.MACHINE] = 1800.0


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """An optimizer with warm-up and a schedule.

    Attributes:
      name: ``"adamw"``, ``"adam"``, descent with momentum (``"sgd"``), ``"adafactor"`` (arXiv 1804.04235) as Vision
        Transformers take it (2106.04560, Sec. 3.4), or ``"lion"`` (2302.06675).
      learning_rate: peak.
      end_learning_rate: at the last step (cosine, linear).
      warmup_steps: linear from 0 to the peak.
      beta1: decay of the first moment (all but sgd). Adafactor keeps none with 0. In Lion its share in the direction.
      beta2: decay of the second moment (adam, adamw), or its limit (adafactor). In Lion the decay of the only moment,
        for which its paper takes 0.99.
      epsilon: of Adam.
      momentum: share of the step before that is added to the gradient (sgd).
      first_moment_dtype: type in which the first moment, or the momentum, is kept between steps.
      weight_decay: decoupled, times the learning rate (all but adam).
      weight_decay_pattern: regular expression; parameters in whose path it is found are decayed.
      weight_decay_multipliers: pairs of regular expression and factor of the weight decay. The first one found in a
        parameter's path counts; without one the factor is 1.
      multipliers: the same for the learning rate, and so for the whole update, weight decay included.
      layer_decay: factor of the learning rate from each block to the one before it; 1 is off. The head has the whole
        rate, the last block this factor of it, and embeddings the factor of the first block once more.
      trained_first: regular expressions. For the first ``trained_first_steps`` steps only parameters in whose path one
        is found change, such as new routers or a new head. The schedule of the learning rate does not wait.
      frozen: regular expressions. Parameters and states of router steps in whose path one is found never change. They
        have no gradient, no state of the optimizer and no weight decay.
      gradient_clip_norm: largest global norm of the gradient; None does not clip.
    """

    name: Literal["adamw", "adam", "sgd", "adafactor", "lion"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    end_learning_rate: NonNegativeFloat = 0.0
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: NonNegativeInt = 0
    beta1: ShareBelowOne = 0.9
    beta2: ShareBelowOne = 0.999
    epsilon: PositiveFloat = 1e-8
    momentum: ShareBelowOne = 0.9
    first_moment_dtype: Literal["float32", "bfloat16"] = "float32"
    weight_decay: NonNegativeFloat = 0.0
    weight_decay_pattern: Pattern = ".*/kernel$"
    weight_decay_multipliers: tuple[tuple[Pattern, NonNegativeFloat], ...] = ()
    multipliers: tuple[tuple[Pattern, Factor], ...] = ()
    layer_decay: Annotated[float, Bound(above=0.0, at_most=1.0)] = 1.0
    trained_first: tuple[Pattern, ...] = ()
    trained_first_steps: NonNegativeInt = 0
    frozen: tuple[Pattern, ...] = ()
    gradient_clip_norm: PositiveFloat | None = None


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """A checkpoint is written every ``every_steps`` steps and after the last; the newest ``keep`` stay.

    Attributes:
      on_error: what follows when one cannot be written. ``"stop"`` ends the run. ``"continue"`` logs it and tries again
        at the next; the last one has to be written in any case.
    """

    every_steps: PositiveInt = 500
    keep: PositiveInt = 3
    on_error: Literal["stop", "continue"] = "stop"
