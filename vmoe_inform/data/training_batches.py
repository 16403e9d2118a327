"""Training batches: counts the unreadable records of those taken, and keeps the position."""

import collections
from typing import Any

import grain
import numpy as np

from vmoe_inform.data.skipped import SKIPPED, SkippedRecords
from vmoe_inform.data.workers import until_a_worker_ends

WORKERS = "iterators_in_use_states"  # in grain's state of a data set that worker processes make
Batch = dict[str, np.ndarray]  # arrays [b, ...] by name


class TrainingBatches(grain.DatasetIterator[Batch]):
    """Counts the unreadable records that others replaced in the batches taken."""

    def __init__(self, parent: grain.DatasetIterator, skipped: SkippedRecords, chunk: int, chunks_in_batch: int):
        super().__init__(parent)
        self._elements = until_a_worker_ends(parent)
        self._skipped = skipped
        self._chunk = chunk
        self._chunks_in_batch = chunks_in_batch
        self._ahead: collections.deque[tuple[dict[str, Any], dict[str, Any]]] = collections.deque()  # state before each

    def make_ahead(self, count: int) -> None:
        """Makes the batches that the next ``count`` calls of ``next`` return."""
        for _ in range(count):
            state = self._parent.get_state()
            self._ahead.append((next(self._elements), state))

    def __next__(self) -> Batch:
        batch = self._ahead.popleft()[0] if self._ahead else next(self._elements)
        unreadable = batch.pop(SKIPPED)
        self._skipped.add(len(next(iter(batch.values()))), unreadable)
        return batch

    def get_state(self) -> dict[str, Any]:
        return self._ahead[0][1] if self._ahead else self._parent.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        self._ahead.clear()
        self._parent.set_state(state)

    def skip_to(self, batches: int) -> None:
        """Sets the position to where this number of batches was taken from the beginning.

        For runs that resume on another number of processes: the positions in their checkpoint are those of other
        shares.
        """
        chunks = batches * self._chunks_in_batch
        state = self.get_state()
        if (workers := state.get(WORKERS)) is not None:
            taken = [len(range(worker, chunks, len(workers))) for worker in range(len(workers))]  # in turn
            state[WORKERS] = [{"next_index": count * self._chunk} for count in taken]
            state["next_index_in_cycle"] = chunks % len(workers)
        else:
            state["next_index"] = chunks * self._chunk
        self.set_state(state)
