r"""Compiles a step for a TPU slice on a machine that has none, and says whether it fits and what it costs.

    python -m vmoe_inform.compile_check --config=configs/imagenet.py:variant=S/16,router=attention_vmoe \
        --topology=v5e:4x4 [--num_slices=2] [--step=train|eval] [--per_device_batch=64] [--json=FILE]

Needs the compiler for TPUs: pip install -e '.[tpu]'. No data set is read. The train step is the one that training runs,
the eval step the one that evaluation runs. Figures are of one device and one step; they are the same each time.
Exit codes: 0 it fits, 2 bad input, 4 it does not fit the memory.
"""

import importlib.metadata
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

from absl import flags

from vmoe_inform import checks, command_line
from vmoe_inform import config as config_lib
from vmoe_inform.config import identity, settings

if TYPE_CHECKING:
    from vmoe_inform.performance.check import Check

_CONFIG = command_line.define_config()
_TOPOLOGY = command_line.define("topology", checks.Name, None, "TPU and figure of its chips, e.g. v5e:4x4, v4:2x2x2.")
_NUM_SLICES = command_line.define(
    "num_slices",
    Annotated[int, checks.Bound(at_least=1, at_most=256)],  # more than any job; each takes memory here
    1,
    "Slices of this topology, connected by the data centre's network.",
)
_STEP = flags.DEFINE_enum("step", "train", ["train", "eval"], "Which step to compile.")
_PER_DEVICE_BATCH = command_line.define(
    "per_device_batch", settings.Batch, None, "Images on each device instead of the config's."
)
_JSON = command_line.define_json("File for the figures.")


def main(_: list[str]) -> int:
    """Returns the exit code."""
    if _CONFIG.value is None:
        raise checks.error("--config", "a config file, e.g. --config=configs/imagenet.py", None)
    if _TOPOLOGY.value is None:
        raise checks.error("--topology", "a TPU and the figure of its chips, e.g. v5e:4x4", None)
    file = _JSON()
    from vmoe_inform.performance import check, topology

    devices = topology.devices_of(_TOPOLOGY.value, _NUM_SLICES.value)
    given = _CONFIG.value
    if _PER_DEVICE_BATCH.value is not None:
        given.train.batch_size = given.evaluation.batch_size = len(devices) * _PER_DEVICE_BATCH.value
    config = config_lib.parse(given)
    result = check.compile_step(config, devices, _STEP.value)
    print("\n".join(_lines(result)))
    if file is not None:
        about = {
            "config": _CONFIG.file,
            "config_hash": identity.config_hash(config, tuple(identity.Effect)),
            "topology": _TOPOLOGY.value,
            "num_slices": _NUM_SLICES.value,
            "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "libtpu")},
        }
        file.write_text(json.dumps(about | result.to_json(), indent=2) + "\n")
    if result.problem is None:
        return 0
    print(f"error: it does not fit the memory: {result.problem}", file=sys.stderr)
    return command_line.DOES_NOT_FIT


def _lines(result: "Check") -> list[str]:
    """The figures for people."""
    mesh = " x ".join(f"{name} {size}" for name, size in result.mesh.items())
    costs = result.costs
    sizes: dict[str, int | None] = {"parameters": result.parameter_bytes, "optimizer": result.optimizer_bytes}
    if costs is not None:
        sizes |= {
            "state and batch": costs.argument_bytes,
            "results": costs.output_bytes,
            "activations": costs.temp_bytes,
            "program": costs.code_bytes,
            "at most at a time": costs.peak_bytes,
        }
    sizes["the device has"] = result.hbm_bytes
    lines = [
        f"{result.step} step of {result.images:,} images, {result.num_devices} devices ({result.device_kind}), {mesh}",
        f"compiled in {result.compile_seconds:,.0f} s, after {result.trace_seconds:,.0f} s of tracing",
        *(f"{name:<18}{size / 2**20:>14,.1f} MiB" for name, size in sizes.items() if size is not None),
    ]
    if costs is None:
        return lines
    amounts: dict[str, Any] = {"flops": costs.flops, "bytes accessed": costs.bytes_accessed}
    if costs.estimated_cycles is not None:
        amounts["estimated cycles"] = costs.estimated_cycles
    lines += [f"{name:<18}{amount / 1e6:>14,.1f} million" for name, amount in amounts.items()]
    tables = {"collectives": costs.collectives, "work that no estimate of cycles covers": costs.without_cycles}
    for title, table in tables.items():
        lines.append(f"{title}:{'' if table else ' none'}")
        lines += [f"  {kind:<16}{size / 2**20:>14,.1f} MiB {often:>6,} times" for kind, (often, size) in table.items()]
    if costs.unknown_loops:
        lines.append(f"loops of unknown length, whose bodies count once: {costs.unknown_loops}")
    return lines


if __name__ == "__main__":
    command_line.run(main)
