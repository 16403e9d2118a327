"""Positions in the data that a checkpoint has: one of each process that wrote it."""

import re
from collections.abc import Mapping
from typing import Any

from absl import logging

from vmoe_inform import storage
from vmoe_inform.data.training_batches import WORKERS, TrainingBatches
from vmoe_inform.sharding import processes

_IMPORTED = "0"  # the step of a checkpoint of another program, which has no position


def writers_of(checkpoint: storage.Path) -> set[int]:
    """Number of processes that wrote their positions into a checkpoint: one if it is whole, none if it is imported."""
    names = (
        re.fullmatch(r"process_\d+-of-(\d+)\.json", path.name) for path in storage.matching(checkpoint / "data", "*")
    )
    return {int(name[1]) for name in names if name is not None}


def are_of_others(checkpoint: storage.Path, data: TrainingBatches) -> bool:
    """Whether another number of processes wrote it, worker processes made their batches, or another program wrote it.

    Raises:
      ValueError: its position is none that training writes.
    """
    index, count = processes.index_and_count()
    writers = writers_of(checkpoint)
    if writers - {count} or (not writers and checkpoint.name == _IMPORTED):
        return True
    path = checkpoint / "data" / f"process_{index}-of-{count}.json"
    saved = storage.read_json(path)
    now = data.get_state()
    if _num_workers(saved) != _num_workers(now):
        return True
    if not _is_like(saved, now):
        raise ValueError(f"{path.name}: expected a position in the data like {now}; received {saved}")
    return False


def _num_workers(position: Any) -> int:
    workers = position.get(WORKERS) if isinstance(position, dict) else None
    return len(workers) if isinstance(workers, list) else 0


def _is_like(saved: Any, expected: Any) -> bool:
    """Whether a position has the fields of another, and numbers where it has some."""
    if isinstance(expected, Mapping):
        return isinstance(saved, dict) and all(
            name in saved and _is_like(saved[name], expected[name]) for name in expected
        )
    if isinstance(expected, list | tuple):
        return isinstance(saved, list) and len(saved) == len(expected) and all(map(_is_like, saved, expected))
    if isinstance(expected, int):
        return isinstance(saved, int) and not isinstance(saved, bool) and saved >= 0
    return isinstance(saved, type(expected))


def skip_to_step(step: int, data: TrainingBatches) -> None:
    """Skips to the position of other processes: a step takes a batch, the same for any number of them."""
    data.skip_to(step)
    if step and processes.is_main():
        count = processes.index_and_count()[1]
        logging.warning(
            "checkpoint %d is of other processes or workers than these: resuming after batch %d on %d",
            step,
            step,
            count,
        )
