"""Every check that looks at more than one setting. Types and bounds of single settings are at their fields."""

import collections
import re
import warnings
from collections.abc import Callable
from typing import Any

from vmoe_inform import checks, dispatch, routing  # noqa: F401  (routing registers the steps)
from vmoe_inform.config import causality, domains, sizes
from vmoe_inform.config.mesh import spreads_experts
from vmoe_inform.config.settings import (
    Config,
    EvaluationConfig,
    ModelConfig,
    OptimizerConfig,
    options_of,
    resolve_layers,
)
from vmoe_inform.registry import Registry
from vmoe_inform.routing import steps


def check_names(model: ModelConfig) -> None:
    """Raises ValueError unless the steps of the router and the dispatcher are registered."""
    router = model.router
    informs = "inform_by_layer" if router.inform_by_layer else "inform"
    chosen: tuple[tuple[str, tuple[str, ...], Registry[Any]], ...] = (
        ("score", (router.score,), steps.SCORE_STEPS),
        (informs, router.inform_steps, steps.INFORM_STEPS),
        ("select", (router.select,), steps.SELECT_STEPS),
        ("losses", router.losses, steps.LOSS_STEPS),
    )
    for field, names, registry in chosen:
        for name in names:
            if name not in registry:
                known = ", ".join(registry) + (", or none alone" if field == informs else "")
                raise checks.unknown(f"model.router.{field}", f"one of {known}", name, registry)
    dispatchers = ("auto", *dispatch.DISPATCHERS)
    if model.moe.dispatch not in dispatchers:
        raise checks.unknown("model.moe.dispatch", f"one of {', '.join(dispatchers)}", model.moe.dispatch, dispatchers)


def check_model(model: ModelConfig) -> None:
    """Raises ValueError for settings of a model that do not go together.

    Args:
      model: has passed :func:`check_names`, and holds the options of the chosen steps.
    """
    moe = model.moe
    domains.check_model(model)
    if model.hidden_size % model.num_heads:
        raise checks.error("model.hidden_size", f"a multiple of model.num_heads = {model.num_heads}", model.hidden_size)
    kernel = model.attention
    if kernel in ("fused", "cudnn"):  # what it can do for other reasons, the layer checks
        for field, without in (("attention_dropout_rate", 0.0), ("attention_block_size", None)):
            if getattr(model, field) != without:
                raise checks.error(
                    f"model.{field}", f"{without} with model.attention = {kernel!r}", getattr(model, field)
                )
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
    if moe.expert_mlp == "fused" and moe.dispatch in dispatch.NEED_ALL_EXPERTS:
        expected = f"'xla' with model.moe.dispatch = {moe.dispatch!r}, whose experts have unequally many rows"
        raise checks.error("model.moe.expert_mlp", expected, moe.expert_mlp)
    if not resolve_layers(moe.layers, model.num_layers) and moe.shared_experts:
        raise checks.error("model.moe.shared_experts", "0 without MoE layers", moe.shared_experts)
    sizes.check_model(model)
    _check_router(model)


def _check_router(model: ModelConfig) -> None:
    """Whether the steps go with each other and with the layer, by what they declare."""
    router = model.router
    causality.check(model)
    _check_inform(model)
    informs = [steps.INFORM_STEPS[name] for name in router.inform_steps]
    for step in (steps.SCORE_STEPS[router.score], *informs, steps.SELECT_STEPS[router.select]):
        _ask(step, step.check, model, model.layer_sizes)
    _check_select(model)
    _check_losses(model)
    score = steps.SCORE_STEPS[router.score]
    if score.needs_previous and len(model.moe_layers) == 1:
        expected = f"a second MoE layer for the score step {score.name!r}, which needs the one before"
        raise checks.error("model.moe.layers", expected, model.moe.layers)


def _check_inform(model: ModelConfig) -> None:
    """Whether the inform steps go with the MoE layers."""
    router, num_layers = model.router, len(model.moe_layers)
    if router.inform_by_layer:
        if router.inform != "none":
            raise checks.error("model.router.inform", "'none' with model.router.inform_by_layer", router.inform)
        if len(router.inform_by_layer) > num_layers:
            expected = f"at most one choice for each of the {num_layers} MoE layers (model.moe.layers)"
            raise checks.error("model.router.inform_by_layer", expected, router.inform_by_layer)
    for ordinal in range(max(1, len(router.inform_by_layer))):
        names = router.inform_steps_of(ordinal)
        if len(set(names)) != len(names):
            raise checks.error("model.router.inform", "each step once", names)
    for name in router.inform_steps:
        layers = [i for i in range(num_layers) if name in router.inform_steps_of(i)]
        if steps.INFORM_STEPS[name].skips_first_layer and not any(layers):
            expected = f"a second MoE layer for the inform step {name!r} to act in"
            raise checks.error("model.moe.layers", expected, model.moe.layers)


