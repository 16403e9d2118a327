"""A training process that can be started again and again."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence

_ROOT = pathlib.Path(__file__).parents[2]  # whose vmoe_inform a process imports


class Training:
    """A command line of training, for any number of starts."""

    def __init__(self, arguments: Sequence[str], cache: pathlib.Path):
        """Args:
        arguments: of ``vmoe_inform.train``, without ``--workdir``.
        cache: folder for compiled programs.
        """
        self._arguments = arguments
        self._environment = {
            **os.environ,
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }

    def start(self, workdir: pathlib.Path) -> subprocess.Popen[bytes]:
        """Its output is added to ``output.log`` in the workdir."""
        workdir.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "vmoe_inform.train", *self._arguments, f"--workdir={workdir}"]
        with (workdir / "output.log").open("ab") as output:
            return subprocess.Popen(command, cwd=_ROOT, env=self._environment, stdout=output, stderr=output)
