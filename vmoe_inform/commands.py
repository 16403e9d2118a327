"""The console scripts that pyproject.toml names: ``vmoe-train`` is ``python -m vmoe_inform.train``, and so on."""

import os
import runpy
import sys
from collections.abc import Callable


def _command(module: str) -> Callable[[], None]:
    """Runs a module as ``python -m`` does: modules of the current folder can be imported, also in spawned processes."""

    def run() -> None:
        if not sys.flags.safe_path:
            sys.path[0] = os.getcwd()
        runpy.run_module(f"vmoe_inform.{module}", run_name="__main__", alter_sys=True)

    return run


train = _command("train")
evaluate = _command("evaluate")
analyze = _command("analyze")
study = _command("study")
generate = _command("generate")
predict = _command("predict")
export = _command("export")
benchmark = _command("benchmark")
accelerator_check = _command("accelerator_check")
compile_check = _command("compile_check")
import_checkpoint = _command("import_checkpoint")
drill = _command("drill")
data_check = _command("data.check")
data_prepare = _command("data.prepare")
data_unpack = _command("data.unpack")
