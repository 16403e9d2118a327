"""ConfigDict -> checked dataclasses. The settings themselves are in settings.py.

``default()`` gives the ConfigDict that the files in ``configs/`` start from, ``parse`` turns a ConfigDict (or a plain
dict, as read from a run's ``config.json``) into the dataclasses that the rest of the package takes. Every check that
looks at more than one field is in this file.
"""

import dataclasses
import json
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections

from vmoe_inform import checks, dispatch, routing, suite_kinds  # noqa: F401  (routing registers the steps)
from vmoe_inform.config import groups, sizes
from vmoe_inform.config.settings import (  # noqa: F401  (for those who take settings from here)
    AttackConfig,
    CheckpointConfig,
    Config,
    DataConfig,
    EvaluationConfig,
    LossWeights,
    MeshConfig,
    ModelConfig,
    MoeConfig,
    OptimizerConfig,
    RouterConfig,
    TrainConfig,
    resolve_layers,
)
from vmoe_inform.registry import Registry
from vmoe_inform.routing import steps

JsonValue = Any


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
    _check_classes(config)
    _check_data(config.data)
    _check_optimizer(config.optimizer)
    _check_evaluation(config.evaluation)
    return config


def override(config: Config, values: Mapping[str, Any]) -> Config:
    """A config with some fields replaced, checked as a whole.

    Args:
      config: as it was.
      values: by field, e.g. ``{"data.directory": "/data"}``.

    Raises:
      ValueError: an unknown field, or as :func:`parse`.
    """
    for field in values:
        groups.hint_of(Config, field)
    given = ml_collections.ConfigDict(to_json(config), type_safe=False)
    given.update_from_flattened_dict(dict(values))
    return parse(given)


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
    if model.stochastic_depth_rate > 0 and model.num_layers == 1:
        raise checks.error(
            "model.stochastic_depth_rate",
            "0 with a single block: it grows from 0 at the first to this at the last",
            model.stochastic_depth_rate,
        )
    if moe.num_selected_experts > moe.num_experts:
        raise checks.error(
            "model.moe.num_selected_experts",
            f"at most model.moe.num_experts = {moe.num_experts}",
            moe.num_selected_experts,
        )
    resolve_layers(moe.layers, model.num_layers)
    sizes.check_model(model)


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
    train = config.train
    if (train.steps is None) == (train.epochs is None):
        expected = "exactly one of train.steps and train.epochs, the other None"
        raise checks.error("train", expected, (train.steps, train.epochs))
    if train.batch_size % train.gradient_accumulation_steps:
        raise checks.error(
            "train.batch_size",
            f"a multiple of train.gradient_accumulation_steps = {train.gradient_accumulation_steps}",
            train.batch_size,
        )
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
    _check_mesh(config)


def _check_mesh(config: Config) -> None:
    model, mesh = config.model, config.mesh
    if mesh.expert is not None:
        if model.moe.num_experts % mesh.expert:
            raise checks.error("mesh.expert", f"a divisor of the {model.moe.num_experts} experts", mesh.expert)
        if mesh.expert > 1 and not _spreads_experts(model):
            expected = (
                "1 with model.moe.dispatch = 'ragged', which needs all experts on each device"
                if model.moe_layers
                else "1 without MoE layers"
            )
            raise checks.error("mesh.expert", expected, mesh.expert)
    for field in ("hidden_size", "representation_size"):
        width = getattr(model, field)
        if width is not None and width % mesh.fsdp:
            raise checks.error("mesh.fsdp", f"a divisor of model.{field} = {width}", mesh.fsdp)


def _spreads_experts(model: ModelConfig) -> bool:
    """Whether the experts may lie on different devices."""
    return bool(model.moe_layers) and model.moe.dispatch != "ragged"


def with_class_names(config: Config, class_names: Sequence[str]) -> Config:
    """The config with these names for its classes, unless it has some."""
    if config.data.class_names:
        return config
    return dataclasses.replace(config, data=dataclasses.replace(config.data, class_names=tuple(class_names)))


def _check_classes(config: Config) -> None:
    names = config.data.class_names
    if len(set(names)) != len(names):
        raise checks.error("data.class_names", "each name once", [name for name in names if names.count(name) > 1][:5])
    if names and len(names) != config.model.num_classes:
        expected = f"one for each of the classes, model.num_classes = {config.model.num_classes}"
        raise checks.error("data.class_names", expected, len(names))


