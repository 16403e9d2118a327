"""Measures what the package costs, as ratios to references of the same run.

    python -m vmoe_inform.benchmark layer [--experts=8,32,128] [--groups=1,8,32] [--dispatch=NAMES]
    python -m vmoe_inform.benchmark step [--config=FILE:ARGUMENT] [--dispatch=NAMES]
    python -m vmoe_inform.benchmark inform [--steps=NAMES] [--tokens=50,197,577,1025,4097]
    python -m vmoe_inform.benchmark input [--config=FILE:ARGUMENT]
    python -m vmoe_inform.benchmark input --against=tf.data [--image_size_px=224] [--photographs=DIR]

layer: a MoE layer over a dense MLP that does the same activated work. step: images a second of the train step, and its
useful operations a second over those of a plain matrix product. inform: a model with each inform step over the same
model without it. input: images a second of the input pipeline over those that the step consumes; or training images
made of JPEGs in a second of a core, over those that tf.data makes (extra ``prepare``).

What is compared takes turns in one process; the tables show medians with their quartiles, --json=FILE writes all of it.
With --topology=v5e:2x2, layer, step and inform compile for one chip of that TPU, which need not be there (extra
``tpu``): estimated cycles are compared instead of times.
"""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from absl import flags

from vmoe_inform import checks, command_line
from vmoe_inform import config as config_lib
from vmoe_inform.config import DataConfig, presets, settings

if TYPE_CHECKING:
    import jax

Benchmark = tuple[dict[str, Any], Iterable[Any]]  # settings for the header of the JSON, and the rows as they come

_Sizes: TypeAlias = tuple[checks.Width, ...]
_Names: TypeAlias = tuple[checks.Name, ...]

_CONFIG = command_line.define_config()
_JSON = command_line.define_json("File for the rows, with machine and settings.")
_REPEATS = command_line.define(
    "repeats", checks.PositiveInt, None, "Rounds that count; by default as many as take a few minutes."
)
_TOPOLOGY = command_line.define(
    "topology", checks.Name, None, "TPU topology to compile for, e.g. v5e:2x2; nothing is timed then."
)
_DTYPE = command_line.define("dtype", checks.Name, "float32", "Type of activations: float32 or bfloat16.")
_VARIANT = command_line.define("variant", checks.Name, "S/16", "SIZE/PATCH at 224 px that the layer is from.")
_EXPERTS = command_line.define("experts", _Sizes, (8, 32, 128), "Numbers of experts.")
_GROUPS = command_line.define("groups", _Sizes, (1, 8, 32), "Images whose tokens share the experts' slots.")
_IMAGES = command_line.define(
    "images", settings.Batch, 32, "Images of a batch; inform: by default fewer, the larger they are."
)
_DISPATCH = command_line.define("dispatch", _Names, None, "Dispatchers; by default that of the config, and einsum.")
_AGAINST = command_line.define(
    "against", checks.Name, "einsum", "Dispatcher that the others are compared with; input: tf.data."
)
_MATMUL_SIZE = command_line.define("matmul_size", checks.Width, 4096, "Rows and columns of the plain matrix product.")
_TIMED_UP_TO = command_line.define(
    "timed_up_to", checks.NonNegativeFloat, 2.5, "Dispatchers of more operations, in dense MLPs, are not timed."
)
_SIZE = command_line.define("size", checks.Name, "S", "Size of the model.")
_STEPS = command_line.define("steps", _Names, None, "Inform steps; by default all.")
_TOKENS = command_line.define("tokens", _Sizes, (50, 197, 577, 1025, 4097), "Tokens of an image, class token included.")
_BLOCK_SIZE = command_line.define(
    "block_size", checks.Width, 512, "Tokens of a block, where an image has more than 577."
)
_SECONDS = command_line.define(
    "timed_up_to_seconds", checks.NonNegativeFloat, 2.0, "Sizes at which a forward pass takes longer are not timed."
)

_IMAGE_SIZE = command_line.define("image_size_px", settings.Pixels, 224, "Side of the training images.")
_PHOTOGRAPHS = command_line.define_path("photographs", "Folder of JPEG files; by default parts of sample photographs.")