def _check_select(model: ModelConfig) -> None:
    """Whether the select step goes with the other steps and with the capacity of the experts."""
    moe, router = model.moe, model.router
    score, select = steps.SCORE_STEPS[router.score], steps.SELECT_STEPS[router.select]
    chosen = f"model.router.select = {select.name!r}"
    if score.selects is not None and router.select not in score.selects:
        expected = f"{' or '.join(score.selects)} with model.router.score = {score.name!r}"
        raise checks.error("model.router.select", expected, select.name)
    if select.scores is not None and router.score not in select.scores:
        raise checks.error("model.router.score", f"{' or '.join(select.scores)} with {chosen}", score.name)
    if router.inform_steps and not select.uses_probabilities:
        received = router.inform_by_layer or router.inform
        raise checks.error("model.router.inform", f"'none' with {chosen}, which looks at logits only", received)
    if moe.batch_priority and select.fills_slots:
        raise checks.error("model.moe.batch_priority", f"false with {chosen}, which fills all slots", True)
    if moe.capacity_factor is not None and moe.capacity_factor < select.smallest_capacity_factor:
        expected = f"at least {select.smallest_capacity_factor} with {chosen}"
        raise checks.error("model.moe.capacity_factor", expected, moe.capacity_factor)
    growth = _growth(model)
    if growth is not None and not select.grows:
        received = f"K from {growth.k_start} to {growth.k_end}"
        raise checks.error(f"model.router.options.{score.name}", f"a constant K with {chosen}", received)


def _growth(model: ModelConfig) -> steps.Growth | None:
    """How K grows during training; None if it is constant."""
    score = steps.SCORE_STEPS[model.router.score]
    return score.growth(model.layer_sizes, **options_of(model.router, score)) if score.growth else None


def _check_losses(model: ModelConfig) -> None:
    """Whether noise and auxiliary losses go with the score step."""
    router = model.router
    score = steps.SCORE_STEPS[router.score]
    chosen = f"model.router.score = {score.name!r}"
    losses = [steps.LOSS_STEPS[name] for name in router.losses]
    if len(set(router.losses)) != len(router.losses):
        raise checks.error("model.router.losses", "each loss once", router.losses)
    if router.noise_std == 0 or _growth(model) is not None:
        why = "model.router.noise_std is 0 (no noise)" if router.noise_std == 0 else "K grows"
        for loss in losses:
            if loss.needs_noise:
                raise checks.error("model.router.losses", f"no {loss.name!r} where {why}", router.losses)
    learned = score.parameters(model.layer_sizes, **options_of(router, score))
    for loss in losses:
        for name in loss.needs_parameters:
            if name not in learned:
                raise checks.error("model.router.losses", f"no {loss.name!r} with {chosen}: no {name}", router.losses)
        _ask(loss, loss.check, model, model.layer_sizes)
    if router.noise_std > 0 and not score.takes_noise:
        raise checks.error("model.router.noise_std", f"0 with {chosen}", router.noise_std)


def _ask(step: steps.Step, check: Callable[..., None], model: ModelConfig, about: Any) -> None:
    """Calls a check of a step; what it says of an option is said of the option's field in the config."""
    try:
        check(about, **options_of(model.router, step))
    except checks.InputError as problem:
        field = "" if str(problem).startswith("model.") else f"model.router.options.{step.name}."
        raise checks.InputError(f"{field}{problem}") from None


def check_duration(config: Config, duration: steps.Duration) -> None:
    """Raises ValueError if a step of the router does not go with the length of the training."""
    router = config.model.router
    known = steps.all_steps()
    for name in router.step_names:
        _ask(known[name], known[name].check_duration, config.model, duration)


def check_warmup(optimizer: OptimizerConfig, total_steps: int) -> None:
    """Raises ValueError for a warm-up, of the learning rate or of some parameters, not shorter than the run."""
    if optimizer.trained_first_steps >= total_steps:
        expected = f"less than the {total_steps} training steps"
        raise checks.error("optimizer.trained_first_steps", expected, optimizer.trained_first_steps)
    if optimizer.warmup_steps >= total_steps:
        expected = f"less than the {total_steps} training steps, such as {_short_warmup(total_steps)}"
        raise checks.error("optimizer.warmup_steps", expected, optimizer.warmup_steps)


def _short_warmup(total_steps: int) -> int:
    """What an error suggests."""
    return total_steps // 10


def check_run(config: Config) -> None:
    """Raises ValueError for settings of a run that do not go together; its model has passed :func:`check_model`."""
    _check_train(config)
    _check_mesh(config)
    _check_classes(config)
    _check_optimizer(config.optimizer)
    _check_evaluation(config.evaluation)
    domains.check_run(config)


