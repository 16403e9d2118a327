"""Examples by their position -> batches on the host, made by threads or worker processes, in the same order by all.

What an example is, images or text, is the reader's business. The batch of all processes has ``batch_size`` examples of
each, in the order of the processes. So the batches of a run do not depend on the number of its processes.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import numpy as np

from vmoe_inform import checks
from vmoe_inform.config import DataConfig
from vmoe_inform.data.kept_workers import KeptWorkers, Workers
from vmoe_inform.data.shares import ChunksInTurn, ShareOfBatches
from vmoe_inform.data.skipped import SKIPPED, SkippedRecords
from vmoe_inform.data.training_batches import Batch, TrainingBatches
from vmoe_inform.data.workers import in_workers, nothing

Example = dict[str, Any]  # arrays by name, and under SKIPPED what could not be read on the way
CHUNK_EXAMPLES = 32  # that a worker process sends at once: of images some megabytes


def check_seed_and_share(seed: int, process_index: int, process_count: int) -> None:
    """Raises ValueError for a seed that grain does not take, or a process that is none of all."""
    if not 0 <= seed < 2**32:
        raise checks.error("seed", "0 to 2^32 - 1", seed)
    if not 0 <= process_index < process_count:
        raise checks.error("process_index", f"0 to {process_count - 1}", process_index)


def training_batches(
    examples: grain.MapDataset[Example],
    *,
    batch_size: int,
    data: DataConfig,
    example_bytes: int,
    skipped: SkippedRecords,
    process_index: int,
    process_count: int,
    begin_worker: Callable[[], None] = nothing,
) -> TrainingBatches:
    """Endless batches of one process, whose position a checkpoint keeps.

    When this returns, all worker processes have started and produced a batch. Call it before JAX starts accelerators.

    Args:
      examples: endless, of all processes in their common order.
      batch_size: b, examples of a batch of this process.
      data: ``num_workers`` processes of ``num_threads`` threads each keep ``prefetch_batches`` ready. Without workers
        the threads are of this process. With 0 of both, the one thread that assembles batches does it all, which is
        fastest for small examples in memory.
      example_bytes: of the arrays of an example.
      skipped: counts the unreadable records.
      process_index, process_count: the share of this process.
      begin_worker: what a worker process calls first; it is pickled.

    Returns:
      iterator of the arrays of b examples by name, [b, ...] each.
    """
    share = ShareOfBatches(examples, batch_size=batch_size, process_index=process_index, process_count=process_count)
    chunk = batch_size if data.num_workers == 0 else _largest_divisor(batch_size, CHUNK_EXAMPLES)
    if data.num_workers > 0:
        in_turn = ChunksInTurn(share, chunk=chunk, num_workers=data.num_workers)
        chunks = _chunks(in_turn, data.num_threads, chunk)
        chunks = in_workers(chunks, data.num_workers, chunk * example_bytes, begin_worker)
    else:
        chunks = _chunks(share, data.num_threads, chunk)
    batches = chunks if chunk == batch_size else chunks.batch(batch_size // chunk, batch_fn=_concatenate)
    # One thread prepares whole batches during the training step.
    prefetched = grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=data.prefetch_batches)
    iterator = TrainingBatches(iter(prefetched), skipped, chunk, batch_size // chunk)
    if data.num_workers > 0:
        try:
            iterator.make_ahead(math.ceil(data.num_workers * chunk / batch_size))  # something of every worker
        except BaseException:
            iterator.close()
            raise
    return iterator


def evaluation_batches(
    reader: Callable[[int], Example],
    *,
    num_examples: int,
    batch_size: int,
    skipped: SkippedRecords,
    num_threads: int,
    num_workers: int,
    process_index: int,
    process_count: int,
    total: Callable[[int], int],
    workers: Workers = KeptWorkers,
    copied: Callable[[int], object] = int,
) -> Iterator[Batch]:
    """Every example once, in order. Each process makes its part of the batches that one process would make.

    Args:
      reader: gives the example of a position: that many records, and beyond them filler. All have ``mask``, False for
        filler.
      num_examples: of all processes, >= 1.
      batch_size: b, of this process.
      skipped: counts this process's unreadable records.
      num_threads: threads that read ahead; 0 reads in the caller's thread.
      num_workers: processes that read instead of this one, with ``num_threads`` threads each.
      process_index, process_count: the share of this process; all make the same number of batches.
      total: the sum of a number over all processes.
      workers: gives the processes, for the time of these batches.
      copied: called with the bytes of each copy of examples on their way into a batch.

    Yields:
      the arrays of b examples by name, [b, ...] each.

    Raises:
      ValueError: too many unreadable records, or only such.
    """
    num_batches = math.ceil(num_examples / (batch_size * process_count))
    with contextlib.ExitStack() as stack:
        if num_workers > 0:
            chunk = _largest_divisor(batch_size, CHUNK_EXAMPLES)
            begins = [(batch * process_count + process_index) * batch_size for batch in range(num_batches)]
            made: Any = stack.enter_context(workers()).batches(
                reader,
                [range(begin, begin + batch_size, chunk) for begin in begins],
                chunk=chunk,
                template=reader(num_examples),
                num_workers=min(num_workers, num_batches * batch_size // chunk),
                num_threads=num_threads,
                copied=copied,
            )
        else:
            share = ShareOfBatches(
                grain.MapDataset.range(process_count * num_batches * batch_size).map(reader),
                batch_size=batch_size,
                process_index=process_index,
                process_count=process_count,
            )
            stack_examples = functools.partial(_stack, copied=copied)
            made = iter(_chunks(share, num_threads, batch_size, stack_examples))
        stack.callback(made.close)
        for batch in made:
            unreadable = batch.pop(SKIPPED)
            skipped.add(int(np.count_nonzero(batch["mask"])), unreadable)
            yield batch
    skipped.finish(total)


def _chunks(
    examples: grain.MapDataset[Example],
    num_threads: int,
    chunk: int,
    stack: Callable[[Sequence[Example]], Example] | None = None,
) -> grain.IterDataset:
    """Consecutive examples as chunks with all that was skipped, in order, made by threads."""
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=num_threads + chunk)
    return examples.to_iter_dataset(options).batch(chunk, batch_fn=stack or _stack)


def _largest_divisor(number: int, at_most: int) -> int:
    return max(divisor for divisor in range(1, at_most + 1) if number % divisor == 0)


def _stack(examples: Sequence[Example], copied: Callable[[int], object] = int) -> Example:
    """Examples -> arrays, with all that was skipped; ``copied`` is called with the bytes of each array."""
    arrays = {name: np.stack([example[name] for example in examples]) for name in examples[0] if name != SKIPPED}
    for values in arrays.values():
        copied(values.nbytes)
    return {**arrays, SKIPPED: tuple(record for example in examples for record in example[SKIPPED])}


def _concatenate(chunks: Sequence[Example]) -> Example:
    """Chunks -> one batch, with all that was skipped."""
    arrays = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0] if name != SKIPPED}
    return {**arrays, SKIPPED: tuple(record for chunk in chunks for record in chunk[SKIPPED])}