# Tokens of an image with a class token -> image and patch in pixels, images of a batch: about as many tokens for each.
_SIZES = {50: (224, 32, 16), 197: (224, 16, 4), 577: (384, 16, 2), 1025: (512, 16, 1), 4097: (1024, 16, 1)}
_LONGEST_IN_ONE_PIECE = 577


def _layer() -> Benchmark:
    from vmoe_inform.performance import layer

    config = presets.start(None, router="vmoe", variant=_VARIANT.value, experts="8", where="last2")
    config.model.dtype = _DTYPE.value
    model = config_lib.parse_model(config.model)
    rows = layer.measure(
        model,
        experts=_some("--experts", _EXPERTS.value),
        images_per_group=_some("--groups", _GROUPS.value),
        dispatchers=_names("--dispatch", _DISPATCH.value, [model.moe.dispatch, "einsum"]),
        images=_IMAGES.value,
        repeats=_repeats(3),
        timed_up_to=_TIMED_UP_TO.value,
        topology=_chip(),
    )
    settings = {
        "images": _IMAGES.value,
        "tokens": model.num_tokens,
        "hidden_size": model.hidden_size,
        "mlp_size": model.mlp_size,
        "num_selected_experts": model.moe.num_selected_experts,
        "capacity_factor": model.moe.capacity_factor,
        "dtype": model.dtype,
    }
    return settings, rows


def _step() -> Benchmark:
    from vmoe_inform.performance import step

    config = _config()
    chosen = _names("--dispatch", _DISPATCH.value, [config.model.moe.dispatch])
    rows = step.measure(
        config,
        dispatchers=list(dict.fromkeys([*chosen, _AGAINST.value])),
        against=_AGAINST.value,
        repeats=_repeats(5),
        matmul_size=_MATMUL_SIZE.value,
        topology=_chip(),
    )
    return {"matmul_size": _MATMUL_SIZE.value, "config": config_lib.to_json(config)}, rows


def _inform() -> Benchmark:
    from vmoe_inform.performance import inform
    from vmoe_inform.routing.steps import INFORM_STEPS

    config = presets.start(None, router="vmoe", variant=f"{_SIZE.value}/16", experts="8", where="last2")
    config.model.dtype = _DTYPE.value
    config.model.router.options.top_experts.renormalize = True  # as all presets of informed routers have it
    # Evaluation gives experts more slots, which would make the model slower and the steps look cheaper.
    config.model.moe.capacity_factor_evaluation = config.model.moe.capacity_factor
    model = config_lib.parse_model(config.model)
    sizes = []
    for tokens in _some("--tokens", _TOKENS.value):
        if tokens not in _SIZES:
            raise checks.error("--tokens", f"some of {', '.join(map(str, _SIZES))}", tokens)
        block_size = _BLOCK_SIZE.value if tokens > _LONGEST_IN_ONE_PIECE else None
        size = inform.Size(*_SIZES[tokens], block_size)
        if flags.FLAGS["images"].present:
            size = dataclasses.replace(size, images=_IMAGES.value)
        sizes.append(size)
    rows = inform.measure(
        model,
        steps=_names("--steps", _STEPS.value, list(INFORM_STEPS)),
        sizes=sizes,
        repeats=_repeats(5),
        timed_up_to_seconds=_SECONDS.value,
        topology=_chip(),
    )
    return {"model": config_lib.to_json(config_lib.Config(model=model))["model"]}, rows


def _input() -> Benchmark:
    against = bool(flags.FLAGS["against"].present)
    for name in ("config",) if against else ("photographs", "image_size_px"):  # what the other of the two looks at
        if flags.FLAGS[name].present:
            expected = f"no --{name} {'with' if against else 'without'} --against=tf.data"
            raise checks.error("benchmark input", expected, f"--{name}")
    if against:
        return _input_against()
    from vmoe_inform.performance import input as input_lib

    config = _config()
    return {"config": config_lib.to_json(config)}, input_lib.measure(config, repeats=_repeats(5))


