"""Trains, then evaluates on the clean images, as the command lines do one after the other: in one process, to import
and compile once. ``--workdir`` and ``--config`` are those of vmoe_inform.train."""

import pathlib

from absl import flags

from vmoe_inform import command_line, train
from vmoe_inform.evaluation import run
from vmoe_inform.evaluation.predict import Predictor
from vmoe_inform.runs import restore
from vmoe_inform.runs.place import Place
from vmoe_inform.sharding import processes


def main(arguments: list[str]) -> int:
    code = train.main(arguments)
    workdir = pathlib.Path(flags.FLAGS.workdir)
    restored = restore.restore(workdir)
    predictor = Predictor(restored.model, restored.config, restored.mesh)
    run.evaluate(
        Place(workdir),
        restored.config,
        restored.step,
        ["clean"],
        restore=lambda: (predictor, restored.variables),
        report_progress=print if processes.is_main() else lambda line: None,
    )
    return code


if __name__ == "__main__":
    command_line.run(main)
