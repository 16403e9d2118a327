"""``benchmark inform``: a model of images or text with each inform step over the same model without it."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import ml_collections

from vmoe_inform import checks, command_line
from vmoe_inform import config as config_lib
from vmoe_inform.benchmark import shared
from vmoe_inform.config import ModelConfig, presets

if TYPE_CHECKING:
    from vmoe_inform.performance.inform import Size

_SIZE = command_line.define("size", checks.Name, "S", "Size of the model.")
_STEPS = command_line.define("steps", shared.Names, None, "Inform steps; by default all.")
_TOKENS = command_line.define(
    "tokens",
    shared.Sizes,
    None,
    "Tokens of an image, class token included: 50, 197, 577, 1025 or 4097, by default each; or of a text.",
)
_BLOCK_SIZE = command_line.define(
    "block_size", checks.Width, 512, "Tokens of a block, where a sequence has more than 577."
)
_SECONDS = command_line.define(
    "timed_up_to_seconds", checks.NonNegativeFloat, 2.0, "Sizes at which a forward pass takes longer are not timed."
)

# Tokens of an image with a class token -> image and patch in pixels, images of a batch: about as many tokens for each.
_SIZES = {50: (224, 32, 16), 197: (224, 16, 4), 577: (384, 16, 2), 1025: (512, 16, 1), 4097: (1024, 16, 1)}
_LONGEST_IN_ONE_PIECE = 577
_IMAGES, _TEXTS = 32, 4  # of a batch, of a config


def measure() -> shared.Measured:
    """Each inform step at each number of tokens, of images or of the text of --config."""
    config = shared.CONFIG.value
    if config is None:
        return _measured(*_images())
    of_images = isinstance(config_lib.parse(config).model, config_lib.VisionModelConfig)
    for name in ("size", "dtype", "tokens", "block_size") if of_images else ("size", "dtype"):
        if shared.given(name):
            raise checks.error("benchmark inform", f"no --{name} with --config, which says it", f"--{name}")
    return _measured(*(_recipe(config) if of_images else _text(config)))


def _measured(model: ModelConfig, sizes: list["Size"], options: Mapping[str, Mapping[str, Any]]) -> shared.Measured:
    from vmoe_inform.performance import inform
    from vmoe_inform.routing.steps import INFORM_STEPS

    folder = shared.schedules_folder()
    steps = shared.names("--steps", _STEPS.value, list(INFORM_STEPS))
    rows = inform.measure(
        model,
        steps=steps,
        sizes=sizes,
        repeats=shared.repeats(5),
        options={name: options[name] for name in steps if name in options},
        timed_up_to_seconds=_SECONDS.value,
        topology=shared.chip(),
        schedules_in=folder,
    )
    return {"model": dataclasses.asdict(model)}, rows


def _images() -> tuple[ModelConfig, list["Size"], Mapping[str, Mapping[str, Any]]]:
    from vmoe_inform.performance.inform import Size

    config = presets.start(None, router="vmoe", variant=f"{_SIZE.value}/16", experts="8", where="last2")
    config.model.dtype = shared.DTYPE.value
    config.model.router.options.top_experts.renormalize = True  # as all presets of informed routers have it
    # As many slots as in training. Evaluation by a recipe, with more of them, is what --config is for.
    config.model.moe.capacity_factor_evaluation = config.model.moe.capacity_factor
    sizes = []
    for tokens in shared.some("--tokens", tuple(_SIZES) if _TOKENS.value is None else _TOKENS.value):
        if tokens not in _SIZES:
            raise checks.error("--tokens", f"some of {', '.join(map(str, _SIZES))}", tokens)
        pixels, patch, images = _SIZES[tokens]
        sizes.append(Size({"image_size_px": pixels, "patch_size_px": patch}, _sequences(images), _block_size(tokens)))
    return config_lib.parse_model(config.model), sizes, {}


def _recipe(config: ml_collections.ConfigDict) -> tuple[ModelConfig, list["Size"], Mapping[str, Mapping[str, Any]]]:
    """Evaluation as the recipe of --config does it; with inform steps, too, its weights are renormalised as there."""
    from vmoe_inform.performance.inform import Size

    model = config_lib.parse(config).model
    size = Size({}, _sequences(_IMAGES), model.attention_block_size)
    return model, [size], config.model.router.options.to_dict()


def _text(config: ml_collections.ConfigDict) -> tuple[ModelConfig, list["Size"], Mapping[str, Mapping[str, Any]]]:
    from vmoe_inform.performance.inform import Size

    model = config_lib.as_language(config_lib.parse(config)).model
    lengths = shared.some("--tokens", (model.num_tokens,) if _TOKENS.value is None else _TOKENS.value)
    sizes = [Size({"num_tokens": tokens}, _sequences(_TEXTS), _block_size(tokens)) for tokens in lengths]
    return model, sizes, config.model.router.options.to_dict()


def _sequences(default: int) -> int:
    return shared.IMAGES.value if shared.given("images") else default


def _block_size(tokens: int) -> int | None:
    return _BLOCK_SIZE.value if tokens > _LONGEST_IN_ONE_PIECE else None


BENCHMARK = shared.Benchmark(
    measure, ("topology", "config", "dtype", "size", "steps", "tokens", "images", "block_size", "timed_up_to_seconds")
)
