"""Flags that several benchmarks take, and what a benchmark is to the command line."""

import atexit
import dataclasses
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from absl import flags

from vmoe_inform import checks, command_line
from vmoe_inform import config as config_lib
from vmoe_inform.config import presets, settings

if TYPE_CHECKING:
    import jax

Sizes: TypeAlias = tuple[checks.Width, ...]
Names: TypeAlias = tuple[checks.Name, ...]
Measured: TypeAlias = tuple[dict[str, Any], Iterable[Any]]  # settings for the header of the JSON; the rows as they come


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One subcommand.

    Attributes:
      measure: measures, as the flags say.
      flags: names of the flags that it takes besides ``--json`` and ``--repeats``.
    """

    measure: Callable[[], Measured]
    flags: Sequence[str]


CONFIG = command_line.define_config()
REPEATS = command_line.define(
    "repeats", checks.PositiveInt, None, "Rounds that count; by default as many as take a few minutes."
)
TOPOLOGY = command_line.define(
    "topology", checks.Name, None, "TPU topology to compile for, e.g. v5e:2x2; nothing is timed then."
)
DTYPE = command_line.define("dtype", checks.Name, "float32", "Type of activations: float32 or bfloat16.")
IMAGES = command_line.define(
    "images", settings.Batch, 32, "Images or texts of a batch; inform: by default fewer, the larger they are."
)
DISPATCH = command_line.define("dispatch", Names, None, "Dispatchers; by default that of the config, and einsum.")
AGAINST = command_line.define(
    "against",
    checks.Name,
    "einsum",
    "Dispatcher that the others are compared with, or dense: the same activated work without MoE; input: tf.data.",
)


def check_flags(subcommand: str, benchmarks: Mapping[str, Benchmark]) -> None:
    """Raises ValueError for a flag that the subcommand does not look at."""
    taken = benchmarks[subcommand].flags
    for benchmark in benchmarks.values():
        for name in benchmark.flags:
            if name not in taken and given(name):
                others = ", ".join(f"--{other}" for other in ("json", "repeats", *taken))
                raise checks.error(f"benchmark {subcommand}", f"flags among {others}", f"--{name}")


def header(subcommand: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Hardware and settings of the rows."""
    import jax

    from vmoe_inform import __version__

    device = chip()
    return {
        "benchmark": subcommand,
        "vmoe_inform": __version__,
        "jax": jax.__version__,
        "device_kind": jax.devices()[0].device_kind if device is None else device.device_kind,
        "topology": TOPOLOGY.value,
        "cpu_count": os.cpu_count(),
        **settings,
    }


def given(flag: str) -> bool:
    """Whether the command line has the flag."""
    return bool(flags.FLAGS[flag].present)


def config() -> config_lib.Config:
    """Of --config; without it S/32 with 8 experts in two blocks, 32 images of the digits that come with the package."""
    if CONFIG.value is not None:
        return config_lib.parse(CONFIG.value)
    default = presets.start(None, router="vmoe", variant="S/32", experts="8", where="last2")
    default.model.moe.group_size_sequences = 32
    default.train.batch_size = 32
    default.train.steps = 10_000
    return config_lib.parse(default)


def repeats(default: int) -> int:
    """Rounds that count."""
    return default if REPEATS.value is None else REPEATS.value


def some(flag: str, sizes: Sequence[int]) -> list[int]:
    """The sizes of a flag, at least one."""
    if not sizes:
        raise checks.error(flag, "a comma list of integers", "nothing")
    return list(sizes)


def names(flag: str, words: Sequence[str] | None, default: Sequence[str]) -> list[str]:
    """The names of a flag, each once, at least one."""
    if words is not None and not words:
        raise checks.error(flag, "a comma list of names", "")
    return list(dict.fromkeys(default if words is None else words))


def schedules_folder() -> pathlib.Path | None:
    """Where the compiler writes its final schedules; None without --topology. Called before :func:`chip`."""
    if TOPOLOGY.value is None:
        return None
    from vmoe_inform.performance.costs import schedules

    folder = pathlib.Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    schedules.write_to(folder)
    return folder


def chip() -> "jax.Device | None":
    """One chip of --topology, to compile for."""
    if TOPOLOGY.value is None:
        return None
    from vmoe_inform.performance import topology

    return topology.devices_of(TOPOLOGY.value)[0]
