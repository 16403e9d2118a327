"""Records -> batches on the host: decoded in threads, shuffled by seed, and restored exactly from a checkpoint."""

import threading
from collections.abc import Iterator

import grain
import numpy as np
from absl import logging

from vmoe_inform import checks
from vmoe_inform.config import DataConfig
from vmoe_inform.data import images
from vmoe_inform.data.sources import Records, Source

Batch = dict[str, np.ndarray]

_LOGGED_IN_FULL = 5
_RECORDS_BEFORE_JUDGING = 100


class SkippedRecords:
    """Counts records that could not be read, and stops the run when they are too many. Safe to share by threads.

    A record that is read again in a later epoch counts again, so that the share is that of the data set.

    Attributes:
      count: records skipped so far.
      read: records tried so far, the skipped ones among them.
    """

    def __init__(self, max_share: float):
        """Args:
        max_share: share of the tried records, 0 to 1, that may be skipped (``data.max_skipped_share``).
        """
        self.max_share = max_share
        self.count = 0
        self.read = 0
        self._lock = threading.Lock()

    def readable(self) -> None:
        """Counts a record that was read."""
        with self._lock:
            self.read += 1

    def skip(self, name: str, problem: Exception) -> None:
        """Counts a record that could not be read; the first few are logged.

        Raises:
          ValueError: once 100 records were tried, if more than ``max_share`` of them, or all, were skipped.
        """
        with self._lock:
            self.read += 1
            self.count += 1
            count, read = self.count, self.read
        if count <= _LOGGED_IN_FULL:
            last = " (further ones are only counted)" if count == _LOGGED_IN_FULL else ""
            logging.warning("skipped unreadable record %s: %s%s", name, problem, last)
        if read >= _RECORDS_BEFORE_JUDGING and (count > self.max_share * read or count == read):
            self._fail(count, read, name, problem)

    def finish(self) -> None:
        """To be called when a pass over the data is over.

        Raises:
          ValueError: records were tried and not one could be read.
        """
        if self.read and self.count == self.read:
            self._fail(self.count, self.read, "all", None)

    def _fail(self, count: int, read: int, name: str, problem: Exception | None) -> None:
        last = f", the last one {name}: {problem}" if problem else ""
        expected = f"at most {self.max_share:.2%} unreadable records (data.max_skipped_share), and some readable ones"
        raise checks.error("data", expected, f"{count} unreadable of {read}{last}")


def _read(records: Records, index: int, image_size_px: int, skipped: SkippedRecords, crop: float = 1.0) -> Batch | None:
    """The record as arrays, or None if it cannot be read."""
    try:
        record = records[index]
        image = images.to_square(record["image"], image_size_px, crop)
    except (OSError, images.UnreadableImageError) as problem:
        skipped.skip(records.name(index), problem)
        return None
    skipped.readable()
    return {"image": image, "label": np.asarray(record["label"], np.int32)}


def _check_not_empty(source: Source) -> None:
    if len(source.records) == 0:
        raise checks.error("data", "at least one record", "none")


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
) -> grain.DatasetIterator[Batch]:
    """Endless training batches, in an order that depends on ``seed`` and the epoch only.

    All processes together go through every record once an epoch: process p of n takes the records p, p + n, ... of
    the common order. Batches run on over the end of an epoch, so that none is short. ``get_state`` and ``set_state``
    of the iterator restore the position exactly, also within an epoch; ``close`` ends its threads.

    Args:
      source: what to read.
      image_size_px: P.
      batch_size: b, images of a batch of this process.
      seed: of the order, 0 to 2^32 - 1.
      data: ``prefetch_batches`` are kept ready, whose records ``num_threads`` read and decode; with 0 the one thread
        that prepares the batches does it, which is the fastest for small images in memory.
      skipped: counts the unreadable records, read-ahead ones included.
      process_index, process_count: the share of this process.

    Returns:
      iterator of {"image": uint8 [b, P, P, 3], "label": int32 [b]}.

    Raises:
      ValueError: no records, or a seed that is too large; while iterating, too many unreadable records.
    """
    _check_not_empty(source)
    if not 0 <= seed < 2**32:
        raise checks.error("seed", "0 to 2^32 - 1", seed)
    if not 0 <= process_index < process_count:
        raise checks.error("process_index", f"0 to {process_count - 1}", process_index)
    order = grain.MapDataset.range(len(source.records)).shuffle(seed=seed).repeat()
    share = order[process_index::process_count]
    examples = share.map(lambda index: _read(source.records, int(index), image_size_px, skipped))
    options = grain.ReadOptions(num_threads=data.num_threads, prefetch_buffer_size=data.num_threads + batch_size)
    # Records that were read as None are left out here; the position counts them, which keeps restoring exact.
    batches = examples.to_iter_dataset(options).batch(batch_size, drop_remainder=True)
    # One thread prepares whole batches beside the training step.
    return iter(grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=data.prefetch_batches))


def evaluation_batches(
    source: Source,
    *,
    image_size_px: int,
    batch_size: int,
    skipped: SkippedRecords,
    crop: float = 1.0,
    num_threads: int = 0,
) -> Iterator[Batch]:
    """Every readable record once, in record order; the last batch is filled up with black images of mask False.

    Args:
      source: what to read.
      image_size_px: P.
      batch_size: b.
      skipped: counts the unreadable records.
      crop: side of the centred square that is looked at, as a share of the image's shorter side.
      num_threads: threads that read ahead two batches; 0 reads in the caller's thread, best for arrays in memory.

    Yields:
      {"image": uint8 [b, P, P, 3], "label": int32 [b], "index": int32 [b], "mask": bool [b]}; index is the record's
      number, 0 where the mask is False.

    Raises:
      ValueError: no records, too many unreadable ones, or only such.
    """
    _check_not_empty(source)

    def read(index: np.integer) -> Batch | None:
        batch = _read(source.records, int(index), image_size_px, skipped, crop)
        return None if batch is None else {**batch, "index": np.asarray(index, np.int32)}

    examples = grain.MapDataset.range(len(source.records)).map(read)
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=num_threads + 2 * batch_size)
    for batch in examples.to_iter_dataset(options).batch(batch_size):
        yield _fill_up(batch, batch_size)
    skipped.finish()


def _fill_up(batch: Batch, batch_size: int) -> Batch:
    count = len(batch["label"])
    filled = {
        name: np.concatenate([values, np.zeros((batch_size - count, *values.shape[1:]), values.dtype)])
        for name, values in batch.items()
    }
    return {**filled, "mask": np.arange(batch_size) < count}
