r"""Compiles a step for a TPU slice on a machine that has none, and says whether it fits and what it costs.

    python -m vmoe_inform.compile_check --config=configs/imagenet.py:variant=S/16,router=attention_vmoe \
        --topology=v5e:4x4 [--num_slices=2] [--step=train|eval] [--per_device_batch=64] [--schedules] [--json=FILE]

Needs the compiler for TPUs: pip install -e '.[tpu]'. No data set is read. The train step is the one that training runs,
the eval step the one that evaluation runs. Figures are of one device and one step; they are the same each time.
Exit codes: 0 it fits, 2 bad input, 4 it does not fit the memory.
"""

import importlib.metadata
import json
import pathlib
import sys
import tempfile
from typing import Annotated

from absl import flags

from vmoe_inform import checks, command_line, storage
from vmoe_inform import config as config_lib
from vmoe_inform.config import files, identity, settings

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
    "per_device_batch", settings.Batch, None, "Images or rows of text on each device instead of the config's."
)
_SCHEDULES = flags.DEFINE_bool("schedules", False, "Also cycles by the compiler's final schedules.")
_JSON = command_line.define_output("json", "File for the figures.")


def main(_: list[str]) -> int:
    """Returns the exit code."""
    given = _CONFIG.required
    topology_name = command_line.required(_TOPOLOGY, "a TPU and the shape of its slice, e.g. v5e:4x4")
    file = _JSON()
    from vmoe_inform.performance import check, topology
    from vmoe_inform.performance.costs import schedules

    with tempfile.TemporaryDirectory() as folder:
        schedules_in = pathlib.Path(folder) if _SCHEDULES.value else None
        if schedules_in is not None:
            schedules.write_to(schedules_in)
        devices = topology.devices_of(topology_name, _NUM_SLICES.value)
        if _PER_DEVICE_BATCH.value is not None:
            given.train.batch_size = given.evaluation.batch_size = len(devices) * _PER_DEVICE_BATCH.value
        config = config_lib.parse(given)
        files.check_options_are_used(_CONFIG.fields, [config.model.router])
        result = check.compile_step(config, devices, _STEP.value, schedules_in=schedules_in)
    print("\n".join(check.lines(result)))
    if file is not None:
        about = {
            "config": _CONFIG.file,
            "config_hash": identity.config_hash(config, tuple(identity.Effect)),
            "topology": topology_name,
            "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "libtpu")},
        }
        storage.write_text(file, json.dumps(about | result.to_json(), indent=2) + "\n")
    if result.problem is None:
        return 0
    print(f"error: it does not fit the memory: {result.problem}", file=sys.stderr)
    return command_line.DOES_NOT_FIT


if __name__ == "__main__":
    command_line.run(main)