def _check_data(data: DataConfig) -> None:
    for field in ("pixel_mean", "pixel_std"):
        value = getattr(data, field)
        if isinstance(value, tuple) and len(value) != 3:
            raise checks.error(f"data.{field}", "one number, or three for red, green and blue", value)


def _check_optimizer(optimizer: OptimizerConfig) -> None:
    if optimizer.name == "adam" and optimizer.weight_decay > 0:
        raise checks.error("optimizer.weight_decay", "0 with optimizer.name = 'adam'", optimizer.weight_decay)
    if optimizer.end_learning_rate > optimizer.learning_rate and optimizer.schedule != "constant":
        raise checks.error(
            "optimizer.end_learning_rate",
            f"at most optimizer.learning_rate = {optimizer.learning_rate}",
            optimizer.end_learning_rate,
        )
    patterns = (
        ("weight_decay_pattern", optimizer.weight_decay_pattern),
        *(("weight_decay_multipliers", pattern) for pattern, _ in optimizer.weight_decay_multipliers),
        *(("multipliers", pattern) for pattern, _ in optimizer.multipliers),
        *(("frozen", pattern) for pattern in optimizer.frozen),
    )
    for field, pattern in patterns:
        try:
            with warnings.catch_warnings(action="ignore"):  # of what a later version of re may read in another way
                re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as problem:  # also repeated too often, or nested too deep
            raise checks.error(f"optimizer.{field}", f"a regular expression ({problem})", pattern) from None
    if optimizer.weight_decay_multipliers and optimizer.weight_decay == 0:
        raise checks.error(
            "optimizer.weight_decay_multipliers",
            "none with optimizer.weight_decay = 0",
            optimizer.weight_decay_multipliers,
        )


def _check_evaluation(evaluation: EvaluationConfig) -> None:
    attack, shots = evaluation.attack, evaluation.shots
    suite_kinds.check_names(evaluation.suites, "evaluation.suites")
    if not shots or len(set(shots)) != len(shots):
        raise checks.error("evaluation.shots", "distinct numbers, at least one", shots)
    if attack.num_steps * attack.step_size < attack.epsilon:
        raise checks.error(
            "evaluation.attack.step_size",
            f"at least epsilon / num_steps = {attack.epsilon:g} / {attack.num_steps}, lest PGD cannot use its epsilon",
            attack.step_size,
        )


def mesh_sizes(config: Config, num_devices: int, num_slices: int = 1) -> dict[str, int]:
    """Sizes of the axes ``replica``, ``fsdp`` and ``expert`` of the mesh over ``num_devices`` devices.

    An ``expert`` of None becomes the greatest common divisor of the experts and the devices of a slice: with more
    devices than experts every device has one, in several replicas; where they do not go together, a device has several
    experts; and 1 where experts have to be on every device (ragged dispatch). A ``replica`` of None takes all devices
    that are left.

    Raises:
      ValueError: the sizes do not multiply to the devices, or a batch cannot be shared out in whole groups.
    """
    replica, fsdp, expert = config.mesh.replica, config.mesh.fsdp, config.mesh.expert
    for field, size in (("mesh.replica", replica or 1), ("mesh.fsdp", fsdp), ("mesh.expert", expert or 1)):
        if num_devices % size:
            raise checks.error(field, f"a divisor of the {num_devices} devices", size)
    if expert is None:
        others = (num_slices if replica is None else replica) * fsdp
        left = num_devices // math.gcd(num_devices, others)
        expert = math.gcd(config.model.moe.num_experts, left) if _spreads_experts(config.model) else 1
    if replica is None:
        replica = max(1, num_devices // (fsdp * expert))
    if replica * fsdp * expert != num_devices:
        raise checks.error("mesh", f"replica x fsdp x expert = {num_devices} devices", f"{replica} x {fsdp} x {expert}")
    accumulation = config.train.gradient_accumulation_steps
    _check_batch("train.batch_size", config.train.batch_size, config, num_devices, accumulation)
    check_evaluation_batch(config, num_devices)
    return {"replica": replica, "fsdp": fsdp, "expert": expert}


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
