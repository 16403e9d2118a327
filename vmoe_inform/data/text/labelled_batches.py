"""Labelled texts as batches: one text a row, filled up to the length of a row."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Self

import grain
import numpy as np
from jaxtyping import Int

from vmoe_inform import checks
from vmoe_inform.config import DataConfig
from vmoe_inform.data import batches
from vmoe_inform.data.skipped import SKIPPED, SkippedRecords
from vmoe_inform.data.training_batches import Batch, TrainingBatches

_BYTES_A_TOKEN = 4 + 1  # the token, and whether it is real


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledTokens:
    """Texts of one split as tokens.

    Attributes:
      ids: tokens of all texts, one after the other.
      starts: where each text begins in ``ids``, and the end of the last.
      labels: of the texts.
    """

    ids: Int[np.ndarray, " T"]
    starts: Int[np.ndarray, " n+1"]
    labels: Int[np.ndarray, " n"]

    @classmethod
    def of(cls, texts: Sequence[Int[np.ndarray, " _"]], labels: Sequence[int] | Int[np.ndarray, " n"]) -> Self:
        """Args:
        texts: tokens of each text.
        labels: of the texts.

        Raises:
          ValueError: other labels than texts, in number.
        """
        if len(labels) != len(texts):
            raise checks.error("labels", f"{len(texts)}, one for each text", f"{len(labels)}")
        starts = np.concatenate([[0], np.cumsum([len(text) for text in texts], dtype=np.int64)])
        ids = np.concatenate([np.zeros(0, np.int32), *texts]).astype(np.int32)
        return cls(ids, starts, np.asarray(labels, np.int32))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Int[np.ndarray, " _"]:
        """The tokens of a text."""
        return self.ids[self.starts[index] : self.starts[index + 1]]

    def check(self, num_tokens: int) -> None:
        """Raises ValueError unless there is a text, and each has 1 to ``num_tokens`` tokens; names the first that has
        not."""
        if len(self) == 0:
            raise checks.error("data", "at least one text", checks.NOTHING)
        lengths = np.diff(self.starts)
        if not lengths.all():
            raise checks.error("data", "texts of at least one token", f"text {np.argmin(lengths)} (counted from 0)")
        if (longest := int(lengths.max())) > num_tokens:
            received = f"{num_tokens}, and text {np.argmax(lengths)} (counted from 0)"
            raise checks.error("model.num_tokens", f"at least the {longest} tokens of the longest text", received)


def training_batches(
    texts: LabelledTokens,
    *,
    num_tokens: int,
    batch_size: int,
    seed: int,
    data: DataConfig,
    skipped: SkippedRecords,
    process_index: int = 0,
    process_count: int = 1,
) -> TrainingBatches:
    """Endless batches of one process, whose position a checkpoint keeps.

    All processes together read every text once an epoch, in a new order each. Batches continue over the end of an
    epoch, so none is short.

    Args:
      texts: what to read.
      num_tokens: N, tokens of a row.
      batch_size: b, texts of a batch of this process.
      seed: of the order, 0 to 2^32 - 1.
      data: threads, worker processes and batches kept ready, as :func:`vmoe_inform.data.batches.training_batches`
        takes them.
      skipped: counts the texts read; none of them is unreadable.
      process_index, process_count: the share of this process.

    Returns:
      iterator of {"tokens": int32 [b, N], "token_mask": bool [b, N], "label": int32 [b]}. A text has the first places
      of its row; token 0 fills the others, which are not in the mask.

    Raises:
      ValueError: no text, an empty one or one longer than N, or a seed that is too large.
    """
    batches.check_seed_and_share(seed, process_index, process_count)
    texts.check(num_tokens)
    order = grain.MapDataset.range(len(texts)).shuffle(seed=seed).repeat()
    return batches.training_batches(
        order.map(_Rows(texts, num_tokens)),
        batch_size=batch_size,
        data=data,
        example_bytes=num_tokens * _BYTES_A_TOKEN,
        skipped=skipped,
        process_index=process_index,
        process_count=process_count,
    )


def evaluation_batches(
    texts: LabelledTokens,
    *,
    num_tokens: int,
    batch_size: int,
    skipped: SkippedRecords,
    num_threads: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    total: Callable[[int], int] = int,
) -> Iterator[Batch]:
    """Every text once, in order; rows of mask False, which have no token, fill up the last batch.

    Args:
      texts: what to read.
      num_tokens: N, tokens of a row.
      batch_size: b, of this process.
      skipped: counts the texts read; none of them is unreadable.
      num_threads: threads that read ahead; 0 reads in the caller's thread.
      process_index, process_count: the share of this process; all make the same number of batches.
      total: the sum of a number over all processes.

    Yields:
      {"tokens": int32 [b, N], "token_mask": bool [b, N], "label": int32 [b], "index": int32 [b], "mask": bool [b]};
      index is the text's number, 0 where the mask is False.

    Raises:
      ValueError: as :func:`training_batches`.
    """
    texts.check(num_tokens)
    return batches.evaluation_batches(
        _NumberedRows(_Rows(texts, num_tokens)),
        num_examples=len(texts),
        batch_size=batch_size,
        skipped=skipped,
        num_threads=num_threads,
        num_workers=0,  # the texts are in memory
        process_index=process_index,
        process_count=process_count,
        total=total,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Rows:
    """A text by its number, as a row."""

    texts: LabelledTokens
    num_tokens: int

    def __call__(self, number: int) -> batches.Example:
        text = self.texts[number]
        tokens = np.zeros(self.num_tokens, np.int32)
        tokens[: len(text)] = text
        label = np.asarray(self.texts.labels[number], np.int32)
        return {"tokens": tokens, "token_mask": np.arange(self.num_tokens) < len(text), "label": label, SKIPPED: ()}


@dataclasses.dataclass(frozen=True, eq=False)
class _NumberedRows:
    """A row with its number; beyond the last text, filler."""

    rows: _Rows

    def __call__(self, number: int) -> batches.Example:
        real = number < len(self.rows.texts)
        row = self.rows(number if real else 0)
        if not real:
            row = {**row, **{name: np.zeros_like(row[name]) for name in ("tokens", "token_mask", "label")}}
        index = np.asarray(number if real else 0, np.int32)
        return {**row, "index": index, "mask": np.asarray(real)}
