"""Which records of the common order each process of a run takes, and which each of its workers."""

from typing import Any

import grain


class ShareOfBatches(grain.MapDataset[Any]):
    """The examples of one process, if all processes together make the batches that one process would make.

    A batch of all has ``batch_size`` examples of each process, in the order of the processes. Of every n *
    ``batch_size`` examples, process p of n takes ``batch_size`` from p * ``batch_size`` on.
    """

    def __init__(self, parent: grain.MapDataset[Any], *, batch_size: int, process_index: int, process_count: int):
        """Args:
        parent: the examples of all processes.
        batch_size: of one process.
        process_index, process_count: p and n.
        """
        super().__init__(parent)
        self._batch_size = batch_size
        self._process_index = process_index
        self._process_count = process_count

    def __len__(self) -> int:
        return len(self._parent) // self._process_count

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        batch, row = divmod(index, self._batch_size)
        return self._parent[(batch * self._process_count + self._process_index) * self._batch_size + row]


class ChunksInTurn(grain.MapDataset[Any]):
    """The same examples in the order in which worker processes make chunks of consecutive ones.

    Grain gives worker w of n the elements w, w + n, ... of a data set, and takes chunks from the workers in turn. In
    this data set, those elements are chunks w, w + n, ... of the parent. So the workers yield the parent in its own
    order, for any number of workers.
    """

    def __init__(self, parent: grain.MapDataset[Any], *, chunk: int, num_workers: int):
        """Args:
        parent: endless, or as long as a multiple of ``chunk`` * ``num_workers``.
        chunk: examples that a worker sends at once.
        num_workers: n, >= 1.
        """
        super().__init__(parent)
        self._chunk = chunk
        self._num_workers = num_workers

    def __len__(self) -> int:
        return len(self._parent)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        of_worker, worker = divmod(index, self._num_workers)
        turn, row = divmod(of_worker, self._chunk)
        return self._parent[(turn * self._num_workers + worker) * self._chunk + row]
