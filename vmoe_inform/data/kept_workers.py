"""Worker processes that read the examples of evaluation, kept from one set of records to the next.

A process takes seconds to start, and a suite may have 75 sets. Workers write what they read into shared memory, from
where it is copied into the batch.
"""

import collections
import contextlib
import dataclasses
import functools
import math
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.shared_memory import SharedMemory
from typing import Any, Self

import cloudpickle
import numpy as np

from vmoe_inform.data.skipped import SKIPPED, Unreadable
from vmoe_inform.data.workers import begin, check_shared_memory, nothing, worker_ended

Reader = Callable[[int], dict[str, Any]]  # position -> arrays by name, and under SKIPPED what could not be read
_CHUNKS_OF_A_WORKER = 3  # that it makes, and two that are ready


@dataclasses.dataclass(frozen=True)
class _Pass:
    """One pass over a set, as workers know it.

    Attributes:
      reader: path of the pickled reader.
      memory: name of the shared memory, which holds some chunks.
      example: structured type with a field for each array of an example.
      chunk: examples of a chunk.
      num_threads: of each worker, which read at once; 0: the worker reads by itself.
    """

    reader: str
    memory: str
    example: np.dtype
    chunk: int
    num_threads: int


class _Process(SpawnProcess):
    """A worker ignores the signal by which a pool would end it where another worker is gone."""

    def terminate(self) -> None:
        self.kill()


class _Spawn(SpawnContext):
    Process = _Process


class KeptWorkers:
    """Worker processes, started when they are first needed; a context manager that ends them."""

    def __init__(self, begin_worker: Callable[[], None] = nothing):
        """Args:
        begin_worker: what a worker calls first; it is pickled.
        """
        self._begin_worker = begin_worker
        self._pool: ProcessPoolExecutor | None = None
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the workers, which finish the chunks that they are at."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._pool, self._count = None, 0

    def batches(
        self,
        reader: Reader,
        starts: Sequence[Sequence[int]],
        *,
        chunk: int,
        template: Mapping[str, Any],
        num_workers: int,
        num_threads: int,
        copied: Callable[[int], object] = int,
    ) -> Iterator[dict[str, Any]]:
        """Batches of chunks of consecutive examples, in order; whichever worker is free makes the next chunk.

        Args:
          reader: gives the example of a position; it is pickled.
          starts: of each batch, the first position of each chunk.
          chunk: examples of a chunk.
          template: an example, whose shapes and types all have.
          num_workers: least number of workers, >= 1; where more are there, they read, too.
          num_threads: of each worker, which read at once; 0: the worker reads by itself.
          copied: called with the bytes of each copy of a chunk's arrays.

        Yields:
          arrays by name, and under ``SKIPPED`` all that could not be read.

        Raises:
          ValueError: the shared memory is too small.
          ChildProcessError: a worker has ended, such as one that was killed for the memory that it took.
        """
        arrays = {name: values for name, values in template.items() if name != SKIPPED}
        example = np.dtype([(name, values.dtype, values.shape) for name, values in arrays.items()], align=True)
        flat = [start for of_batch in starts for start in of_batch]
        num_workers = max(self._count, num_workers)
        check_shared_memory(num_workers, _CHUNKS_OF_A_WORKER * chunk * example.itemsize)
        slots = min(_CHUNKS_OF_A_WORKER * num_workers, len(flat))
        with _file_of(reader) as path, _shared_memory((slots, chunk), example) as (memory, chunks):
            read = functools.partial(_read, _Pass(path, memory, example, chunk, num_threads))
            pool = self._at_least(num_workers)
            pending: collections.deque[Future[tuple[tuple[Unreadable, ...], int]]] = collections.deque()
            try:
                for number in range(slots):
                    pending.append(pool.submit(read, number, flat[number]))
                taken = 0
                for of_batch in starts:
                    batch = {name: np.empty((len(of_batch) * chunk, *a.shape), a.dtype) for name, a in arrays.items()}
                    unreadable: list[Unreadable] = []
                    for row in range(0, len(of_batch) * chunk, chunk):
                        slot = taken % slots
                        of_chunk, written = pending.popleft().result()
                        unreadable += of_chunk
                        copied(written)
                        for name, values in batch.items():
                            part = values[row : row + chunk]
                            part[...] = chunks[slot][name]
                            copied(part.nbytes)
                        if taken + slots < len(flat):
                            pending.append(pool.submit(read, slot, flat[taken + slots]))
                        taken += 1
                    yield {**batch, SKIPPED: tuple(unreadable)}
            except BrokenProcessPool as problem:
                self.close()
                raise worker_ended(problem) from None
            finally:
                for future in pending:
                    future.cancel()

    def _at_least(self, count: int) -> ProcessPoolExecutor:
        """The workers; where there are fewer, others in their place. They start as chunks are asked for."""
        if self._pool is None or self._count < count:
            self.close()
            self._pool = ProcessPoolExecutor(count, _Spawn(), begin, (self._begin_worker,))
            self._count = count
        return self._pool


@contextlib.contextmanager
def _file_of(reader: Reader) -> Iterator[str]:
    """A temporary file with the pickled reader: workers read it once a pass, since a set's names may be megabytes."""
    handle, path = tempfile.mkstemp(prefix="vmoe_inform_reader_")
    try:
        with open(handle, "wb") as file:
            file.write(cloudpickle.dumps(reader))
        yield path
    finally:
        os.unlink(path)


@contextlib.contextmanager
def _shared_memory(shape: tuple[int, int], dtype: np.dtype) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Memory for an array of this shape and type: its name, and the rows."""
    memory = SharedMemory(create=True, size=math.prod(shape) * dtype.itemsize)
    rows = list(np.ndarray(shape, dtype, buffer=memory.buf))
    try:
        yield memory.name, rows
    finally:
        memory.unlink()
        rows.clear()  # or it could not be closed
        memory.close()


Workers = Callable[[], contextlib.AbstractContextManager[KeptWorkers]]  # for the time of a pass


# In a worker


@functools.lru_cache(maxsize=1)
def _opened(of: _Pass) -> tuple[Reader, SharedMemory, ThreadPoolExecutor | None]:
    reader = cloudpickle.loads(pathlib.Path(of.reader).read_bytes())
    return reader, SharedMemory(of.memory), ThreadPoolExecutor(of.num_threads) if of.num_threads else None


def _read(of: _Pass, slot: int, start: int) -> tuple[tuple[Unreadable, ...], int]:
    """Reads a chunk from position ``start`` on into a slot; returns what could not be read, and the bytes written."""
    reader, memory, threads = _opened(of)
    examples = np.ndarray(of.chunk, of.example, memory.buf, slot * of.chunk * of.example.itemsize)

    def read(row: int) -> tuple[tuple[Unreadable, ...], int]:
        example = reader(start + row)
        written = 0
        for name in of.example.names or ():
            examples[name][row] = example[name]
            written += example[name].nbytes
        return example[SKIPPED], written

    found = list((map if threads is None else threads.map)(read, range(of.chunk)))
    return tuple(record for of_row, _ in found for record in of_row), sum(written for _, written in found)
