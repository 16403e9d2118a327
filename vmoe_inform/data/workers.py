"""Worker processes that make batches, and how they end."""

import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import grain
from absl import flags

from vmoe_inform import checks

_ENDED = "Worker process was terminated unexpectedly"  # grain's words
_SHARED_MEMORY = "/dev/shm"
CHUNKS_OF_A_WORKER = 6  # measured: two in its queue, those that it makes, and those on the way to the batch
_Element = TypeVar("_Element")


def nothing() -> None:
    """What a worker process calls first that needs no preparation."""


def in_workers(
    chunks: grain.IterDataset, num_workers: int, chunk_bytes: int, begin_worker: Callable[[], None] = nothing
) -> grain.IterDataset:
    """The same made by processes, each of which keeps two chunks ready.

    Args:
      chunks: what to make.
      num_workers: processes, >= 1.
      chunk_bytes: of the arrays of a chunk, which are sent through shared memory.
      begin_worker: what a worker calls first; it is pickled.

    Raises:
      ValueError: the shared memory is too small, in which the workers would die one after the other.
    """
    check_shared_memory(num_workers, CHUNKS_OF_A_WORKER * chunk_bytes)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain looks at flags of its own, which only command lines parse
    options = grain.MultiprocessingOptions(num_workers, per_worker_buffer_size=2)
    return chunks.mp_prefetch(options, worker_init_fn=functools.partial(_begin_grains, begin_worker))


def check_shared_memory(num_workers: int, each: int) -> None:
    """Raises ValueError unless ``each`` bytes for every worker are free."""
    try:
        found = os.statvfs(_SHARED_MEMORY)
    except OSError:  # another system, which has another place for it
        return
    free = found.f_bavail * found.f_frsize
    if num_workers * each > free:
        raise checks.error(
            "data.num_workers",
            f"at most {free // each}, at {each / 2**20:.0f} MiB each of the {free / 2**20:.0f} MiB that are free in "
            f"{_SHARED_MEMORY} (docker run --shm-size; Kubernetes: an emptyDir of medium Memory)",
            num_workers,
        )


def _begin_grains(begin_worker: Callable[[], None], index: int, count: int) -> None:
    begin(begin_worker)


def begin(begin_worker: Callable[[], None]) -> None:
    """Makes a worker ignore signals to all processes of the run, after which the parent still finishes its step.

    A worker ends when its parent ends it or is gone.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    begin_worker()
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
            raise worker_ended(problem) from None
        yield element


def worker_ended(problem: Exception) -> ChildProcessError:
    """What to raise when a worker has ended."""
    expected = "worker processes (data.num_workers) that keep running; has this machine too little memory?"
    return ChildProcessError(str(checks.error("data", expected, str(problem))))
