"""Worker processes that make batches, and their ends."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from typing import TypeVar

import cv2
import grain
from absl import flags

from vmoe_inform import checks

_ENDED = "Worker process was terminated unexpectedly"  # grain's words
_Element = TypeVar("_Element")


def in_workers(chunks: grain.IterDataset, num_workers: int) -> grain.IterDataset:
    """The same made by processes, each of which keeps two chunks ready."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain looks at flags of its own, which only command lines parse
    options = grain.MultiprocessingOptions(num_workers, per_worker_buffer_size=2)
    return chunks.mp_prefetch(options, worker_init_fn=_begin_worker)


def _begin_worker(index: int, count: int) -> None:
    """A worker ends when its parent says so or is gone, not by a signal to all processes of the run: the parent takes
    that for the wish to finish its step and save."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    cv2.setNumThreads(1)  # the workers are the parallelism
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def until_a_worker_ends(iterator: Iterator[_Element]) -> Iterator[_Element]:
    """The same elements.

    Raises:
      ChildProcessError: a worker process has ended, such as one that was killed for the memory that it took.
    """
    while True:
        try:
            element = next(iterator)
        except StopIteration:
            return
        except RuntimeError as problem:
            if _ENDED not in str(problem):
                raise
            expected = "worker processes (data.num_workers) that go on; has this machine too little memory?"
            raise ChildProcessError(str(checks.error("data", expected, str(problem)))) from None
        yield element
