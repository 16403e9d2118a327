"""A training process that can be started again and again."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence

from vmoe_inform import checks, storage
from vmoe_inform import config as config_lib
from vmoe_inform.config import Config

STEPS_ON_DIGITS = 40  # from one evaluation to the next
_SMALL = (
    "--config.model.num_layers=2",
    "--config.model.hidden_size=16",
    "--config.model.mlp_size=32",
    "--config.model.num_heads=2",
    "--config.train.steps=400",
    "--config.train.batch_size=16",
    "--config.train.ema_decay=0.9",
    "--config.train.log_every_steps=20",
    "--config.optimizer.warmup_steps=10",
    "--config.checkpoint.every_steps=20",
    f"--config.evaluation.every_steps={STEPS_ON_DIGITS}",
    "--config.evaluation.batch_size=64",
)
_ROOT = pathlib.Path(__file__).parents[2]  # whose vmoe_inform a process imports


class Training:
    """A command line of training, for any number of starts."""

    def __init__(self, arguments: Sequence[str], cache: pathlib.Path, logs: pathlib.Path):
        """Args:
        arguments: of ``vmoe_inform.train``, without ``--workdir``.
        cache: folder for compiled programs.
        logs: folder on this machine for what the processes print.
        """
        self._arguments, self._logs = arguments, logs
        self._environment = {
            **os.environ,
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }

    def log_of(self, workdir: storage.Path) -> pathlib.Path:
        """What the processes of a run print."""
        return self._logs / workdir.name / "output.log"

    def start(self, workdir: storage.Path) -> subprocess.Popen[bytes]:
        """Its output is added to its log."""
        log = self.log_of(workdir)
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "vmoe_inform.train", *self._arguments, f"--workdir={workdir}"]
        with log.open("ab") as output:
            return subprocess.Popen(command, cwd=_ROOT, env=self._environment, stdout=output, stderr=output)


def of_digits(router: str) -> list[str]:
    """Arguments of the training of a small model on the digits."""
    return [f"--config=digits:variant=Ti/16,experts=4,router={router}", *_SMALL]


def of_config(config: Config, folder: pathlib.Path) -> list[str]:
    """Arguments of the training that a config describes, which is written to ``folder``."""
    storage.write_json(folder / "config.json", config_lib.to_json(config))
    return [f"--config={folder / 'config.json'}"]


def cadence(config: Config) -> int:
    """Steps from one evaluation to the next; raises ValueError for a config that evaluates only at the end."""
    every_steps = config.evaluation.every_steps
    if every_steps is None:
        raise checks.error("evaluation.every_steps", "a number: training is killed in evaluations too", None)
    return every_steps
