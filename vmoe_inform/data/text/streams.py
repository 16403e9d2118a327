"""A corpus as contiguous streams, one for each row of a batch: row r continues where row r of the batch before ended.

So a model may carry memory from batch to batch. Training never ends: the corpus is a circle, on which the rows start
evenly spread. A row that reaches the start of the next row reads on there, and the end of the corpus is followed by its
beginning. No token is skipped at the end of an epoch, and all are read equally often. Memory is carried over that end,
which windows span too; a row passes it once in R epochs. Windows begin elsewhere in every epoch, unless N divides T.
Evaluation has each token of the corpus as a target once.

What a batch holds depends on its number alone. So a run resumes exactly, also on another number of processes.
"""

import dataclasses
import math
import sys
from collections.abc import Callable, Iterator

import grain
import numpy as np
from jaxtyping import Int

from vmoe_inform import checks
from vmoe_inform.config import DataConfig
from vmoe_inform.data import batches
from vmoe_inform.data.skipped import SKIPPED, SkippedRecords
from vmoe_inform.data.training_batches import Batch, TrainingBatches

_BYTES_A_TOKEN = 2 * 4 + 1  # the token and its target, and whether it is real

# ------------------------------------------------------------------------------------------------------------ training


def training_batches(
    ids: Int[np.ndarray, " T"],
    *,
    num_tokens: int,
    batch_size: int,
    seed: int,
    data: DataConfig,
    skipped: SkippedRecords,
    process_index: int = 0,
    process_count: int = 1,
) -> TrainingBatches:
    """Endless batches of the rows of this process, whose position a checkpoint keeps.

    Row r of R reads T tokens from ``(offset + r * T // R) % T`` on in each of R epochs; the seed draws the offset. All
    rows together read the corpus once in T / (R * N) batches.

    Args:
      ids: tokens of the corpus.
      num_tokens: N, tokens of a row.
      batch_size: b, rows of a batch of this process; R = b * ``process_count``.
      seed: of the offset, 0 to 2^32 - 1.
      data: threads, worker processes and batches kept ready, as :func:`vmoe_inform.data.batches.training_batches`
        takes them. Each worker process gets a copy of the corpus.
      skipped: counts the rows read; none of them is unreadable.
      process_index, process_count: the share of this process.

    Returns:
      iterator of {"tokens": int32 [b, N], "targets": int32 [b, N]}; the target of a token is the token after it.

    Raises:
      ValueError: a corpus so short that two rows of a batch would overlap, or a seed that is too large.
    """
    batches.check_seed_and_share(seed, process_index, process_count)
    num_rows = batch_size * process_count
    if len(ids) < max(2, num_rows * num_tokens):
        expected = f"a corpus of at least train.batch_size x model.num_tokens = {num_rows} x {num_tokens} tokens"
        raise checks.error("data", expected, f"{len(ids):,} tokens")
    offset = int(np.random.default_rng(seed).integers(len(ids)))
    positions = grain.MapDataset.range(sys.maxsize)
    return batches.training_batches(
        positions.map(_Circle(_int32(ids), num_tokens, num_rows, offset)),
        batch_size=batch_size,
        data=data,
        example_bytes=num_tokens * _BYTES_A_TOKEN,
        skipped=skipped,
        process_index=process_index,
        process_count=process_count,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Circle:
    """Windows of the corpus in the order of training: position = batch * rows + row."""

    ids: Int[np.ndarray, " T"]
    num_tokens: int
    num_rows: int
    offset: int

    def __call__(self, position: int) -> batches.Example:
        batch, row = divmod(int(position), self.num_rows)
        length = len(self.ids)
        begin = (self.offset + row * length // self.num_rows + batch * self.num_tokens) % length
        window = self.ids[begin : begin + self.num_tokens + 1]
        if len(window) <= self.num_tokens:
            window = np.concatenate([window, self.ids[: self.num_tokens + 1 - len(window)]])
        return {"tokens": window[:-1], "targets": window[1:], SKIPPED: ()}


# ---------------------------------------------------------------------------------------------------------- evaluation


def num_windows(num_targets: int, num_rows: int, num_tokens: int) -> int:
    """Batches of an evaluation, W: windows of N tokens that hold the longest of R rows, ``ceil(ceil(T / R) / N)``."""
    return math.ceil(math.ceil(num_targets / num_rows) / num_tokens)


def evaluation_batches(
    ids: Int[np.ndarray, " T"],
    *,
    before: int,
    num_tokens: int,
    batch_size: int,
    skipped: SkippedRecords,
    inputs: Int[np.ndarray, " T"] | None = None,
    num_threads: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    total: Callable[[int], int] = int,
) -> Iterator[Batch]:
    """Every token of a corpus once as a target, in contiguous rows that are read side by side.

    Row r of R has the targets from ``r * ceil(T / R)`` on. Its first input is the token before, as are those of all
    windows. What a row lacks in its last window, or in all of them, is filled: token and target 0, not in
    ``target_mask``. So R decides with how little context a row begins, and perplexities of other R differ slightly.

    Args:
      ids: tokens of the corpus, which are the targets.
      before: token that takes the place of the one before the first: the end of a line.
      num_tokens: N, tokens of a window.
      batch_size: b, rows of a batch of this process; R = b * ``process_count``.
      skipped: counts the windows read; none of them is unreadable.
      inputs: what the model is given in place of ``ids``, such as attacked words; None: ``ids`` themselves.
      num_threads: threads that read ahead; 0 reads in the caller's thread.
      process_index, process_count: the share of this process; all make the same number of batches.
      total: the sum of a number over all processes.

    Yields:
      {"tokens": int32 [b, N], "targets": int32 [b, N], "target_mask": bool [b, N], "index": int32 [b],
      "mask": bool [b]}; index is row * W + window (see :func:`num_windows`), and the mask is False where no target is.

    Raises:
      ValueError: fewer tokens than rows, or other inputs than tokens.
    """
    num_rows = batch_size * process_count
    if len(ids) < num_rows:
        raise checks.error("evaluation.batch_size", f"at most {len(ids)}, one row a token of the corpus", num_rows)
    if inputs is not None and inputs.shape != ids.shape:
        raise checks.error("inputs", f"shape {ids.shape}, one for each target", inputs.shape)
    windows = num_windows(len(ids), num_rows, num_tokens)
    given = _int32(ids if inputs is None else inputs)
    return batches.evaluation_batches(
        _Windows(given, _int32(ids), before, num_tokens, num_rows, windows),
        num_examples=num_rows * windows,
        batch_size=batch_size,
        skipped=skipped,
        num_threads=num_threads,
        num_workers=0,  # they would get a copy of the corpus each, and be slower
        process_index=process_index,
        process_count=process_count,
        total=total,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Windows:
    """Windows of the corpus in the order of evaluation: position = window * rows + row."""

    inputs: Int[np.ndarray, " T"]
    targets: Int[np.ndarray, " T"]
    before: int
    num_tokens: int
    num_rows: int
    windows: int

    def __call__(self, position: int) -> batches.Example:
        window, row = divmod(int(position), self.num_rows)
        row_length = math.ceil(len(self.targets) / self.num_rows)
        begin = row * row_length + window * self.num_tokens
        count = min(begin + self.num_tokens, (row + 1) * row_length, len(self.targets)) - begin
        tokens, targets = np.zeros((2, self.num_tokens), np.int32)
        if count > 0:
            targets[:count] = self.targets[begin : begin + count]
            tokens[0] = self.inputs[begin - 1] if begin > 0 else self.before
            tokens[1:count] = self.inputs[begin : begin + count - 1]
        return {
            "tokens": tokens,
            "targets": targets,
            "target_mask": np.arange(self.num_tokens) < count,
            "index": np.asarray(row * self.windows + window, np.int32),
            "mask": np.asarray(count > 0),
            SKIPPED: (),
        }


def _int32(ids: Int[np.ndarray, " T"]) -> Int[np.ndarray, " T"]:
    return np.ascontiguousarray(ids, np.int32)
