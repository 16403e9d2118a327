r"""Compiles a step for a TPU slice on a machine that has none, and says whether it fits and what it costs.

    python -m vmoe_inform.compile_check --config=configs/imagenet.py:variant=S/16,router=attention_vmoe \
        --topology=v5e:4x4 [--step=train|eval] [--per_device_batch=64] [--json=FILE]

Needs the compiler for TPUs: pip install -e '.[tpu]'. No data set is read. The train step is the one that training runs,
the eval step the one that evaluation runs. Figures are of one device and one step; they are the same each time.
Exit codes: 0 it fits, 2 bad input, 4 it does not fit the memory.
"""

import dataclasses
import importlib.metadata
import json
import math
import pathlib
import sys
import time
from typing import Any

from absl import flags

from vmoe_inform import checks, command_line
from vmoe_inform import config as config_lib
from vmoe_inform.axes import Tree

_CONFIG = command_line.define_config()
_TOPOLOGY = flags.DEFINE_string("topology", None, "TPU and figure of its chips, e.g. v5e:4x4, v4:2x2x2.")
_STEP = flags.DEFINE_enum("step", "train", ["train", "eval"], "Which step to compile.")
_PER_DEVICE_BATCH = flags.DEFINE_integer("per_device_batch", None, "Images on each device instead of the config's.")
_JSON = flags.DEFINE_string("json", None, "File for the figures.")

NUM_STEPS = 100_000  # of a run whose config counts epochs; only numbers in the schedule depend on it


def main(_: list[str]) -> int:
    """Returns the exit code."""
    if _CONFIG.value is None:
        raise checks.error("--config", "a config file, e.g. --config=configs/imagenet.py", None)
    if _TOPOLOGY.value is None:
        raise checks.error("--topology", "a TPU and the figure of its chips, e.g. v5e:4x4", None)
    from vmoe_inform.performance import topology

    devices = topology.devices_of(_TOPOLOGY.value)
    figures = check(_config(len(devices)), devices, step=_STEP.value)
    figures = {"config": command_line.config_file()[0], "topology": _TOPOLOGY.value, **figures}
    print(render(figures))
    if _JSON.value is not None:
        pathlib.Path(_JSON.value).write_text(json.dumps(figures, indent=2) + "\n")
    if figures["fits"]:
        return 0
    print(f"error: {figures['problem']}", file=sys.stderr)
    return command_line.DOES_NOT_FIT


def _config(num_devices: int) -> config_lib.Config:
    given = _CONFIG.value
    if _PER_DEVICE_BATCH.value is not None:
        if _PER_DEVICE_BATCH.value < 1:
            raise checks.error("--per_device_batch", "at least 1 image", _PER_DEVICE_BATCH.value)
        given.train.batch_size = given.evaluation.batch_size = num_devices * _PER_DEVICE_BATCH.value
    return config_lib.parse(given)


def check(config: config_lib.Config, devices: Any, *, step: str) -> dict[str, Any]:
    """Compiles a step.

    Args:
      config: the run.
      devices: of a topology, see :func:`vmoe_inform.performance.topology.devices_of`.
      step: train or eval.

    Returns:
      The figures as JSON values; bytes, operations and cycles are of one device and one step. Where the step does not
      fit, ``fits`` is False, ``problem`` says why, and what only a compiled program can tell is None.

    Raises:
      ValueError: devices, mesh and batch do not go together.
    """
    import jax

    from vmoe_inform.evaluation.predict import Predictor
    from vmoe_inform.performance import costs, topology
    from vmoe_inform.training import program as program_lib

    chip = topology.chip_of(devices[0].device_kind)
    program = program_lib.build(config, config.train.steps or NUM_STEPS, devices)
    state = program.state_shapes
    figures = {
        "config_hash": config_lib.config_hash(config),
        "step": step,
        "num_devices": len(devices),
        "device_kind": devices[0].device_kind,
        "mesh": dict(program.mesh.shape),
        "images": config.train.batch_size if step == "train" else config.evaluation.batch_size,
        "hbm_bytes": None if chip is None else chip.hbm_bytes,
        "parameter_bytes": device_bytes(state.params),
        "optimizer_bytes": device_bytes(state.opt_state) if step == "train" else 0,
        "fits": True,
        "problem": None,
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "libtpu")},
    }
    with program.in_use():
        started = time.perf_counter()
        if step == "train":
            lowered = program.train_step.lower(state, program.batch_shapes)
        else:
            lowered = Predictor(program.model, config, program.mesh).lower(state.variables(averaged=True))
        figures["trace_seconds"] = round(time.perf_counter() - started, 1)
        started = time.perf_counter()
        compiled, problem = None, None
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            problem = str(error).splitlines()[0]
        figures["compile_seconds"] = round(time.perf_counter() - started, 1)
    names = [field.name for field in dataclasses.fields(costs.Costs)]
    found: dict[str, Any] = dict.fromkeys(names) if compiled is None else dataclasses.asdict(costs.of(compiled))
    if chip is not None and (found["peak_bytes"] or 0) > chip.hbm_bytes:
        problem = f"{found['peak_bytes']:,} bytes of the device's {chip.hbm_bytes:,}"
    if problem is not None:
        figures |= {"fits": False, "problem": f"does not fit the memory: {problem}"}
    return figures | found


def device_bytes(tree: Tree) -> int:
    """Bytes that arrays with shardings take on one device."""
    import jax

    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def render(figures: dict[str, Any]) -> str:
    """The figures for people."""
    mesh = " x ".join(f"{name} {size}" for name, size in figures["mesh"].items())
    lines = [
        f"{figures['step']} step of {figures['images']:,} images on {figures['topology']}: {figures['num_devices']} "
        f"devices ({figures['device_kind']}), mesh {mesh}",
        f"compiled in {figures['compile_seconds']:,.0f} s, after {figures['trace_seconds']:,.0f} s of tracing",
    ]
    for name in ("parameter", "optimizer", "argument", "output", "temp", "code", "peak", "hbm"):
        size = figures[f"{name}_bytes"]
        if size is not None:
            lines.append(f"{_WORDS.get(name, name):<22}{size / 2**20:>14,.1f} MiB")
    if figures["peak_bytes"] is None:
        return "\n".join(lines)
    lines.append(f"{'flops':<22}{figures['flops'] / 1e9:>14,.1f} G")
    lines.append(f"{'bytes accessed':<22}{figures['bytes_accessed'] / 2**20:>14,.1f} MiB")
    if figures["estimated_cycles"] is not None:
        lines.append(f"{'estimated cycles':<22}{figures['estimated_cycles'] / 1e6:>14,.2f} M")
    for title, name in (("collectives", "collectives"), ("work without an estimate of cycles", "without_cycles")):
        lines.append(f"{title}: {'' if figures[name] else 'none'}")
        for kind, (often, size) in figures[name].items():
            lines.append(f"  {kind:<20}{size / 2**20:>14,.1f} MiB {often:>6,} times")
    if figures["unknown_loops"]:
        lines.append(f"loops whose length is not known, counted once: {figures['unknown_loops']}")
    return "\n".join(lines)


_WORDS = {
    "parameter": "parameters",
    "argument": "state and batch",
    "temp": "activations",
    "code": "program",
    "peak": "needed together",
    "hbm": "memory of the device",
}


if __name__ == "__main__":
    command_line.run(main)
