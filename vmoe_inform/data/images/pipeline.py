"""Images to batches on the host: read by threads or processes, shuffled by seed, restored exactly from a checkpoint.

All randomness of a record comes from (seed, position in the order of all epochs). So an image does not depend on the
thread, worker process or host that reads it. Worker processes are spawned, not forked.
"""

from collections.abc import Callable, Iterator

import grain

from vmoe_inform import checks
from vmoe_inform.config import ImageDataConfig
from vmoe_inform.data import batches
from vmoe_inform.data.images import pixels
from vmoe_inform.data.images.framing import WHOLE, Framing
from vmoe_inform.data.images.readers import EvaluationReader, TrainingReader
from vmoe_inform.data.kept_workers import KeptWorkers, Workers
from vmoe_inform.data.records import ArrayRecords, Source
from vmoe_inform.data.skipped import SkippedRecords
from vmoe_inform.data.training_batches import Batch, TrainingBatches

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
    batches.check_seed_and_share(seed, process_index, process_count)
    order = grain.MapDataset.range(len(source.records)).shuffle(seed=seed).repeat()
    return batches.training_batches(
        order.random_map(TrainingReader(source.records, image_size_px, data), seed=seed),
        batch_size=batch_size,
        data=data,
        example_bytes=_image_bytes(image_size_px),
        skipped=skipped,
        process_index=process_index,
        process_count=process_count,
        begin_worker=pixels.use_one_thread,
    )


# ---------------------------------------------------------------------------------------------------------- evaluation


def kept_workers() -> KeptWorkers:
    """Processes for several passes of :func:`evaluation_batches`; a context manager that ends them."""
    return KeptWorkers(pixels.use_one_thread)


def evaluation_batches(
    source: Source,
    *,
    image_size_px: int,
    batch_size: int,
    skipped: SkippedRecords,
    framing: Framing = WHOLE,
    num_threads: int = 0,
    num_workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    total: Callable[[int], int] = int,
    workers: Workers = kept_workers,
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
      framing: what is shown of an image; by default the largest square.
      num_threads: threads that read ahead two batches; 0 reads in the caller's thread, best for arrays in memory.
      num_workers: processes that read instead of this one, with ``num_threads`` threads each.
      process_index, process_count: the share of this process; all make the same number of batches.
      total: the sum of a number over all processes.
      workers: gives the processes for the time of this pass.

    Yields:
      {"image": uint8 [b, P, P, 3], "label": int32 [b], "index": int32 [b], "mask": bool [b]}; index is the record's
      number, 0 where the mask is False.

    Raises:
      ValueError: no records, too many unreadable ones, or only such.
    """
    _check_not_empty(source)
    return batches.evaluation_batches(
        EvaluationReader(source.records, image_size_px, framing),
        num_examples=len(source.records),
        batch_size=batch_size,
        skipped=skipped,
        num_threads=num_threads,
        num_workers=num_workers,
        process_index=process_index,
        process_count=process_count,
        total=total,
        workers=workers,
    )


def workers_for_one_pass(source: Source, data: ImageDataConfig, process_count: int = 1) -> int:
    """Worker processes that are worth starting to read a share of ``source`` once, at most ``data.num_workers``.

    A process takes seconds to start, in which a thread decodes some thousand images; arrays in memory would have to
    be sent to it first.
    """
    if isinstance(source.records, ArrayRecords):
        return 0
    return min(data.num_workers, len(source.records) // process_count // _RECORDS_WORTH_A_WORKER)


def _check_not_empty(source: Source) -> None:
    if len(source.records) == 0:
        raise checks.error("data", "at least one record", checks.NOTHING)


def _image_bytes(image_size_px: int) -> int:
    return image_size_px**2 * 3
