"""Work on several threads: results in order, and nothing begun that is unlikely to be done in time."""

import itertools
import threading

import pytest

from vmoe_inform.performance.accelerator import parallel
from vmoe_inform.performance.accelerator.clock import Clock, OutOfTimeError


def test_results_come_in_the_order_of_the_items(monkeypatch):
    monkeypatch.setattr(parallel.os, "cpu_count", lambda: 3)
    last_is_done = threading.Event()

    def work(number):
        if number == 2:
            last_is_done.set()
        else:
            last_is_done.wait()  # the first two end after the third, and all three are worked on at a time
        return 10 * number

    found = parallel.in_order(work, range(3), clock=Clock(1e6), name=str)
    assert list(found) == [(0, 0), (1, 10), (2, 20)]


def test_what_there_is_no_time_for_is_said_after_what_is_done(monkeypatch):
    monkeypatch.setattr(parallel.os, "cpu_count", lambda: 1)
    clock = Clock(2.5, itertools.count(0.0).__next__)  # each look at it is a second
    found = []
    with pytest.raises(OutOfTimeError, match="out of time: c, d"):
        found.extend(parallel.in_order(str.upper, "abcd", clock=clock, name=str))
    assert found == [("a", "A"), ("b", "B")]
    with pytest.raises(OutOfTimeError, match="out of time: a, b"):
        list(parallel.in_order(str.upper, "ab", clock=Clock(5.0), name=str, least_seconds=5.0))
