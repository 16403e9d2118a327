"""Who is told how an evaluation goes on, so as to notice when it does not."""

from typing import Protocol


class Watch(Protocol):
    """Such as :class:`vmoe_inform.sharding.watchdog.Watchdog`."""

    def expect_pause(self) -> None:
        """What comes next may be a compilation, or anything else that takes long."""

    def finished(self, what: str) -> None:
        """Something was finished."""


class NoWatch:
    """Nobody is told."""

    def expect_pause(self) -> None:
        """See :class:`Watch`."""

    def finished(self, what: str) -> None:
        """See :class:`Watch`."""