def _input_against() -> Benchmark:
    from vmoe_inform.performance import decoding

    if _AGAINST.value != "tf.data":
        raise checks.error("--against", "tf.data", _AGAINST.value)
    size = _IMAGE_SIZE.value
    min_area = DataConfig().crop_min_area
    files = decoding.photographs(256) if _PHOTOGRAPHS.value is None else decoding.read_jpegs(_PHOTOGRAPHS.value)
    rows = decoding.measure(files, image_size_px=size, min_area=min_area, repeats=_repeats(5))
    return {"photographs": len(files), "crop_min_area": min_area}, rows


# What each measures, and the flags that it takes besides --json and --repeats.
BENCHMARKS: dict[str, tuple[Callable[[], Benchmark], Sequence[str]]] = {
    "layer": (
        _layer,
        ("topology", "dtype", "variant", "experts", "groups", "images", "dispatch", "timed_up_to"),
    ),
    "step": (_step, ("topology", "config", "dispatch", "against", "matmul_size")),
    "inform": (
        _inform,
        ("topology", "dtype", "size", "steps", "tokens", "images", "block_size", "timed_up_to_seconds"),
    ),
    "input": (_input, ("config", "against", "image_size_px", "photographs")),
}


def _config() -> config_lib.Config:
    """Of --config; without it S/32 with 8 experts in two blocks, 32 images of the digits that come with the package."""
    if _CONFIG.value is not None:
        return config_lib.parse(_CONFIG.value)
    config = presets.start(None, router="vmoe", variant="S/32", experts="8", where="last2")
    config.model.moe.group_size_sequences = 32
    config.train.batch_size = 32
    config.train.steps = 10_000
    return config_lib.parse(config)


def _repeats(default: int) -> int:
    return default if _REPEATS.value is None else _REPEATS.value


def _some(flag: str, sizes: Sequence[int]) -> list[int]:
    if not sizes:
        raise checks.error(flag, "a comma list of integers", "nothing")
    return list(sizes)


def _names(flag: str, words: Sequence[str] | None, default: Sequence[str]) -> list[str]:
    if words is not None and not words:
        raise checks.error(flag, "a comma list of names", "")
    return list(dict.fromkeys(default if words is None else words))


def _chip() -> "jax.Device | None":
    """One chip of --topology, to compile for."""
    if _TOPOLOGY.value is None:
        return None
    from vmoe_inform.performance import topology

    return topology.devices_of(_TOPOLOGY.value)[0]


def _check_flags(subcommand: str) -> None:
    """Raises ValueError for a flag that the subcommand does not look at."""
    taken = BENCHMARKS[subcommand][1]
    for _, names in BENCHMARKS.values():
        for name in names:
            if name not in taken and flags.FLAGS[name].present:
                others = ", ".join(f"--{other}" for other in ("json", "repeats", *taken))
                raise checks.error(f"benchmark {subcommand}", f"flags among {others}", f"--{name}")


def _header(subcommand: str, settings: dict[str, Any]) -> dict[str, Any]:
    """What the rows were measured on, and with which settings."""
    import jax

    from vmoe_inform import __version__

    chip = _chip()
    return {
        "benchmark": subcommand,
        "vmoe_inform": __version__,
        "jax": jax.__version__,
        "device_kind": jax.devices()[0].device_kind if chip is None else chip.device_kind,
        "topology": _TOPOLOGY.value,
        "cpu_count": os.cpu_count(),
        **settings,
    }


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    from vmoe_inform.performance import tables

    subcommand = arguments[1]
    _check_flags(subcommand)
    file = _JSON()
    start = time.perf_counter()
    settings, measured = BENCHMARKS[subcommand][0]()
    rows = []
    for row in measured:
        rows.append(row)
        print(f"\r{len(rows)} rows after {time.perf_counter() - start:.0f} s", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(tables.render(rows))
    if file is not None:
        document = {"header": _header(subcommand, settings), "rows": [tables.flatten(row) for row in rows]}
        file.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    command_line.run(main, subcommands=tuple(BENCHMARKS))
