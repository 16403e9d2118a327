"""ConfigDict -> frozen dataclasses. Each field below is the one home of a setting and of its default.

``default()`` gives the ConfigDict that the files in ``configs/`` start from, ``parse`` turns a ConfigDict (or a plain
dict, as read from a run's ``config.json``) into the dataclasses that the rest of the package takes. Every check that
looks at more than one field is in this file. A field's suffix is its unit: ``_px`` pixels, ``_steps`` optimizer steps.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import ml_collections

from vmoe_inform import checks, dispatch, groups, routing  # noqa: F401  (routing registers the steps)
from vmoe_inform.checks import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Share, ShareBelowOne
from vmoe_inform.registry import Registry
from vmoe_inform.routing import steps

JsonValue = Any


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

    score: str = "linear"
    inform: str | tuple[str, ...] = "none"
    inform_by_layer: tuple[str | tuple[str, ...], ...] = ()
    select: str = "top_experts"
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
      group_size_images: images whose tokens share the experts' slots.
      dispatch: registered way to move the tokens, or ``"auto"``: the fastest for the platform and the shapes.
      expert_dropout_rate: dropout inside the experts.
    """

    layers: str | tuple[NonNegativeInt, ...] = "last2"
    num_experts: PositiveInt = 8
    num_selected_experts: PositiveInt = 2
    capacity_factor: PositiveFloat = 1.05
    capacity_factor_evaluation: PositiveFloat = 4.0
    capacity_multiple_of: PositiveInt = 4
    batch_priority: bool = False
    group_size_images: PositiveInt = 1
    dispatch: str = "auto"
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

    num_classes: PositiveInt = 1000
    image_size_px: PositiveInt = 224
    patch_size_px: PositiveInt = 32
    num_layers: PositiveInt = 8
    hidden_size: PositiveInt = 512
    mlp_size: PositiveInt = 2048
    num_heads: PositiveInt = 8
    classifier: Literal["token", "gap", "map"] = "token"
    representation_size: PositiveInt | None = 512
    dropout_rate: ShareBelowOne = 0.0
    attention_dropout_rate: ShareBelowOne = 0.0
    stochastic_depth_rate: ShareBelowOne = 0.0
    attention_block_size: PositiveInt | None = None
    attention: Literal["auto", "xla", "fused"] = "auto"
    head_bias_initial_value: float = 0.0
    remat: Literal["none", "dots", "full"] = "none"
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

    source: str = "digits"
    directory: str = ""
    tfds_name: str = ""
    train_split: str = "train"
    test_split: str = "test"
    suites_directory: str = ""
    pixel_mean: float | tuple[float, ...] = 0.5
    pixel_std: PositiveFloat | tuple[PositiveFloat, ...] = 0.5
    crop: Literal["center", "inception"] = "center"
    crop_min_area: Annotated[float, checks.Bound(above=0.0, at_most=1.0)] = 0.05
    evaluation_crop: Annotated[float, checks.Bound(above=0.0, at_most=1.0)] = 1.0
    randaugment_layers: NonNegativeInt = 0
    randaugment_magnitude: Annotated[float, checks.Bound(at_least=0.0, at_most=10.0)] = 10.0
    random_erasing: Share = 0.0
    random_rotation_degrees: NonNegativeFloat = 0.0
    random_zoom: NonNegativeFloat = 0.0
    random_shift_px: NonNegativeInt = 0
    random_flip: bool = False
    num_workers: NonNegativeInt = 0
    num_threads: NonNegativeInt = 4
    prefetch_batches: PositiveInt = 4
    max_skipped_share: Share = 0.01


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
    """

    steps: PositiveInt | None = None
    epochs: PositiveFloat | None = None
    batch_size: PositiveInt = 128
    loss: Literal["softmax", "sigmoid"] = "softmax"
    label_smoothing: ShareBelowOne = 0.0
    mixup_alpha: NonNegativeFloat = 0.0
    cutmix_alpha: NonNegativeFloat = 0.0
    initial_checkpoint: str = ""
    gradient_accumulation_steps: PositiveInt = 1
    ema_decay: ShareBelowOne = 0.0
    log_every_steps: PositiveInt = 20


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Adam or AdamW with warm-up and a schedule.

    Attributes:
      learning_rate: peak.
      end_learning_rate: at the last step (cosine, linear).
      warmup_steps: linear from 0 to the peak.
      weight_decay: decoupled, times the learning rate (adamw).
      weight_decay_pattern: regular expression; parameters whose path it matches are decayed.
      gradient_clip_norm: largest global norm of the gradient; None does not clip.
    """

    name: Literal["adamw", "adam"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    end_learning_rate: NonNegativeFloat = 0.0
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: NonNegativeInt = 0
    beta1: ShareBelowOne = 0.9
    beta2: ShareBelowOne = 0.999
    epsilon: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.0
    weight_decay_pattern: str = ".*/kernel$"
    gradient_clip_norm: PositiveFloat | None = None


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """A checkpoint is written every so many steps and after the last; the newest ``keep`` stay."""

    every_steps: PositiveInt = 500
    keep: PositiveInt = 3


@dataclasses.dataclass(frozen=True)
class AttackConfig:
    """Adversarial images of the suites fgsm and pgd (arXiv 1412.6572 and 1706.06083), bounded in the largest change.

    Attributes:
      epsilon: largest change of a pixel, in 1/255 of the pixel range.
      num_steps: of PGD.
      step_size: of a step of PGD, in the unit of epsilon.
      seed: of PGD's random start.
      images: the first so many test images are attacked; None: all.
    """

    epsilon: PositiveFloat = 1.0
    num_steps: PositiveInt = 10
    step_size: PositiveFloat = 0.25
    seed: NonNegativeInt = 0
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

    every_steps: PositiveInt | None = None
    batch_size: PositiveInt = 256
    suites: tuple[str, ...] = ("clean", "c", "r", "a", "o")
    ece_bins: PositiveInt = 15
    cache_directory: str = ""
    corruption_seed: NonNegativeInt = 0
    generate_corruptions: bool = False
    shots: tuple[PositiveInt, ...] = (1, 5, 10)
    attack: AttackConfig = AttackConfig()


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; None for ``replica`` takes all that ``expert`` leaves.

    The batch is sharded over both axes, expert parameters over ``expert``.
    """

    replica: PositiveInt | None = None
    expert: PositiveInt = 1


@dataclasses.dataclass(frozen=True)
class Config:
    """A run. ``seed`` decides the parameters, the data order and all noise."""

    seed: Annotated[int, checks.Bound(at_least=0, below=2**32)] = 0
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    mesh: MeshConfig = MeshConfig()


def default() -> ml_collections.ConfigDict:
    """All settings at their defaults, as the ConfigDict that a config file edits; unknown keys are refused."""
    return groups.to_config_dict(Config()).lock()


def parse_argument(argument: str | None, **defaults: str) -> dict[str, str]:
    """Reads the string after a config file's name, a comma list of ``key=value``.

    Args:
      argument: e.g. ``"router=attention_vmoe,experts=16"``, or None.
      **defaults: the allowed keys with their defaults.

    Raises:
      ValueError: an item without ``=``, an unknown key, or a key given twice.
    """
    values: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in (argument or "").split(","))):
        key, separator, value = item.partition("=")
        if not separator or not value:
            raise checks.error("config argument", "a comma list of key=value", item)
        if key not in defaults:
            raise checks.error("config argument", f"one of the keys {', '.join(defaults)}", key)
        if key in values:
            raise checks.error("config argument", f"the key {key} once", argument)
        values[key] = value
    return {**defaults, **values}


def check_overrides(arguments: Sequence[str]) -> None:
    """Checks that every ``--config.a.b=VALUE`` of a command line names a field.

    Raises:
      ValueError: an unknown field; lists the known ones of its group.
    """
    for argument in arguments:
        match = re.match(r"--?config\.([^=]*)", argument)
        group: Any = default()
        prefix = ""
        for key in match[1].split(".") if match else ():
            if not isinstance(group, ml_collections.ConfigDict):
                raise checks.error(prefix, "a field without fields of its own", argument)
            groups.check_keys([key], set(group), prefix)
            group, prefix = group[key], f"{prefix}.{key}" if prefix else key


def resolve_layers(layers: str | tuple[int, ...], num_layers: int) -> tuple[int, ...]:
    """Block indices that ``model.moe.layers`` means.

    Raises:
      ValueError: not of the forms in :class:`MoeConfig`, or indices that repeat or do not exist.
    """
    field = "model.moe.layers"
    if isinstance(layers, str):
        if layers == "none":
            return ()
        match = re.fullmatch(r"(last|every)([1-9]\d*)", layers)
        if match is None:
            raise checks.error(field, "'lastN', 'everyN', 'none' or a tuple of block indices", layers)
        kind, number = match[1], int(match[2])
        if kind == "every":
            if number > num_layers:
                raise checks.error(field, f"at most 'every{num_layers}' with {num_layers} blocks", layers)
            return tuple(range(number - 1, num_layers, number))
        odd = tuple(range(1, num_layers, 2))
        if number > len(odd):
            raise checks.error(field, f"at most 'last{len(odd)}' with {num_layers} blocks", layers)
        return odd[-number:]
    if len(set(layers)) != len(layers) or any(layer >= num_layers for layer in layers):
        raise checks.error(field, f"distinct block indices 0 to {num_layers - 1}", layers)
    return tuple(sorted(layers))


def parse_model(given: Any) -> ModelConfig:
    """``config.model`` as a checked dataclass.

    Args:
      given: a ConfigDict or dict with the fields of :class:`ModelConfig`, or a ModelConfig.

    Raises:
      ValueError: an unknown key, a wrong type, or an impossible combination; says field, expected, received.
    """
    model = given if isinstance(given, ModelConfig) else groups.parse_group(ModelConfig, given, "model")
    _check_names(model)
    model = _with_chosen_options(model)
    _check_model(model)
    _check_router(model)
    return model


def parse(given: Any) -> Config:
    """A whole config as checked dataclasses.

    Args:
      given: a ConfigDict, a dict (``config.json``) or a Config.

    Raises:
      ValueError: as :func:`parse_model`.
    """
    config = given if isinstance(given, Config) else groups.parse_group(Config, given, "")
    config = dataclasses.replace(config, model=parse_model(config.model))
    _check_run(config)
    return config


def _with_chosen_options(model: ModelConfig) -> ModelConfig:
    """Keeps the options of the chosen steps only, all of them written out."""
    router, known = model.router, steps.all_steps()
    options = {
        name: {**known[name].option_defaults, **router.options.get(name, {})}
        for name in router.step_names
        if known[name].option_types
    }
    return dataclasses.replace(model, router=dataclasses.replace(router, options=options))


def _check_names(model: ModelConfig) -> None:
    router = model.router
    informs = "inform_by_layer" if router.inform_by_layer else "inform"
    chosen: tuple[tuple[str, tuple[str, ...], Registry[Any]], ...] = (
        ("score", (router.score,), steps.SCORE_STEPS),
        (informs, router.inform_steps, steps.INFORM_STEPS),
        ("select", (router.select,), steps.SELECT_STEPS),
    )
    for field, names, registry in chosen:
        for name in names:
            if name not in registry:
                known = ", ".join(registry) + (", or none alone" if field == informs else "")
                raise checks.error(f"model.router.{field}", f"one of {known}", name)
    if model.moe.dispatch not in ("auto", *dispatch.DISPATCHERS):
        raise checks.error("model.moe.dispatch", f"one of auto, {', '.join(dispatch.DISPATCHERS)}", model.moe.dispatch)


def _check_model(model: ModelConfig) -> None:
    moe = model.moe
    if model.image_size_px % model.patch_size_px:
        raise checks.error(
            "model.image_size_px", f"a multiple of model.patch_size_px = {model.patch_size_px}", model.image_size_px
        )
    if model.hidden_size % model.num_heads:
        raise checks.error("model.hidden_size", f"a multiple of model.num_heads = {model.num_heads}", model.hidden_size)
    if model.attention == "fused":  # what the kernel can do for other reasons, the layer checks
        for field, without in (("attention_dropout_rate", 0.0), ("attention_block_size", None)):
            if getattr(model, field) != without:
                raise checks.error(f"model.{field}", f"{without} with model.attention = 'fused'", getattr(model, field))
    if moe.num_selected_experts > moe.num_experts:
        raise checks.error(
            "model.moe.num_selected_experts",
            f"at most model.moe.num_experts = {moe.num_experts}",
            moe.num_selected_experts,
        )
    resolve_layers(moe.layers, model.num_layers)


def _check_router(model: ModelConfig) -> None:
    """Whether the steps go with each other and with the layer, by what they declare."""
    moe, router = model.moe, model.router
    score, select = steps.SCORE_STEPS[router.score], steps.SELECT_STEPS[router.select]
    if router.inform_by_layer:
        if router.inform != "none":
            raise checks.error("model.router.inform", "'none' beside model.router.inform_by_layer", router.inform)
        if len(router.inform_by_layer) > len(model.moe_layers):
            raise checks.error(
                "model.router.inform_by_layer",
                f"at most one choice for each of the {len(model.moe_layers)} MoE layers (model.moe.layers)",
                router.inform_by_layer,
            )
    for ordinal in range(max(1, len(router.inform_by_layer))):
        names = router.inform_steps_of(ordinal)
        if len(set(names)) != len(names):
            raise checks.error("model.router.inform", "each step once", names)
    for name in router.inform_steps:
        layers = [i for i in range(len(model.moe_layers)) if name in router.inform_steps_of(i)]
        if steps.INFORM_STEPS[name].needs_previous and not any(layers):
            raise checks.error(
                "model.moe.layers", f"a second MoE layer for the inform step {name!r} to act in", moe.layers
            )
    for step in (score, *(steps.INFORM_STEPS[name] for name in router.inform_steps), select):
        _ask(step, step.check, model, model.layer_sizes)
    if score.selects is not None and router.select not in score.selects:
        raise checks.error(
            "model.router.select", f"{' or '.join(score.selects)} with model.router.score = {score.name!r}", select.name
        )
    if router.inform_steps and not select.uses_probabilities:
        raise checks.error(
            "model.router.inform",
            f"'none' with model.router.select = {select.name!r}, which looks at logits only",
            router.inform_by_layer or router.inform,
        )
    if moe.batch_priority and select.fills_slots:
        raise checks.error(
            "model.moe.batch_priority", f"false with model.router.select = {select.name!r}, which fills all slots", True
        )
    if moe.capacity_factor < select.smallest_capacity_factor:
        raise checks.error(
            "model.moe.capacity_factor",
            f"at least {select.smallest_capacity_factor} with model.router.select = {select.name!r}",
            moe.capacity_factor,
        )
    growth = score.growth(model.layer_sizes, **options_of(router, score)) if score.growth else None
    if growth is not None and not select.grows:
        raise checks.error(
            f"model.router.options.{score.name}",
            f"a constant K with model.router.select = {select.name!r}",
            f"K from {growth.k_start} to {growth.k_end}",
        )
    if router.losses.load > 0 and (router.noise_std == 0 or growth is not None):
        why = "model.router.noise_std is 0 (no noise, no load loss)" if router.noise_std == 0 else "K grows"
        raise checks.error("model.router.losses.load", f"0 when {why}", router.losses.load)
    for name in score.loss_names:
        weight = getattr(router.losses, name, None)
        if not weight:
            raise checks.error(
                f"model.router.losses.{name}",
                f"a weight > 0 with model.router.score = {score.name!r}, which learns by this loss",
                weight,
            )
    if router.losses.distillation > 0 and "distillation" not in score.loss_names:
        raise checks.error(
            "model.router.losses.distillation",
            f"0 with model.router.score = {score.name!r}, which distils nothing",
            router.losses.distillation,
        )
    if router.noise_std > 0 and not score.takes_noise:
        raise checks.error("model.router.noise_std", f"0 with model.router.score = {score.name!r}", router.noise_std)


def options_of(router: RouterConfig, step: steps.Step) -> dict[str, Any]:
    """The options of a chosen step, as keyword arguments of its functions."""
    return dict(router.options.get(step.name, {}))


def _ask(step: steps.Step, check: Callable[..., None], model: ModelConfig, about: Any) -> None:
    """Calls a check of a step; what it says of an option is said of the option's field in the config."""
    try:
        check(about, **options_of(model.router, step))
    except checks.InputError as problem:
        field = "" if str(problem).startswith("model.") else f"model.router.options.{step.name}."
        raise checks.InputError(f"{field}{problem}") from None


def check_steps(config: Config, total_steps: int) -> None:
    """Raises ValueError if a step of the router does not go with the number of training steps."""
    router = config.model.router
    known = steps.all_steps()
    for name in router.step_names:
        _ask(known[name], known[name].check_steps, config.model, total_steps)


def _check_run(config: Config) -> None:
    train, mesh = config.train, config.mesh
    if (train.steps is None) == (train.epochs is None):
        raise checks.error("train", "exactly one of train.steps and train.epochs", (train.steps, train.epochs))
    if train.batch_size % train.gradient_accumulation_steps:
        raise checks.error(
            "train.batch_size",
            f"a multiple of train.gradient_accumulation_steps = {train.gradient_accumulation_steps}",
            train.batch_size,
        )
    for field in ("pixel_mean", "pixel_std"):
        value = getattr(config.data, field)
        if isinstance(value, tuple) and len(value) != 3:
            raise checks.error(f"data.{field}", "one number, or three for red, green and blue", value)
    if train.steps is not None:
        check_steps(config, train.steps)
    router = config.model.router
    used = (steps.SCORE_STEPS[router.score], *(steps.INFORM_STEPS[name] for name in router.inform_steps))
    stateful = [step.name for step in used if step.updates_state]
    if stateful and train.gradient_accumulation_steps > 1:
        raise checks.error(
            "train.gradient_accumulation_steps",
            f"1 with the router step {stateful[0]!r}, whose state is updated for the whole batch at once",
            train.gradient_accumulation_steps,
        )
    part = train.batch_size // train.gradient_accumulation_steps
    for field, size in (("train.batch_size", part), ("evaluation.batch_size", config.evaluation.batch_size)):
        if size % config.model.moe.group_size_images:
            raise checks.error(
                field,
                f"a multiple of model.moe.group_size_images = {config.model.moe.group_size_images}"
                + (" in each accumulation step" if train.gradient_accumulation_steps > 1 else ""),
                size,
            )
    if config.model.moe.num_experts % mesh.expert:
        raise checks.error("mesh.expert", f"a divisor of the {config.model.moe.num_experts} experts", mesh.expert)
    if mesh.expert > 1 and config.model.moe.dispatch == "ragged":
        raise checks.error(
            "mesh.expert", "1 with model.moe.dispatch = 'ragged', which needs all experts on each device", mesh.expert
        )
    if config.optimizer.name == "adam" and config.optimizer.weight_decay > 0:
        raise checks.error("optimizer.weight_decay", "0 with optimizer.name = 'adam'", config.optimizer.weight_decay)
    try:
        re.compile(config.optimizer.weight_decay_pattern)
    except re.error as problem:
        raise checks.error(
            "optimizer.weight_decay_pattern", f"a regular expression ({problem})", config.optimizer.weight_decay_pattern
        ) from None


def mesh_sizes(config: Config, num_devices: int) -> tuple[int, int]:
    """Sizes (replica, expert) of the mesh over ``num_devices`` devices.

    Raises:
      ValueError: the sizes do not multiply to the devices, or a batch cannot be shared out in whole groups.
    """
    expert = config.mesh.expert
    replica = config.mesh.replica
    if replica is None:
        if num_devices % expert:
            raise checks.error("mesh.expert", f"a divisor of the {num_devices} devices", expert)
        replica = num_devices // expert
    elif replica * expert != num_devices:
        raise checks.error("mesh", f"replica x expert = {num_devices} devices", f"{replica} x {expert}")
    accumulation = config.train.gradient_accumulation_steps
    _check_batch("train.batch_size", config.train.batch_size, config, num_devices, accumulation)
    check_evaluation_batch(config, num_devices)
    return replica, expert


def check_evaluation_batch(config: Config, num_devices: int) -> None:
    """Raises ValueError if a batch of evaluation cannot be shared out over the devices in whole groups."""
    _check_batch("evaluation.batch_size", config.evaluation.batch_size, config, num_devices)


def _check_batch(field: str, size: int, config: Config, num_devices: int, parts: int = 1) -> None:
    group = config.model.moe.group_size_images
    if size % (num_devices * group * parts):
        raise checks.error(
            field,
            f"a multiple of {num_devices} devices x {group} images of a group"
            + (f" x {parts} accumulation steps" if parts > 1 else ""),
            size,
        )


def to_json(config: Config) -> dict[str, JsonValue]:
    """The resolved config as plain JSON values; ``parse(to_json(config)) == config``."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def config_hash(config: Config) -> str:
    """First 16 hexadecimal digits of the SHA-256 of the resolved config."""
    text = json.dumps(to_json(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
