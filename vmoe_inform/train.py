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

from absl import flags

from vmoe_inform import command_line, storage
from vmoe_inform import config as config_lib
from vmoe_inform.config import files
from vmoe_inform.evaluation import suites

_CONFIG = command_line.define_config()
_JOIN_PROCESSES = command_line.define_processes()
_WORKDIR = command_line.define_run_path("workdir", "Folder of the run.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Build, compile, print parameters, flops and memory, and stop.")


def main(_: list[str]) -> int:
    """Returns the exit code."""
    config = config_lib.parse(_CONFIG.required)
    files.check_options_are_used(_CONFIG.fields, [config.model.router])
    suites.check_names(config.evaluation.suites)
    # JAX starts its backends on first use: everything that can be wrong with the words above is known by now.
    given = None if _DRY_RUN.value else command_line.required(_WORKDIR, "a folder for the run")
    workdir = None if given is None else storage.path("--workdir", given)
    _JOIN_PROCESSES()
    from vmoe_inform import tasks
    from vmoe_inform.training import dry_run, loop

    if workdir is None:
        for line in dry_run.lines(config):
            command_line.say(line)
        return 0

    headline, when = loop.finished_headline(config, workdir), ", measured when they were done"
    if headline is None:
        when = ""
        result = loop.train(config, workdir)
        headline = result.headline
        if headline is None:
            return command_line.STOPPED
    words = tasks.from_config(config).headline_in_words(headline)
    command_line.say(f"{workdir}: all steps done, {words}{when}")
    return 0


if __name__ == "__main__":
    command_line.run(main, keeps_programs=True)
