"""Checks across the settings that only one kind of input has: of images, of text."""

from collections.abc import Callable, Mapping
from typing import Any

from vmoe_inform import checks
from vmoe_inform.config.settings import (
    Config,
    ImageConfig,
    LanguageConfig,
    LanguageModelConfig,
    ModelConfig,
    TrainConfig,
    VisionModelConfig,
)


def as_images(config: Config) -> ImageConfig:
    """The config, for code that knows images only.

    Raises:
      ValueError: it is of a run on other inputs.
    """
    if not isinstance(config, ImageConfig):
        raise checks.error("model.inputs", "'images'", config.model.inputs)
    return config


def as_language(config: Config) -> LanguageConfig:
    """The config, for code that knows text only.

    Raises:
      ValueError: it is of a run on other inputs.
    """
    if not isinstance(config, LanguageConfig):
        raise checks.error("model.inputs", "'tokens'", config.model.inputs)
    return config


def check_model(model: ModelConfig) -> None:
    """Raises ValueError for settings of a model that do not go together, among those of its inputs."""
    _MODEL_CHECKS[type(model)](model)


def check_run(config: Config) -> None:
    """Raises ValueError for settings of a run that do not go together, among those of its inputs."""
    _RUN_CHECKS[type(config)](config)


def _check_vision_model(model: VisionModelConfig) -> None:
    if model.image_size_px % model.patch_size_px:
        raise checks.error(
            "model.image_size_px", f"a multiple of model.patch_size_px = {model.patch_size_px}", model.image_size_px
        )


def _check_images(config: ImageConfig) -> None:
    for field in ("pixel_mean", "pixel_std"):
        value = getattr(config.data, field)
        if isinstance(value, tuple) and len(value) != 3:
            raise checks.error(f"data.{field}", "one number, or three for red, green and blue", value)
    width = config.model.representation_size
    if width is not None and width % config.mesh.fsdp:
        raise checks.error("mesh.fsdp", f"a divisor of model.representation_size = {width}", config.mesh.fsdp)
    attack, shots = config.evaluation.attack, config.evaluation.shots
    if not shots or len(set(shots)) != len(shots):
        raise checks.error("evaluation.shots", "distinct numbers, at least one", shots)
    if attack.num_steps * attack.step_size < attack.epsilon:
        raise checks.error(
            "evaluation.attack.step_size",
            f"at least epsilon / num_steps = {attack.epsilon:g} / {attack.num_steps}, lest PGD cannot use its epsilon",
            attack.step_size,
        )


def _check_language_model(model: LanguageModelConfig) -> None:
    style = f"model.attention_style = {model.attention_style!r}"
    if model.attention_style == "previous" and model.attention_span is None:
        raise checks.error("model.attention_span", f"the number of tokens to attend to, with {style}", None)
    if model.attention_style == "causal" and model.attention_span is not None:
        raise checks.error("model.attention_span", f"None with {style}", model.attention_span)
    if not model.causal:
        if model.num_classes is None:
            raise checks.error("model.causal", "true without model.num_classes: a language model", False)
        if model.attention_style == "previous":
            raise checks.error("model.causal", f"true with {style}", False)
        if model.allow_future:
            raise checks.error("model.allow_future", "false with model.causal = False, which hides nothing", True)
    if model.attention_style == "previous" and model.attention == "fused":
        raise checks.error("model.attention", f"'auto' or 'xla' with {style}", model.attention)
    if model.tie_embeddings and model.num_classes is not None:
        raise checks.error("model.tie_embeddings", "false with model.num_classes: a classifier", True)


_OF_IMAGES = ("mixup_alpha", "cutmix_alpha")


def _check_text(config: LanguageConfig) -> None:
    default = TrainConfig()
    for field in _OF_IMAGES:
        value = getattr(config.train, field)
        if value != getattr(default, field):
            raise checks.error(f"train.{field}", f"{getattr(default, field)} with model.inputs = 'tokens'", value)
    shares = config.evaluation.swap_shares
    if not shares or len(set(shares)) != len(shares) or 0 in shares:
        raise checks.error("evaluation.swap_shares", "distinct shares above 0, at least one", shares)


_MODEL_CHECKS: Mapping[type, Callable[[Any], None]] = {
    VisionModelConfig: _check_vision_model,
    LanguageModelConfig: _check_language_model,
}
_RUN_CHECKS: Mapping[type, Callable[[Any], None]] = {ImageConfig: _check_images, LanguageConfig: _check_text}
