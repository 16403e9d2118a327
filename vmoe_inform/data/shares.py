"""Which records of the common order each process of a run takes."""

from typing import Any

import grain


class ShareOfBatches(grain.MapDataset[Any]):
    """The examples of one process, if all processes together make the batches that one process would make.

    A batch of all has ``batch_size`` examples of each process, one process's after the other's: process p of n takes
    the examples from p * ``batch_size`` on of every n * ``batch_size``.
    """

    def __init__(self, parent: grain.MapDataset[Any], *, batch_size: int, process_index: int, process_count: int):
        """Args:
        parent: the examples of all processes, in an endless order.
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
