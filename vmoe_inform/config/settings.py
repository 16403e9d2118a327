"""Every setting of a run, as frozen dataclasses: each field below is the one home of a setting and of its default.

What goes with what is checked in config.py, through which the rest of the package takes these classes. A field's suffix
is its unit: ``_px`` pixels, ``_steps`` optimizer steps. Its type states its
:class:`~vmoe_inform.config.identity.Effect`; a
field whose type states none has that of its group.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from vmoe_inform import checks
from vmoe_inform.checks import (
    Bound,
    Name,
    NonNegativeFloat,
    NonNegativeInt,
    Path,
    PositiveFloat,
    PositiveInt,
    Seconds,
    Seed,
    Share,
    ShareBelowOne,
    Width,
)
from vmoe_inform.config.identity import Effect
from vmoe_inform.routing import steps

# Every number has an upper bound that a machine can hold: here, in checks.py, or at its field. What several of them
# make together is bounded in sizes.py.
Pixels: TypeAlias = Annotated[int, Bound(at_least=1, at_most=2**14)]  # side of an image
Batch: TypeAlias = Annotated[int, Bound(at_least=1, at_most=2**24)]  # images
Threads: TypeAlias = Annotated[int, Bound(at_least=0, at_most=1024)]  # or processes, of a host
Number: TypeAlias = Annotated[float, Bound(at_least=-1e18, at_most=1e18)]
Factor: TypeAlias = Annotated[float, Bound(above=0.0, at_most=2.0**20)]
Beta: TypeAlias = Annotated[float, Bound(at_least=0.0, at_most=1e6)]  # parameter of a Beta distribution; 0 is off
Devices: TypeAlias = Annotated[int, Bound(at_least=1, at_most=2**20)]
Pattern: TypeAlias = Annotated[str, checks.Text(1000)]  # regular expression


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """Weights of the auxiliary losses; 0 leaves a loss out of the objective (it is logged all the same)."""

    importance: NonNegativeFloat = 0.005
    load: NonNegativeFloat = 0.005
    switch: NonNegativeFloat = 0.0
    gshard: NonNegativeFloat = 0.0
    z: NonNegativeFloat = 0.0
    balance: NonNegativeFloat = 0.0
    distillation: NonNegativeFloat = 0.0


@dataclasses.dataclass(frozen=True)
class RouterConfig:
    """The three steps of the router, by their registered names.

    Attributes:
      score: tokens -> logits.
      inform: ``"none"``, one step, or a tuple of steps applied in order.
      inform_by_layer: different choices for the MoE layers, the first for the first of them, and so on, beginning
        again when they are used up; empty: ``inform`` in all layers.
      select: probabilities -> K weights and experts.
      noise_std: standard deviation of the training noise on the logits, in units of 1/E (V-MoE: 1).
      options: options by step name; a config file holds those of every registered step, of which a parsed config
        keeps the chosen steps' only.
      losses: weights of the auxiliary losses.
    """

    score: Name = "linear"
    inform: Name | tuple[Name, ...] = "none"
    inform_by_layer: tuple[Name | tuple[Name, ...], ...] = ()
    select: Name = "top_experts"
    noise_std: NonNegativeFloat = 1.0
    options: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    losses: LossWeights = LossWeights()

    def inform_steps_of(self, ordinal: int) -> tuple[str, ...]:
        """Names of the inform steps of a MoE layer in order; the first MoE layer has the ordinal 0."""
        by_layer = self.inform_by_layer
        choice = by_layer[ordinal % len(by_layer)] if by_layer else self.inform
        if isinstance(choice, str):
            return () if choice == "none" else (choice,)
        return choice

    @property
    def inform_steps(self) -> tuple[str, ...]:
        """Names of the inform steps of all MoE layers, each once."""
        layers = [self.inform_steps_of(ordinal) for ordinal in range(max(1, len(self.inform_by_layer)))]
        return tuple(dict.fromkeys(name for layer in layers for name in layer))

    @property
    def step_names(self) -> tuple[str, ...]:
        """Names of all chosen steps."""
        return (self.score, *self.inform_steps, self.select)


@dataclasses.dataclass(frozen=True)
class MoeConfig:
    """Where the MoE layers are and how tokens move to experts.

    Attributes:
      layers: ``"lastN"`` (the last N blocks of odd index), ``"everyN"`` (blocks N-1, 2N-1, ...), ``"none"``, or the
        block indices, counted from 0.
      num_selected_experts: K, experts of each token.
      capacity_factor: slots of an expert per group in training, as a multiple of S K / E; 1 where experts choose.
      capacity_factor_evaluation: the same in evaluation.
      capacity_multiple_of: capacities are rounded up to a multiple of this.
      batch_priority: tokens with the larger first weight get slots first (V-MoE, Sec. 4).
      group_size_images: consecutive images, of a training batch or of the set that is evaluated, whose tokens share the
        experts' slots.
      dispatch: registered way to move the tokens, or ``"auto"``: the fastest for the platform and the shapes.
      expert_dropout_rate: dropout inside the experts.
    """

    layers: Name | tuple[NonNegativeInt, ...] = "last2"
    num_experts: Width = 8
    num_selected_experts: Width = 2
    capacity_factor: Factor = 1.05
    capacity_factor_evaluation: Annotated[Factor, Effect.RESULTS] = 4.0
    capacity_multiple_of: Width = 4
    batch_priority: bool = False
    group_size_images: Batch = 1
    dispatch: Annotated[Name, Effect.MACHINE] = "auto"
    expert_dropout_rate: ShareBelowOne = 0.0


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Vision Transformer with MoE layers; the default sizes are those of V-MoE S/32.

    Attributes:
      classifier: ``"token"`` (class token), ``"gap"`` (mean over tokens) or ``"map"`` (attention pooling).
      representation_size: width of a tanh layer before the head; None for none.
      stochastic_depth_rate: probability that the last block's branches are left out for an image in training
        (arXiv 1603.09382); it grows linearly from 0 at the first block.
      attention_block_size: tokens of an image whose attention weights are in memory at a time; None for all.
      attention: ``"auto"`` (on TPUs the kernel where it can, otherwise XLA), ``"xla"`` or ``"fused"`` (the kernel).
      remat: what each block keeps for the gradient: ``"none"`` everything, ``"dots"`` the results of products
        with parameters, ``"full"`` its input only; the rest is computed once more in the backward pass.
      dtype: type of activations and matrix products outside the router; parameters are float32.
    """

    num_classes: Width = 1000
    image_size_px: Pixels = 224
    patch_size_px: Pixels = 32
    num_layers: Annotated[int, Bound(at_least=1, at_most=1024)] = 8
    hidden_size: Width = 512
    mlp_size: Width = 2048
    num_heads: Width = 8
    classifier: Literal["token", "gap", "map"] = "token"
    representation_size: Width | None = 512
    dropout_rate: ShareBelowOne = 0.0
    attention_dropout_rate: ShareBelowOne = 0.0
    stochastic_depth_rate: ShareBelowOne = 0.0
    attention_block_size: Annotated[PositiveInt | None, Effect.MACHINE] = None
    attention: Annotated[Literal["auto", "xla", "fused"], Effect.MACHINE] = "auto"
    head_bias_initial_value: Number = 0.0
    remat: Annotated[Literal["none", "dots", "full"], Effect.MACHINE] = "none"
    dtype: Literal["float32", "bfloat16"] = "float32"
    moe: MoeConfig = MoeConfig()
    router: RouterConfig = RouterConfig()

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """Indices of the blocks that have a MoE layer, ascending."""
        return resolve_layers(self.moe.layers, self.num_layers)

    @property
    def num_tokens(self) -> int:
        """N: patches of one image, plus the class token if there is one."""
        return (self.image_size_px // self.patch_size_px) ** 2 + (self.classifier == "token")

    @property
    def layer_sizes(self) -> steps.LayerSizes:
        """What parameters and states of the router's steps are made for."""
        return steps.LayerSizes(
            hidden_size=self.hidden_size,
            num_experts=self.moe.num_experts,
            num_selected_experts=self.moe.num_selected_experts,
            num_tokens=self.num_tokens,
            patch_values=self.patch_size_px**2 * 3,
        )


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where images come from and what is done to them.

    Attributes:
      source: registered source: digits, idx, folder, tfds.
      directory: where the data lie (idx, folder, tfds).
      tfds_name: TFDS builder, e.g. ``imagenet2012`` (tfds).
      train_split, test_split: names of the splits, as the source calls them.
      suites_directory: where published evaluation suites lie, one folder or tar file each (ImageNet).
      class_names: of the classes, in the order of the labels, which are matched by name; empty: those of the training
        split, in its order. A run records them.
      pixel_mean, pixel_std: normalisation of pixels in [0, 1], one number or one for each of red, green and blue.
      crop: of training images: ``"center"``, the largest square, or ``"inception"``, a random part of random area
        and shape (Szegedy 2015, arXiv 1409.4842, Sec. 6).
      crop_min_area: least share of the image's area that an inception crop takes.
      evaluation_crop: side of the centred square that evaluation looks at, as a share of the image's shorter side.
      randaugment_layers, randaugment_magnitude: RandAugment (arXiv 1909.13719) on the host: so many operations,
        0 is off, of a magnitude from 0 to 10.
      random_erasing: probability that a rectangle of a training image is filled with noise (arXiv 1708.04896).
      random_rotation_degrees, random_zoom, random_shift_px, random_flip: augmentation of training images on the
        device: turned by up to so many degrees, zoomed by a factor of up to 1 + so much, moved by up to so many pixels
        in each direction, mirrored left-right with probability 1/2.
      num_workers: processes that read, decode and augment; 0: threads of this process do.
      num_threads: threads of each such process; 0 is best for data in memory.
      prefetch_batches: batches kept ready.
      max_skipped_share: share of records that may be unreadable before the run stops.
    """

    source: Name = "digits"
    directory: Annotated[Path, Effect.MACHINE] = ""
    tfds_name: Name = ""
    train_split: Name = "train"
    test_split: Annotated[Name, Effect.RESULTS] = "test"
    suites_directory: Annotated[Path, Effect.MACHINE] = ""
    class_names: Annotated[tuple[Annotated[str, checks.Text(1000)], ...], Effect.CLASSES] = ()
    pixel_mean: Number | tuple[Number, ...] = 0.5
    pixel_std: PositiveFloat | tuple[PositiveFloat, ...] = 0.5
    crop: Literal["center", "inception"] = "center"
    crop_min_area: Annotated[float, Bound(above=0.0, at_most=1.0)] = 0.05
    evaluation_crop: Annotated[float, Bound(above=0.0, at_most=1.0), Effect.RESULTS] = 1.0
    randaugment_layers: Annotated[int, Bound(at_least=0, at_most=1000)] = 0
    randaugment_magnitude: Annotated[float, Bound(at_least=0.0, at_most=10.0)] = 10.0
    random_erasing: Share = 0.0
    random_rotation_degrees: Annotated[float, Bound(at_least=0.0, at_most=360.0)] = 0.0
    random_zoom: Annotated[float, Bound(at_least=0.0, at_most=1000.0)] = 0.0
    random_shift_px: Annotated[int, Bound(at_least=0, at_most=2**14)] = 0
    random_flip: bool = False
    num_workers: Annotated[Threads, Effect.MACHINE] = 0
    num_threads: Annotated[Threads, Effect.MACHINE] = 4
    prefetch_batches: Annotated[int, Bound(at_least=1, at_most=1024), Effect.MACHINE] = 4
    max_skipped_share: Annotated[Share, Effect.MACHINE] = 0.01


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long and on what objective; exactly one of ``steps`` and ``epochs`` is set.

    Attributes:
      batch_size: images of one optimizer step over all devices, all accumulation steps together.
      loss: ``"softmax"`` or ``"sigmoid"`` cross-entropy.
      mixup_alpha, cutmix_alpha: parameters of the Beta distributions of mixup and CutMix on the device; 0 is off.
        Where both are on, each batch gets one of them with probability 1/2.
      initial_checkpoint: folder of a run whose newest parameters this one starts from (fine-tuning); its position
        embeddings are interpolated to this image size, and a head for other classes starts anew.
      gradient_accumulation_steps: parts that a batch is worked through in.
      ema_decay: decay of the moving average of parameters that evaluation uses; 0 is off.
      max_nonfinite_steps: so many steps in a row may have a loss or gradient that is not finite; their updates are left
        out. One more stops the run. 0: the first one does.
      watchdog_seconds: the process ends if no step, batch of evaluation or save is finished for so long; None: never.
      watchdog_start_seconds: the same until the first step, and the first batch of evaluation, are finished, both of
        which are compiled; and for what ``vmoe_inform.evaluate`` does between two sets of images.
    """

    steps: Annotated[PositiveInt | None, Effect.RESULTS] = None
    epochs: Annotated[Annotated[float, Bound(above=0.0, at_most=1e9)] | None, Effect.RESULTS] = None
    batch_size: Batch = 128
    loss: Literal["softmax", "sigmoid"] = "softmax"
    label_smoothing: ShareBelowOne = 0.0
    mixup_alpha: Beta = 0.0
    cutmix_alpha: Beta = 0.0
    initial_checkpoint: Path = ""
    gradient_accumulation_steps: Batch = 1
    ema_decay: ShareBelowOne = 0.0
    log_every_steps: Annotated[PositiveInt, Effect.MACHINE] = 20
    max_nonfinite_steps: Annotated[NonNegativeInt, Effect.MACHINE] = 0
    watchdog_seconds: Annotated[Seconds | None, Effect.MACHINE] = 1800.0
    watchdog_start_seconds: Annotated[Seconds, Effect.MACHINE] = 1800.0


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Adam, AdamW, or descent with momentum (sgd), with warm-up and a schedule.

    Attributes:
      learning_rate: peak.
      end_learning_rate: at the last step (cosine, linear).
      warmup_steps: linear from 0 to the peak.
      beta1, beta2, epsilon: of Adam.
      momentum: share of the step before that is added to the gradient (sgd).
      weight_decay: decoupled, times the learning rate (adamw, sgd).
      weight_decay_pattern: regular expression; parameters in whose path it is found are decayed.
      weight_decay_multipliers: pairs of regular expression and factor of the weight decay; of those found in a
        parameter's path the first counts, and where none is, the factor is 1.
      multipliers: the same of the learning rate, and so of the whole update, weight decay included.
      frozen: regular expressions; parameters in whose path one is found stay as they are, and so do states of router
        steps. They have no gradient, no state of the optimizer and no weight decay.
      gradient_clip_norm: largest global norm of the gradient; None does not clip.
    """

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    end_learning_rate: NonNegativeFloat = 0.0
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: NonNegativeInt = 0
    beta1: ShareBelowOne = 0.9
    beta2: ShareBelowOne = 0.999
    epsilon: PositiveFloat = 1e-8
    momentum: ShareBelowOne = 0.9
    weight_decay: NonNegativeFloat = 0.0
    weight_decay_pattern: Pattern = ".*/kernel$"
    weight_decay_multipliers: tuple[tuple[Pattern, NonNegativeFloat], ...] = ()
    multipliers: tuple[tuple[Pattern, Factor], ...] = ()
    frozen: tuple[Pattern, ...] = ()
    gradient_clip_norm: PositiveFloat | None = None


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """A checkpoint is written every so many steps and after the last; the newest ``keep`` stay.

    Attributes:
      on_error: what happens when one cannot be written: ``"stop"`` ends the run; ``"continue"`` says so and tries again
        at the next; the last one has to be written in any case.
    """

    every_steps: PositiveInt = 500
    keep: PositiveInt = 3
    on_error: Literal["stop", "continue"] = "stop"


@dataclasses.dataclass(frozen=True)
class AttackConfig:
    """Adversarial images of the suites fgsm and pgd (arXiv 1412.6572 and 1706.06083), bounded in the largest change.

    Attributes:
      epsilon: largest change of a pixel, in 1/255 of the pixel range.
      num_steps: of PGD.
      step_size: of a step of PGD, in the unit of epsilon.
      seed: of PGD's random start.
      images: so many test images, evenly over the split, are attacked; None: all.
    """

    epsilon: Annotated[float, Bound(above=0.0, at_most=255.0)] = 1.0
    num_steps: Annotated[int, Bound(at_least=1, at_most=100_000)] = 10
    step_size: Annotated[float, Bound(above=0.0, at_most=255.0)] = 0.25
    seed: Seed = 0
    images: PositiveInt | None = None


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """What is evaluated, and how.

    Attributes:
      every_steps: clean accuracy is measured every so many training steps, and after the last; None: only then.
      suites: default of ``python -m vmoe_inform.evaluate --suites=``.
      ece_bins: equal-width bins of the expected calibration error.
      cache_directory: where generated suites are kept; empty for ``$XDG_CACHE_HOME/vmoe_inform``.
      corruption_seed: seed of the generated corruptions.
      generate_corruptions: draw the corruptions of a large test set while they are evaluated, where the published
        files are missing.
      shots: training images of each class that the suite fewshot learns from; each number is tried.
      attack: of the suites fgsm and pgd.
    """

    every_steps: Annotated[PositiveInt | None, Effect.MACHINE] = None
    batch_size: Annotated[Batch, Effect.MACHINE] = 256
    suites: Annotated[tuple[Name, ...], Effect.MACHINE] = ("clean", "c", "r", "a", "o")
    ece_bins: Annotated[int, Bound(at_least=1, at_most=100_000)] = 15
    cache_directory: Annotated[Path, Effect.MACHINE] = ""
    corruption_seed: Seed = 0
    generate_corruptions: Annotated[bool, Effect.MACHINE] = False
    shots: tuple[PositiveInt, ...] = (1, 5, 10)
    attack: AttackConfig = AttackConfig()


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; :func:`vmoe_inform.config.mesh_sizes` chooses those that are None.

    The batch is sharded over all axes.

    Attributes:
      replica: over which only the batch is; None: all devices that the others leave.
      fsdp: over which parameters and the optimizer's state are too.
      expert: over which the experts are; None: as many as divide both the experts and the devices of a slice that
        ``replica`` and ``fsdp`` leave.
    """

    replica: Devices | None = None
    fsdp: Devices = 1
    expert: Devices | None = None


@dataclasses.dataclass(frozen=True)
class Config:
    """A run.

    Attributes:
      seed: decides the parameters, the data order and all noise.
      profile: so many steps of this start of the run are traced, into DIR/profile; None: none.
    """

    seed: Annotated[Seed, Effect.TRAINING] = 0
    profile: Annotated[PositiveInt | None, Effect.MACHINE] = None
    model: Annotated[ModelConfig, Effect.TRAINING] = ModelConfig()
    data: Annotated[DataConfig, Effect.TRAINING] = DataConfig()
    train: Annotated[TrainConfig, Effect.TRAINING] = TrainConfig()
    optimizer: Annotated[OptimizerConfig, Effect.TRAINING] = OptimizerConfig()
    checkpoint: Annotated[CheckpointConfig, Effect.MACHINE] = CheckpointConfig()
    evaluation: Annotated[EvaluationConfig, Effect.RESULTS] = EvaluationConfig()
    mesh: Annotated[MeshConfig, Effect.MACHINE] = MeshConfig()


def resolve_layers(layers: str | tuple[int, ...], num_layers: int) -> tuple[int, ...]:
    """Block indices that ``model.moe.layers`` means.

    Raises:
      ValueError: not of the forms in :class:`MoeConfig`, or indices that repeat or do not exist.
    """
    field = "model.moe.layers"
    blocks = f"{num_layers} blocks (model.num_layers)"
    if isinstance(layers, str):
        if layers == "none":
            return ()
        match = re.fullmatch(r"(last|every)([1-9]\d{0,8})", layers)
        if match is None:
            raise checks.error(field, "'lastN', 'everyN', 'none' or a tuple of block indices", layers)
        kind, number = match[1], int(match[2])
        if kind == "every":
            if number > num_layers:
                raise checks.error(field, f"at most 'every{num_layers}' with {blocks}", layers)
            return tuple(range(number - 1, num_layers, number))
        odd = tuple(range(1, num_layers, 2))
        if number > len(odd):
            raise checks.error(field, f"at most 'last{len(odd)}' with {blocks}", layers)
        return odd[-number:]
    if len(set(layers)) != len(layers) or any(layer >= num_layers for layer in layers):
        raise checks.error(field, f"distinct block indices 0 to {num_layers - 1}", layers)
    return tuple(sorted(layers))
