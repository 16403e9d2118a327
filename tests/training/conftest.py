"""What several of these tests use."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """What is warned of; absl's logger does not hand records on to pytest by itself."""
    found: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())
    logger = logging.getLogger("absl")
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)
