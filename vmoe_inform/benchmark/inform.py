"""``benchmark inform``: a model with each inform step over the same model without it."""

import dataclasses

from vmoe_inform import checks, command_line
from vmoe_inform import config as config_lib
from vmoe_inform.benchmark import shared
from vmoe_inform.config import presets

_SIZE = command_line.define("size", checks.Name, "S", "Size of the model.")
_STEPS = command_line.define("steps", shared.Names, None, "Inform steps; by default all.")
_TOKENS = command_line.define(
    "tokens", shared.Sizes, (50, 197, 577, 1025, 4097), "Tokens of an image, class token included."
)
_BLOCK_SIZE = command_line.define(
    "block_size", checks.Width, 512, "Tokens of a block, where an image has more than 577."
)
_SECONDS = command_line.define(
    "timed_up_to_seconds", checks.NonNegativeFloat, 2.0, "Sizes at which a forward pass takes longer are not timed."
)

# Tokens of an image with a class token -> image and patch in pixels, images of a batch: about as many tokens for each.
_SIZES = {50: (224, 32, 16), 197: (224, 16, 4), 577: (384, 16, 2), 1025: (512, 16, 1), 4097: (1024, 16, 1)}
_LONGEST_IN_ONE_PIECE = 577


def measure() -> shared.Measured:
    """Each inform step at each number of tokens."""
    from vmoe_inform.performance import inform
    from vmoe_inform.routing.steps import INFORM_STEPS

    config = presets.start(None, router="vmoe", variant=f"{_SIZE.value}/16", experts="8", where="last2")
    config.model.dtype = shared.DTYPE.value
    config.model.router.options.top_experts.renormalize = True  # as all presets of informed routers have it
    # Evaluation gives experts more slots, which would make the model slower and the steps look cheaper.
    config.model.moe.capacity_factor_evaluation = config.model.moe.capacity_factor
    model = config_lib.as_images(config_lib.parse(config)).model
    sizes = []
    for tokens in shared.some("--tokens", _TOKENS.value):
        if tokens not in _SIZES:
            raise checks.error("--tokens", f"some of {', '.join(map(str, _SIZES))}", tokens)
        block_size = _BLOCK_SIZE.value if tokens > _LONGEST_IN_ONE_PIECE else None
        size = inform.Size(*_SIZES[tokens], block_size)
        if shared.given("images"):
            size = dataclasses.replace(size, images=shared.IMAGES.value)
        sizes.append(size)
    rows = inform.measure(
        model,
        steps=shared.names("--steps", _STEPS.value, list(INFORM_STEPS)),
        sizes=sizes,
        repeats=shared.repeats(5),
        timed_up_to_seconds=_SECONDS.value,
        topology=shared.chip(),
    )
    return {"model": config_lib.to_json(config_lib.ImageConfig(model=model))["model"]}, rows


BENCHMARK = shared.Benchmark(
    measure, ("topology", "dtype", "size", "steps", "tokens", "images", "block_size", "timed_up_to_seconds")
)
