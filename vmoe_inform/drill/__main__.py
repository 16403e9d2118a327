"""Kills training at random moments, and checks that it still ends with the same bits.

    python -m vmoe_inform.drill --kills=50 --seed=0 [--router=NAME] [--workdir=DIR] [--json=FILE]
    python -m vmoe_inform.drill --config=wordnet --config.evaluation.every_steps=40 ...

Trains a small model on the digits, or what a config says, without a kill. Then it starts the same training in a new
folder, sends its process SIGKILL or SIGTERM, and restarts it until all steps are done. It repeats this until the number
of kills is reached. A kill comes at a random moment of the process, of a save, or of an evaluation. Every array of the
last checkpoint and the position in the data are compared with those of the uninterrupted run, bit for bit.

Prints a table; the exit code is 0 only if all runs are identical. DIR keeps compiled programs, so that processes start
quickly. It has to be new or empty.

NAME is a router as config files take it, such as ``stablemoe@distilled.switch_step=100``. A run has 400 steps. The
model has two blocks, and the second has experts. A router that needs both is ``alternate_vmoe,where=0+1``. A config
names its own router, and says after how many steps there are a checkpoint and an evaluation.
"""

import dataclasses
import json
import tempfile

from vmoe_inform import checks, command_line, storage
from vmoe_inform import config as config_lib
from vmoe_inform.config import Config, presets
from vmoe_inform.drill.run import drill, table
from vmoe_inform.drill.training import STEPS_ON_DIGITS, Training, cadence, of_config, of_digits

_KILLS = command_line.define("kills", checks.PositiveInt, 50, "How often training is killed.")
_SEED = command_line.define("seed", checks.Seed, 0, "Of the moments and the signals.")
_ROUTER = command_line.define("router", checks.Name | None, None, "Of the model on digits; by default symphony_vmoe.")
_CONFIG = command_line.define_config()
_WORKDIR = command_line.define_run_path("workdir", "Folder for the runs; by default one that is deleted at the end.")
_JSON = command_line.define_output("json", "File for the result.")


def main(_: list[str]) -> int:
    """Returns the exit code."""
    file = _JSON()
    if _ROUTER.value == "help":  # training would end well at once, without a checkpoint
        print(presets.describe_routers())
        return 0
    config = _config()
    with tempfile.TemporaryDirectory() as temporary:
        workdir = storage.absolute(storage.path("--workdir", _WORKDIR.value or temporary))
        if storage.matching(workdir, "*"):
            raise checks.error("--workdir", "a new or empty folder", str(workdir))
        storage.check_writable(workdir, "--workdir")
        every_steps = STEPS_ON_DIGITS if config is None else cadence(config)
        with storage.local_folder(workdir) as local:
            arguments = of_digits(_ROUTER.value or "symphony_vmoe") if config is None else of_config(config, local)
            training = Training(arguments, local / "compiled", local)
            result = drill(training, workdir, kills=_KILLS.value, seed=_SEED.value, every_steps=every_steps)
    print(table(result))
    if file is not None:
        storage.write_text(file, json.dumps(dataclasses.asdict(result), indent=1) + "\n")
    return 1 if any(result.runs) else 0


def _config() -> Config | None:
    """The config that was asked for, if one was."""
    if _CONFIG.file is None:
        return None
    if _ROUTER.value is not None:
        raise checks.error("--router", "a router in --config, or no --config", _ROUTER.value)
    config = config_lib.parse(_CONFIG.required)
    cadence(config)  # before anything is trained
    return config


if __name__ == "__main__":
    command_line.run(main)
