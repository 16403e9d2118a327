"""Trains a model.

    python -m vmoe_inform.train --config=configs/digits.py:router=attention_vmoe --workdir=DIR

Writes DIR/config.json (resolved), DIR/metrics.jsonl, DIR/tensorboard and DIR/checkpoints. Rerun the command to resume
from the newest checkpoint, bit-identically. docs/reliability.md has all exit codes:

- 0: all steps done; 2: bad input; 3: the loss or the gradient is not finite;
- 69: a process of the run is missing; 74: files such as a checkpoint cannot be written;
- 75: stopped by SIGTERM or SIGINT after saving; 124: ended by the watchdog; 130: interrupted.

A run may have several processes (docs/launching.md). On the workers of a TPU slice and in the steps of a SLURM job they
find each other. Started by hand, each gets

    --coordinator_address=HOST:PORT --num_processes=N --process_id=I [--initialization_timeout_seconds=S]

with the address of process 0, and a workdir that all of them share.
"""

import pathlib

from absl import flags

from vmoe_inform import checks, command_line, text
from vmoe_inform import config as config_lib
from vmoe_inform.evaluation import suites
from vmoe_inform.sharding import processes

_CONFIG = command_line.define_config()
_JOIN_PROCESSES = command_line.define_processes()
_WORKDIR = command_line.define_path("workdir", "Folder of the run.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Build, compile, print parameters, flops and memory, and stop.")


def main(_: list[str]) -> int:
    """Returns the exit code."""
    if _CONFIG.value is None:
        raise checks.error("--config", "a config file, e.g. --config=configs/digits.py", None)
    config = config_lib.parse(_CONFIG.value)
    suites.check_names(config.evaluation.suites)
    # JAX starts its backends on first use: everything that can be wrong with the words above is known by now.
    if not _DRY_RUN.value and _WORKDIR.value is None:
        raise checks.error("--workdir", "a folder for the run", None)
    _JOIN_PROCESSES()
    if _DRY_RUN.value:
        return _dry_run(config)
    from vmoe_inform.training import loop

    assert _WORKDIR.value is not None  # as was checked above
    workdir = pathlib.Path(_WORKDIR.value)
    accuracy, when = loop.finished_accuracy(config, workdir), ", measured when they were done"
    if accuracy is None:
        when = ""
        result = loop.train(config, workdir)
        accuracy = result.clean_top1
        if accuracy is None:
            return command_line.STOPPED
    if processes.is_main():
        print(text.printable(f"{workdir}: all steps done, clean top-1 {accuracy:.2%}{when}"))
    return 0


def _dry_run(config: config_lib.Config) -> int:
    from vmoe_inform.data import sources
    from vmoe_inform.training import program

    records = sources.training(config.data).records
    steps = program.total_steps(config, len(records))
    costs = program.describe(program.build(config, steps))
    if not processes.is_main():
        return 0
    print(f"steps             {steps:>16,}")
    print(f"parameters        {int(costs['parameters']):>16,}")
    if config.optimizer.frozen:
        print(f"  of them frozen  {int(costs['frozen_parameters']):>16,}")
    print(f"flops of a step   {costs['flops']:>16,.0f}   on each device, as compiled")
    for name in ("argument_bytes", "temporary_bytes", "output_bytes"):
        words = name.removesuffix("_bytes") + " memory"
        print(f"{words:<18}{costs[name] / 2**20:>16,.1f}   MiB on each device")
    return 0


if __name__ == "__main__":
    command_line.run(main)
