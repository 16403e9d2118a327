"""Records to batches on the host: read by threads or processes, shuffled by seed, restored exactly from a checkpoint.

All randomness of a record comes from (seed, position in the order of all epochs). So an image does not depend on the
thread, worker process or host that reads it. Worker processes are spawned, not forked.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import numpy as np

from vmoe_inform import checks
from vmoe_inform.config import ImageDataConfig
from vmoe_inform.data.images.readers import Batch, EvaluationReader, TrainingReader
from vmoe_inform.data.records import ArrayRecords, Source
from vmoe_inform.data.shares import ChunksInTurn, ShareOfBatches
from vmoe_inform.data.skipped import SKIPPED, SkippedRecords
from vmoe_inform.data.training_batches import TrainingBatches
from vmoe_inform.data.workers import in_workers, until_a_worker_ends

_CHUNK_IMAGES = 32  # that a worker process sends at once: some megabytes
_RECORDS_WORTH_A_WORKER = 2000


# ------------------------------------------------------------------------------------------------------------ training


def train_iterator(
    source: Source,
    *,
    image_size_px: int,
    batch_size: int,
    seed: int,
    data: ImageDataConfig,
    skipped: SkippedRecords,
    process_index: int = 0,
    process_count: int = 1,
) -> TrainingBatches:
    """Endless training batches, decided by ``seed`` and the share of this process.

    All processes together read every record once an epoch. Each makes its part of the batches that one process would
    make, with any number of workers. An unreadable record is replaced by another, see
    :class:`vmoe_inform.data.images.readers.TrainingReader`. Batches continue over the end of an epoch, so none is
    short. ``get_state`` and ``set_state`` of the iterator restore the position exactly, also within an epoch. ``close``
    ends its threads and processes.

    When this returns, all worker processes have started and produced a batch. Call it before JAX starts accelerators.

    Args:
      source: what to read.
      image_size_px: P.
      batch_size: b, images of a batch of this process.
      seed: of the order and the augmentation, 0 to 2^32 - 1.
      data: crop and augmentation. ``num_workers`` processes of ``num_threads`` threads each keep ``prefetch_batches``
        ready. Without workers the threads are of this process. With 0 of both, the one thread that assembles batches
        does it all, which is fastest for small images in memory.
      skipped: counts the unreadable records.
      process_index, process_count: the share of this process.

    Returns:
      iterator of {"image": uint8 [b, P, P, 3], "label": int32 [b]}.

    Raises:
      ValueError: no records, or a seed that is too large; here or while iterating, too many unreadable records.
    """
    _check_not_empty(source)
    if not 0 <= seed < 2**32:
        raise checks.error("seed", "0 to 2^32 - 1", seed)
    if not 0 <= process_index < process_count:
        raise checks.error("process_index", f"0 to {process_count - 1}", process_index)
    order = grain.MapDataset.range(len(source.records)).shuffle(seed=seed).repeat()
    examples = order.random_map(TrainingReader(source.records, image_size_px, data), seed=seed)
    share = ShareOfBatches(examples, batch_size=batch_size, process_index=process_index, process_count=process_count)
    chunk = batch_size if data.num_workers == 0 else _largest_divisor(batch_size, _CHUNK_IMAGES)
    chunks = _chunks(share, data.num_threads, chunk, data.num_workers, image_size_px)
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


# ---------------------------------------------------------------------------------------------------------- evaluation


def evaluation_batches(
    source: Source,
    *,
    image_size_px: int,
    batch_size: int,
    skipped: SkippedRecords,
    crop: float = 1.0,
    num_threads: int = 0,
    num_workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    total: Callable[[int], int] = int,
) -> Iterator[Batch]:
    """Every record once, in order. Each process makes its part of the batches that one process would make.

    A black image of mask False takes the place of an unreadable record, and fills up the last batch. Images that share
    experts' slots are ``model.moe.group_size_sequences`` consecutive ones. They are the same for every batch size that
    whole groups fit in, and for every number of processes and workers.

    Args:
      source: what to read.
      image_size_px: P.
      batch_size: b, of this process; of all together, a multiple of the sequences of a group.
      skipped: counts this process's unreadable records.
      crop: side of the centred square that is read, as a share of the image's shorter side.
      num_threads: threads that read ahead two batches; 0 reads in the caller's thread, best for arrays in memory.
      num_workers: processes that read instead of this one, with ``num_threads`` threads each, in turn by chunks.
      process_index, process_count: the share of this process; all make the same number of batches.
      total: the sum of a number over all processes.

    Yields:
      {"image": uint8 [b, P, P, 3], "label": int32 [b], "index": int32 [b], "mask": bool [b]}; index is the record's
      number, 0 where the mask is False.

    Raises:
      ValueError: no records, too many unreadable ones, or only such.
    """
    _check_not_empty(source)
    num_batches = math.ceil(len(source.records) / (batch_size * process_count))
    # Worker processes send parts of a batch; one that has few images would wait for the others.
    chunk = batch_size if num_workers == 0 else _largest_divisor(batch_size, _CHUNK_IMAGES)
    num_chunks = num_batches * batch_size // chunk
    num_workers = min(num_workers, num_chunks)
    turns = math.ceil(num_chunks / max(1, num_workers))
    read = turns * max(1, num_workers) * chunk  # the last turn of the workers may read beyond the last batch
    positions = grain.MapDataset.range(process_count * batch_size * math.ceil(read / batch_size))
    examples = positions.map(EvaluationReader(source.records, image_size_px, crop))
    share = ShareOfBatches(examples, batch_size=batch_size, process_index=process_index, process_count=process_count)
    iterator = iter(_chunks(share[:read], num_threads, chunk, num_workers, image_size_px))
    received = itertools.islice(until_a_worker_ends(iterator), num_chunks)
    try:
        for _ in range(num_batches):
            batch = _concatenate(list(itertools.islice(received, batch_size // chunk)))
            unreadable = batch.pop(SKIPPED)
            skipped.add(int(np.count_nonzero(batch["mask"])), unreadable)
            yield batch
    finally:
        iterator.close()
    skipped.finish(total)


def workers_for_one_pass(source: Source, data: ImageDataConfig, process_count: int = 1) -> int:
    """Worker processes that are worth starting to read a share of ``source`` once, at most ``data.num_workers``.

    A process takes seconds to start, in which a thread decodes some thousand images; arrays in memory would have to
    be sent to it first.
    """
    if isinstance(source.records, ArrayRecords):
        return 0
    return min(data.num_workers, len(source.records) // process_count // _RECORDS_WORTH_A_WORKER)


# ------------------------------------------------------------------------------------------------- examples to batches


def _check_not_empty(source: Source) -> None:
    if len(source.records) == 0:
        raise checks.error("data", "at least one record", "none")


def _chunks(
    examples: grain.MapDataset, num_threads: int, chunk: int, num_workers: int, image_size_px: int
) -> grain.IterDataset:
    """Consecutive examples as chunks with all that was skipped, in order, made by threads or worker processes."""
    if num_workers > 0:
        examples = ChunksInTurn(examples, chunk=chunk, num_workers=num_workers)
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=num_threads + chunk)
    chunks = examples.to_iter_dataset(options).batch(chunk, batch_fn=_stack)
    return in_workers(chunks, num_workers, chunk * image_size_px**2 * 3) if num_workers > 0 else chunks


def _largest_divisor(number: int, at_most: int) -> int:
    return max(divisor for divisor in range(1, at_most + 1) if number % divisor == 0)


def _stack(examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Examples -> arrays, with all that was skipped."""
    arrays = {name: np.stack([example[name] for example in examples]) for name in examples[0] if name != SKIPPED}
    return {**arrays, SKIPPED: tuple(record for example in examples for record in example[SKIPPED])}


def _concatenate(chunks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Chunks -> one batch, with all that was skipped."""
    arrays = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0] if name != SKIPPED}
    return {**arrays, SKIPPED: tuple(record for chunk in chunks for record in chunk[SKIPPED])}
