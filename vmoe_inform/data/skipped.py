"""Unreadable records: counts them, logs their names, and stops the run when there are too many."""

import dataclasses
import threading
from collections.abc import Callable, Sequence

from absl import logging

from vmoe_inform import checks

SKIPPED = "skipped"  # key in examples and batches, like "image" and "label": the number of unreadable records
_LOGGED_IN_FULL = 5
_RECORDS_BEFORE_JUDGING = 100


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """A record that could not be read.

    Attributes:
      name: of the record.
      problem: why, in words.
    """

    name: str
    problem: str


class SkippedRecords:
    """Counts records that could not be read, and stops the run when they are too many. Safe to share by threads.

    A record that is read again in a later epoch counts again, so that the share is that of the data set. Each process
    of a run judges its own records, which come in random order. To judge all together, the processes would have to wait
    for each other at every batch.

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

    def readable(self, number: int = 1) -> None:
        """Counts records that were read."""
        with self._lock:
            self.read += number

    def skip(self, name: str, problem: Exception | str) -> None:
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

    def add(self, readable: int, unreadable: Sequence[Unreadable]) -> None:
        """Counts the records of a batch, in this order.

        Raises:
          ValueError: as :meth:`skip`.
        """
        self.readable(readable)
        for record in unreadable:
            self.skip(record.name, record.problem)

    def finish(self, total: Callable[[int], int] = int) -> None:
        """Judges a pass over the data when it is over.

        Args:
          total: the sum of a number over all processes that share the data out; by default this one has all of them.

        Raises:
          ValueError: more of the records than ``max_share`` could not be read, though one may always be left out; or
            not one could be read.
        """
        count, read = total(self.count), total(self.read)
        if read and (count == read or count > max(1, self.max_share * read)):
            self._fail(count, read, "all", None)

    def _fail(self, count: int, read: int, name: str, problem: Exception | str | None) -> None:
        last = f", the last one {name}: {problem}" if problem else ""
        expected = f"at most {self.max_share:.2%} unreadable records (data.max_skipped_share), and some readable ones"
        raise checks.error("data", expected, f"{count} unreadable of {read}{last}")
