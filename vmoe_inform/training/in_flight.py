"""Steps in flight: how far the host may be ahead of the devices, and when each step ended."""

import collections
import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

_MOST = 4  # steps ahead; they hide short delays of the host, and each has a batch in the devices' memory


@dataclasses.dataclass(frozen=True)
class FinishedStep:
    """A step whose metrics can be read without waiting.

    Attributes:
      step: its number, from 1.
      metrics: as the step returned them.
      seconds: from the end of the step before to its own; None for the first of a process, which is compiled.
      data_wait_seconds: how much of that the host waited for a batch of data; None as ``seconds``.
    """

    step: int
    metrics: Mapping[str, Any]
    seconds: float | None
    data_wait_seconds: float | None


class StepsInFlight:
    """A queue of started steps, from which finished ones are taken in order.

    The queue never holds the devices up. Whenever the host has started a step, it checks which earlier ones have ended.
    It waits for the oldest only if enough others are left for the devices. So the times are exact where the devices are
    the bottleneck. Where the host or the data are, a step's end is noticed when the next is started. Steps that are
    found together share the time since the one before.
    """

    def __init__(self, most: int = _MOST, clock: Callable[[], float] = time.perf_counter):
        """Args:
        most: steps that may be unfinished when :meth:`add` returns.
        clock: seconds.
        """
        self._most = most
        self._clock = clock
        self._started: collections.deque[tuple[int, Mapping[str, Any]]] = collections.deque()
        self._since: float | None = None  # when the last step ended
        self._waited = 0.0  # for data, since then

    @contextlib.contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Around taking the next batch."""
        begin = self._clock()
        with jax.profiler.TraceAnnotation("wait for data"):
            yield
        self._waited += self._clock() - begin

    def add(self, step: int, metrics: Mapping[str, Any]) -> list[FinishedStep]:
        """Takes a step that was just started; returns those that have ended since the last call."""
        self._started.append((step, metrics))
        finished = []
        while len(self._started) > self._most or (self._started and _is_done(self._started[0][1])):
            finished += self._take()
        return finished

    def finish(self) -> list[FinishedStep]:
        """Waits for all steps that were started, and returns them."""
        finished = []
        while self._started:
            finished += self._take()
        return finished

    def restart_clock(self) -> None:
        """After something that belongs to no step, such as an evaluation, with no step unfinished."""
        if self._since is not None:
            self._since = self._clock()
        self._waited = 0.0

    def _take(self) -> list[FinishedStep]:
        """The first steps: those that have ended already, or else the first one, when it has."""
        taken = []
        while self._started and _is_done(self._started[0][1]):
            taken.append(self._started.popleft())
        if not taken:
            taken.append(self._started.popleft())
            jax.block_until_ready(taken[0][1])
        now = self._clock()
        seconds = waited = None
        if self._since is not None:
            seconds, waited = (now - self._since) / len(taken), self._waited / len(taken)
        self._since, self._waited = now, 0.0
        return [FinishedStep(step, metrics, seconds, waited) for step, metrics in taken]


def _is_done(metrics: Mapping[str, Any]) -> bool:
    return all(leaf.is_ready() for leaf in jax.tree.leaves(metrics))
