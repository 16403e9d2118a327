"""The minutes that the check has."""

import time
from collections.abc import Callable


class OutOfTimeError(Exception):
    """What is left of a part does not fit into its time; the message says what is left out."""


class Clock:
    """Time until a deadline."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.perf_counter):
        """Args:
        seconds: until the deadline.
        now: a clock of seconds.
        """
        self._now = now
        self._end = now() + seconds

    @property
    def left(self) -> float:
        """Seconds until the deadline, at least 0."""
        return max(0.0, self._end - self._now())

    def share(self, share: float) -> "Clock":
        """A clock with an earlier deadline: after this share of what is left."""
        return Clock(share * self.left, self._now)

    def need(self, seconds: float, left_out: str) -> None:
        """Raises OutOfTimeError, which says what is left out, unless that many seconds are left."""
        if self.left <= seconds:
            raise OutOfTimeError(f"out of time: {left_out}")
