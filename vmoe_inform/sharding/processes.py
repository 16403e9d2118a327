"""The processes of one run: joining them, the number of this one, and agreeing on values.

A run of one process never gets into touch with any of it.
"""

import itertools
import os
import re
import sys
import threading
from collections.abc import Callable
from typing import Annotated, TypeAlias

import jax
import numpy as np
from jax._src import distributed
from jax.experimental import multihost_utils

from vmoe_inform import checks
from vmoe_inform.exit_codes import MISSING_PROCESS
from vmoe_inform.sharding import launchers, rendezvous
from vmoe_inform.sharding.rendezvous import MissingProcessError

Count: TypeAlias = Annotated[int, checks.Bound(at_least=1, at_most=2**16)]  # processes of a run
Number: TypeAlias = Annotated[int, checks.Bound(at_least=0, below=2**16)]  # of one of them

_REASON_LENGTH = 300
_SAID = itertools.count()  # of what process 0 has said: the same in all processes
_LONGEST_MILLISECONDS = 24 * 3600 * 1000  # to wait for process 0: the watchdog ends it earlier
_GRACE_SECONDS = 30.0  # that JAX gets at least to connect processes that have met
# What gloo, the devices and JAX's coordination say of a process that is not there any more.
_GONE = re.compile(
    "Gloo .* failed|[Cc]onnection (closed|reset|refused)|Broken pipe|Socket closed|[Hh]eartbeat|UNAVAILABLE"
)

__all__ = [
    "MissingProcessError",
    "any_process",
    "from_main",
    "index_and_count",
    "initialize",
    "is_main",
    "missing",
    "total",
]


def initialize(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout_seconds: float = 300.0,
) -> None:
    """Joins the processes of a run, before anything starts JAX's devices; does nothing if there is only one.

    With arguments, processes that were started by hand meet at process 0's address. Without, the environment states
    whether there are others (:mod:`vmoe_inform.sharding.launchers`), and JAX finds them.

    Args:
      coordinator_address: HOST:PORT of process 0, which it can open.
      num_processes: of the run; 1 needs neither of the others, in any environment.
      process_id: number of this process, from 0.
      timeout_seconds: how long to wait for all. If JAX itself waits longer, this process ends with the exit code
        ``MISSING_PROCESS`` and one line.

    Raises:
      ValueError: some of the three without the others, or numbers that contradict each other. Also if the environment
        is that of several processes that JAX cannot join.
      MissingProcessError: a process did not join in time.
    """
    checks.conform("--initialization_timeout_seconds", timeout_seconds, checks.Seconds)
    # JAX would take SIGTERM for itself; the loop turns it into a saved checkpoint, and agrees on the step by itself.
    jax.config.update("jax_enable_preemption_service", False)
    by_hand = (coordinator_address, num_processes, process_id)
    if by_hand == (None, None, None):
        if launchers.count_processes(os.environ) > 1:
            with _Deadline("processes: expected all workers of this job to start", timeout_seconds):
                jax.distributed.initialize(initialization_timeout=round(timeout_seconds + 2 * _GRACE_SECONDS))
        return
    if by_hand == (None, 1, None):
        return
    if coordinator_address is None or num_processes is None or process_id is None:
        names = "--coordinator_address, --num_processes and --process_id"
        raise checks.error("processes", f"all of {names}, or none", by_hand)
    rendezvous.parse_address(coordinator_address)
    if num_processes < 1:
        raise checks.error("--num_processes", "an integer >= 1", num_processes)
    if not 0 <= process_id < num_processes:
        raise checks.error("--process_id", f"0 to {num_processes - 1}", process_id)
    if num_processes == 1:
        return
    rendezvous.meet(coordinator_address, num_processes, process_id, timeout_seconds)
    seconds = max(timeout_seconds, _GRACE_SECONDS)
    with _Deadline(f"processes: expected all {num_processes} to connect through {coordinator_address}", seconds):
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            cluster_detection_method="deactivate",  # these processes share this machine's devices as they were told to
            initialization_timeout=round(seconds + _GRACE_SECONDS),
        )


class _Deadline:
    """Ends the process, with one line, if the block takes longer: JAX waits in C++ and would abort with a trace."""

    def __init__(self, expected: str, seconds: float):
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True
        self._message = f"error: {expected} within {seconds:g} s; received no word of some"

    def _end(self) -> None:
        print(self._message, file=sys.stderr, flush=True)
        os._exit(MISSING_PROCESS)

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


# ----------------------------------------------------------------------------------------------- index and agreement


def index_and_count() -> tuple[int, int]:
    """Number of this process, and how many there are; starts no devices, as ``jax.process_index`` does."""
    if not jax.distributed.is_initialized():
        return 0, 1
    # JAX has no public function for what it has found out by now.
    state = distributed.global_state
    return state.process_id, state.num_processes or 1


def is_main() -> bool:
    """Whether this is the process that writes and prints what all of them know."""
    return index_and_count()[0] == 0


def any_process(flag: bool) -> bool:
    """Whether ``flag`` holds in any process; all of them have to call this."""
    return bool(total(int(flag)))


def total(count: int) -> int:
    """The sum of a number over all processes; all of them have to call this."""
    if index_and_count()[1] == 1:
        return count
    return int(np.sum(multihost_utils.process_allgather(np.int32(count))))


def from_main(say: Callable[[], str]) -> str:
    """The value of process 0, in every process; all of them have to call this. Starts no devices.

    Args:
      say: called in process 0 alone; an error there is for the caller to put into words, since the others wait.

    Raises:
      MissingProcessError: process 0 has gone.
    """
    index, count = index_and_count()
    if count == 1:
        return say()
    key = f"vmoe_inform/said_{next(_SAID)}"
    client = distributed.global_state.client
    assert client is not None  # there are several processes, which have met
    try:
        if index == 0:
            words = say()
            client.key_value_set(key, words)
            return words
        return str(client.blocking_key_value_get(key, _LONGEST_MILLISECONDS))
    except jax.errors.JaxRuntimeError as problem:
        raise missing(problem) or problem from None


def missing(problem: BaseException) -> MissingProcessError | None:
    """The meaning of a JAX error in one of several processes, if it is that another has gone."""
    if isinstance(problem, MissingProcessError):
        return problem
    index, count = index_and_count()
    if count == 1 or _GONE.search(str(problem)) is None:
        return None
    reason = " ".join(str(problem).split())[:_REASON_LENGTH]
    return MissingProcessError(f"processes: expected all {count} to continue; process {index} received {reason!r}")
