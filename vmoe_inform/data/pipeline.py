"""Records -> batches on the host: read by threads or processes, shuffled by seed, restored exactly from a checkpoint.

Everything random about a record comes from (seed, position in the order of all epochs), so that an image does not
depend on which thread, worker process or host reads it. Worker processes are spawned, not forked.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

from vmoe_inform import checks
from vmoe_inform.config import DataConfig
from vmoe_inform.data.readers import Batch, EvaluationReader, TrainingReader
from vmoe_inform.data.records import ArrayRecords, Source
from vmoe_inform.data.shares import ShareOfBatches
from vmoe_inform.data.skipped import SkippedRecords, Unreadable
from vmoe_inform.data.training_batches import SKIPPED, ReadableDataset, TrainingBatches
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
    data: DataConfig,
    skipped: SkippedRecords,
    process_index: int = 0,
    process_count: int = 1,
) -> TrainingBatches:
    """Endless training batches, decided by ``seed``, ``data.num_workers`` and the share of this process.

    All processes together go through every record once an epoch, and make the batches that one process would make, a
    part each; worker processes take chunks of a part in turn. Batches run on over the end of an epoch: none is short.
    ``get_state`` and ``set_state`` of the iterator restore the position exactly, also within an epoch; ``close`` ends
    its threads and processes.

    When this returns, all worker processes have started and made something: before an accelerator is touched, if this
    is called before.

    Args:
      source: what to read.
      image_size_px: P.
      batch_size: b, images of a batch of this process.
      seed: of the order and the augmentation, 0 to 2^32 - 1.
      data: crop and augmentation; ``prefetch_batches`` are kept ready, made by ``num_workers`` processes of
        ``num_threads`` threads each. Without workers the threads are of this process; with 0 of both, the one thread
        that puts batches together does it all, which is the fastest for small images in memory.
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
    readable = ReadableDataset(_read_ahead(share, data.num_threads, chunk), data.max_skipped_share)
    batches = readable.batch(chunk, drop_remainder=True, batch_fn=_stack)
    if data.num_workers > 0:
        chunks = in_workers(batches, data.num_workers)
        batches = chunks.batch(batch_size // chunk, drop_remainder=True, batch_fn=_concatenate)
    # One thread prepares whole batches beside the training step.
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
) -> Iterator[Batch]:
    """Every readable record once; the last batch is filled up with black images of mask False.

    Args:
      source: what to read.
      image_size_px: P.
      batch_size: b.
      skipped: counts the unreadable records.
      crop: side of the centred square that is looked at, as a share of the image's shorter side.
      num_threads: threads that read ahead two batches; 0 reads in the caller's thread, best for arrays in memory.
      num_workers: processes of so many threads each that read instead of this one, chunks of records in turn.

    Yields:
      {"image": uint8 [b, P, P, 3], "label": int32 [b], "index": int32 [b], "mask": bool [b]}; index is the record's
      number, 0 where the mask is False. Without workers, records come in order.

    Raises:
      ValueError: no records, too many unreadable ones, or only such.
    """
    _check_not_empty(source)
    examples = grain.MapDataset.range(len(source.records)).map(EvaluationReader(source.records, image_size_px, crop))
    chunk = batch_size if num_workers == 0 else min(batch_size, _CHUNK_IMAGES)
    chunks = _read_ahead(examples, num_threads, chunk).batch(chunk, batch_fn=_stack_readable)
    if num_workers > 0:
        chunks = in_workers(chunks, min(num_workers, math.ceil(len(source.records) / chunk)))
    iterator = iter(chunks)
    waiting: Batch | None = None
    try:
        for received in until_a_worker_ends(iterator):
            unreadable = received.pop(SKIPPED)
            skipped.add(len(received.get("label", ())), unreadable)
            if not received:
                continue
            waiting = received if waiting is None else _concatenate_arrays([waiting, received])
            if len(waiting["label"]) >= batch_size:
                yield _fill_up({name: values[:batch_size] for name, values in waiting.items()}, batch_size)
                waiting = {name: values[batch_size:] for name, values in waiting.items()}
        if waiting is not None and len(waiting["label"]) > 0:
            yield _fill_up(waiting, batch_size)
    finally:
        iterator.close()
    skipped.finish()


def workers_for_one_pass(source: Source, data: DataConfig) -> int:
    """Worker processes that are worth starting to read ``source`` once, at most ``data.num_workers``.

    A process takes seconds to start, in which a thread decodes some thousand images; arrays in memory would have to
    be sent to it first.
    """
    if isinstance(source.records, ArrayRecords):
        return 0
    return min(data.num_workers, len(source.records) // _RECORDS_WORTH_A_WORKER)


def _fill_up(batch: Batch, batch_size: int) -> Batch:
    count = len(batch["label"])
    filled = {
        name: np.concatenate([values, np.zeros((batch_size - count, *values.shape[1:]), values.dtype)])
        for name, values in batch.items()
    }
    return {**filled, "mask": np.arange(batch_size) < count}


# ------------------------------------------------------------------------------------------------- examples to batches


def _check_not_empty(source: Source) -> None:
    if len(source.records) == 0:
        raise checks.error("data", "at least one record", "none")


def _read_ahead(examples: grain.MapDataset, num_threads: int, num_examples: int) -> grain.IterDataset:
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=num_threads + num_examples)
    return examples.to_iter_dataset(options)


def _largest_divisor(number: int, at_most: int) -> int:
    return max(divisor for divisor in range(1, at_most + 1) if number % divisor == 0)


def _stack(examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Examples with what was skipped before each -> arrays with all that was skipped."""
    arrays = {name: np.stack([example[name] for example in examples]) for name in examples[0] if name != SKIPPED}
    return {**arrays, SKIPPED: tuple(record for example in examples for record in example[SKIPPED])}


def _stack_readable(examples: Sequence[Batch | Unreadable]) -> dict[str, Any]:
    """As :func:`_stack`, of records not yet sorted out; without arrays if none could be read."""
    unreadable = tuple(example for example in examples if isinstance(example, Unreadable))
    readable = [{**example, SKIPPED: ()} for example in examples if not isinstance(example, Unreadable)]
    return {**(_stack(readable) if readable else {}), SKIPPED: unreadable}


def _concatenate(chunks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Chunks -> one batch, with all that was skipped."""
    arrays = _concatenate_arrays([{name: chunk[name] for name in chunk if name != SKIPPED} for chunk in chunks])
    return {**arrays, SKIPPED: tuple(record for chunk in chunks for record in chunk[SKIPPED])}


def _concatenate_arrays(batches: Sequence[Batch]) -> Batch:
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
