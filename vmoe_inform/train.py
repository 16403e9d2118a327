"""Trains a model.

    python -m vmoe_inform.train --config=configs/digits.py:router=attention_vmoe --workdir=DIR

Writes DIR/config.json (resolved), DIR/metrics.jsonl, DIR/tensorboard and DIR/checkpoints. Started again on the same
DIR it goes on from the newest checkpoint, data position included. Exit codes: 0 all steps done, 2 bad input, 3 the
loss is not finite, 75 stopped by SIGTERM or SIGINT after saving.
"""

import pathlib

from absl import flags

from vmoe_inform import checks, command_line
from vmoe_inform import config as config_lib

_CONFIG = command_line.define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Build, compile, print parameters, flops and memory, and stop.")


def main(_: list[str]) -> int:
    """Returns the exit code."""
    if _CONFIG.value is None:
        raise checks.error("--config", "a config file, e.g. --config=configs/digits.py", None)
    config = config_lib.parse(_CONFIG.value)
    # JAX starts its backends on first use: everything that can be wrong with the words above is known by now.
    if _DRY_RUN.value:
        return _dry_run(config)
    if _WORKDIR.value is None:
        raise checks.error("--workdir", "a folder for the run", None)
    from vmoe_inform.training import loop

    workdir = pathlib.Path(_WORKDIR.value)
    accuracy = loop.finished_accuracy(config, workdir)
    if accuracy is None:
        result = loop.train(config, workdir)
        accuracy = result.clean_top1
        if accuracy is None:
            return command_line.STOPPED
    print(f"{workdir}: all steps done, clean top-1 {accuracy:.2%}")
    return 0


def _dry_run(config: config_lib.Config) -> int:
    from vmoe_inform.data import sources
    from vmoe_inform.training import program

    records = sources.load(config.data, config.data.train_split).records
    steps = program.total_steps(config, len(records))
    costs = program.describe(program.build(config, steps))
    print(f"steps             {steps:>16,}")
    print(f"parameters        {int(costs['parameters']):>16,}")
    print(f"flops of a step   {costs['flops']:>16,.0f}   on each device, as compiled")
    for name in ("argument_bytes", "temporary_bytes", "output_bytes"):
        words = name.removesuffix("_bytes") + " memory"
        print(f"{words:<18}{costs[name] / 2**20:>16,.1f}   MiB on each device")
    return 0


if __name__ == "__main__":
    command_line.run(main)
