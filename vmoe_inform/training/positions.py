"""Positions in the data that a checkpoint has: one of each process that wrote it."""

import pathlib
import re

from absl import logging

from vmoe_inform.data.training_batches import TrainingBatches
from vmoe_inform.sharding import processes


def writers_of(checkpoint: pathlib.Path) -> set[int]:
    """How many processes have written their positions into a checkpoint: one number, if it is whole."""
    names = (re.fullmatch(r"process_\d+-of-(\d+)\.json", path.name) for path in (checkpoint / "data").glob("*"))
    return {int(name[1]) for name in names if name is not None}


def are_of_other_processes(checkpoint: pathlib.Path) -> bool:
    """Whether more or fewer processes than there are now have written it."""
    return bool(writers_of(checkpoint) - {processes.place()[1]})


def skip_to_step(step: int, data: TrainingBatches) -> None:
    """Goes to where other processes were: a step takes a batch, which is of the same records for any number of them.

    Except for records that could not be read, which move the positions of their process, and where worker processes
    make the batches, which take turns within each process: some records around are seen twice or not in this epoch.
    """
    data.skip_to(step)
    if processes.is_main():
        count = processes.place()[1]
        logging.warning(
            "checkpoint %d is of another number of processes: going on with batch %d on %d", step, step, count
        )