def _check_train(config: Config) -> None:
    train = config.train
    if (train.steps is None) == (train.epochs is None):
        expected = "exactly one of train.steps and train.epochs, the other None"
        if train.steps is not None:  # a short try of a config that has epochs, and a warm-up for them
            needed = ["train.epochs=None"]
            if config.optimizer.warmup_steps >= train.steps:
                needed.append(f"optimizer.warmup_steps={_short_warmup(train.steps)}")
            expected += f" (for {train.steps} steps: {' and '.join(needed)})"
        raise checks.error("train", expected, (train.steps, train.epochs))
    if train.batch_size % train.gradient_accumulation_steps:
        raise checks.error(
            "train.batch_size",
            f"a multiple of train.gradient_accumulation_steps = {train.gradient_accumulation_steps}",
            train.batch_size,
        )
    _check_parts(config)
    if train.steps is not None:
        check_duration(config, steps.Duration(train.steps))
    if train.upcycling_noise and not train.initial_checkpoint:
        raise checks.error("train.upcycling_noise", "0 without train.initial_checkpoint", train.upcycling_noise)
    part = train.batch_size // train.gradient_accumulation_steps
    for field, size in (("train.batch_size", part), ("evaluation.batch_size", config.evaluation.batch_size)):
        if size % config.model.moe.group_size_sequences:
            raise checks.error(
                field,
                f"a multiple of model.moe.group_size_sequences = {config.model.moe.group_size_sequences}"
                + (" in each accumulation step" if train.gradient_accumulation_steps > 1 else ""),
                size,
            )


def _check_parts(config: Config) -> None:
    """Whether the steps of the router do with a batch in parts."""
    router, parts = config.model.router, config.train.gradient_accumulation_steps
    for step in (steps.all_steps()[name] for name in router.step_names):
        if parts > 1 and step.needs_whole_batch(**options_of(router, step)):
            expected = f"1 with the losses of {step.name!r} over the whole batch (options over='batch')"
            raise checks.error("train.gradient_accumulation_steps", expected, parts)


def _check_mesh(config: Config) -> None:
    model, mesh = config.model, config.mesh
    if mesh.expert is not None:
        if model.moe.num_experts % mesh.expert:
            raise checks.error("mesh.expert", f"a divisor of the {model.moe.num_experts} experts", mesh.expert)
        if mesh.expert > 1 and not spreads_experts(model):
            expected = (
                f"1 with model.moe.dispatch = {model.moe.dispatch!r}, which needs all experts on each device"
                if model.moe_layers
                else "1 without MoE layers"
            )
            raise checks.error("mesh.expert", expected, mesh.expert)
    if model.hidden_size % mesh.fsdp:
        raise checks.error("mesh.fsdp", f"a divisor of model.hidden_size = {model.hidden_size}", mesh.fsdp)


def _check_classes(config: Config) -> None:
    names = config.data.class_names
    counts = collections.Counter(names)
    if twice := [name for name in names if counts[name] > 1]:
        raise checks.error("data.class_names", "each name once", twice[:5])
    if names and len(names) != config.model.num_classes:
        expected = f"one for each of the classes, model.num_classes = {config.model.num_classes}"
        raise checks.error("data.class_names", expected, len(names))


# Of names that came later than the fields; others were always free to leave them unread.
_UNREAD_BY = {"adafactor": ("epsilon", "momentum"), "lion": ("epsilon", "momentum")}


def _check_optimizer(optimizer: OptimizerConfig) -> None:
    chosen = f"with optimizer.name = {optimizer.name!r}"
    for field in _UNREAD_BY.get(optimizer.name, ()):
        value, default = getattr(optimizer, field), getattr(OptimizerConfig, field)
        if value != default:
            raise checks.error(f"optimizer.{field}", f"{default}, the default, {chosen}, which has none", value)
    if optimizer.name == "adafactor" and optimizer.beta1 == 0 and optimizer.first_moment_dtype != "float32":
        expected = f"'float32' {chosen} and optimizer.beta1 = 0: there is no first moment"
        raise checks.error("optimizer.first_moment_dtype", expected, optimizer.first_moment_dtype)
    if optimizer.name == "adam" and optimizer.weight_decay > 0:
        raise checks.error("optimizer.weight_decay", f"0 {chosen}", optimizer.weight_decay)
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
        *(("trained_first", pattern) for pattern in optimizer.trained_first),
        *(("frozen", pattern) for pattern in optimizer.frozen),
    )
    for field, pattern in patterns:
        try:
            with warnings.catch_warnings(action="ignore"):  # of what a later version of re may read in another way
                re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as problem:  # also repeated too often, or nested too deep
            raise checks.error(f"optimizer.{field}", f"a regular expression ({problem})", pattern) from None
    if bool(optimizer.trained_first) != bool(optimizer.trained_first_steps):
        given = (optimizer.trained_first, optimizer.trained_first_steps)
        raise checks.error("optimizer", "trained_first together with trained_first_steps, or neither", given)
    if optimizer.weight_decay_multipliers and optimizer.weight_decay == 0:
        raise checks.error(
            "optimizer.weight_decay_multipliers",
            "none with optimizer.weight_decay = 0",
            optimizer.weight_decay_multipliers,
        )


def _check_evaluation(evaluation: EvaluationConfig) -> None:
    if len(set(evaluation.suites)) != len(evaluation.suites):  # what evaluates knows the names
        raise checks.error("evaluation.suites", "each suite once", evaluation.suites)
