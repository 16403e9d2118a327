"""Work on several threads, most of which is a compiler's."""

import collections
import concurrent.futures
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from vmoe_inform.performance.accelerator.clock import Clock, OutOfTimeError

_MOST_THREADS = 8
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_order(
    work: Callable[[_Item], _Result],
    items: Sequence[_Item],
    *,
    clock: Clock,
    name: Callable[[_Item], str],
    least_seconds: float = 0.0,
) -> Iterator[tuple[_Item, _Result]]:
    """Yields each item with its result, in their order. Up to eight are worked on at a time.

    Args:
      work: is called from other threads.
      items: to work on.
      clock: no item is begun that is unlikely to be done in time.
      name: of an item, to say what was left out.
      least_seconds: that an item needs; the longest so far, where that is more.

    Raises:
      OutOfTimeError: after the last item that was begun, if there are others.
    """

    def timed(item: _Item) -> tuple[_Result, float]:
        start = time.perf_counter()
        result = work(item)
        return result, time.perf_counter() - start

    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    waiting, longest = collections.deque(items), least_seconds
    begun: collections.deque[tuple[_Item, concurrent.futures.Future[tuple[_Result, float]]]] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        while True:
            while waiting and len(begun) < threads and clock.left > longest:
                item = waiting.popleft()
                begun.append((item, pool.submit(timed, item)))
            if not begun:
                break
            item, future = begun.popleft()
            result, seconds = future.result()
            longest = max(longest, seconds)
            yield item, result
    if waiting:
        raise OutOfTimeError(f"out of time: {', '.join(map(name, waiting))}")
