"""Training examples on their way to batches: unreadable records left out and counted, and the position of it all."""

import collections
from typing import Any

import grain

from vmoe_inform.data.readers import Batch
from vmoe_inform.data.skipped import SkippedRecords, Unreadable
from vmoe_inform.data.workers import until_a_worker_ends

SKIPPED = "skipped"  # beside "image" and "label" on the way: the unreadable records that came before
_JUDGED_IN_A_ROW = 100


class ReadableDataset(grain.IterDataset[dict[str, Any]]):
    """Leaves out unreadable records, and hands them on with the next readable one."""

    def __init__(self, parent: grain.IterDataset, max_share: float):
        super().__init__(parent)
        self._max_share = max_share

    def __iter__(self) -> grain.DatasetIterator[dict[str, Any]]:
        return _ReadableIterator(iter(self._parent), self._max_share)


class _ReadableIterator(grain.DatasetIterator[dict[str, Any]]):
    def __init__(self, parent: grain.DatasetIterator, max_share: float):
        super().__init__(parent)
        self._max_share = max_share
        self._handed_on = 0

    def __next__(self) -> dict[str, Any]:
        left_out: list[Unreadable] = []
        while isinstance(example := next(self._parent), Unreadable):
            left_out.append(example)
            # Whoever takes the batches judges the share; but a row of unreadable records without an end gives none.
            if len(left_out) % _JUDGED_IN_A_ROW == 0:
                SkippedRecords(self._max_share).add(self._handed_on, left_out)
        self._handed_on += 1
        return {**example, SKIPPED: tuple(left_out)}

    def get_state(self) -> dict[str, Any]:
        return self._parent.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        self._parent.set_state(state)


class TrainingBatches(grain.DatasetIterator[Batch]):
    """Counts the records that were left out of the batches taken."""

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
        self._skipped.add(len(batch["label"]), unreadable)
        return batch

    def get_state(self) -> dict[str, Any]:
        return self._ahead[0][1] if self._ahead else self._parent.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        self._ahead.clear()
        self._parent.set_state(state)

    def skip_to(self, batches: int) -> None:
        """Goes to where so many batches were taken from the beginning, as if all of their records could be read.

        For runs that go on with another number of processes: all positions before are those of other shares then.
        """
        chunks = batches * self._chunks_in_batch
        state = self.get_state()
        if (workers := state.get("iterators_in_use_states")) is not None:
            taken = [len(range(worker, chunks, len(workers))) for worker in range(len(workers))]  # in turn
            state["iterators_in_use_states"] = [{"next_index": count * self._chunk} for count in taken]
            state["next_index_in_cycle"] = chunks % len(workers)
        else:
            state["next_index"] = chunks * self._chunk
        self.set_state(state)
