"""Trains, then evaluates on the clean images, as the command lines do one after the other: in one process, to import
and compile once. ``--workdir`` and ``--config`` are those of vmoe_inform.train."""

from absl import flags

from vmoe_inform import command_line, storage, train
from vmoe_inform.evaluation import run
from vmoe_inform.runs import run as runs
from vmoe_inform.sharding import processes


def main(arguments: list[str]) -> int:
    code = train.main(arguments)
    workdir = storage.path("--workdir", flags.FLAGS.workdir)
    run.evaluate(runs.find(workdir), ["clean"], say=print if processes.is_main() else lambda line: None)
    return code


if __name__ == "__main__":
    command_line.run(main)
