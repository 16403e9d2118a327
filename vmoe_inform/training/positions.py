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
    """Goes to where other processes were: a step takes a batch, which is the same for any number of them."""
    data.skip_to(step)
    if processes.is_main():
        count = processes.place()[1]
        logging.warning(
            "checkpoint %d is of another number of processes: resuming after batch %d on %d", step, step, count
        )
