"""What a process prints, in a bucket: a descriptor needs a file of this machine, whose new bytes are added to a log."""

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from typing import TextIO

from absl import logging

from vmoe_inform.storage._bucket_log import BucketLog

_SECONDS = 5.0  # between two additions
_MOST_BYTES = 1 << 24  # of one


@contextlib.contextmanager
def output_of(log: BucketLog) -> Iterator[TextIO]:
    """A temporary file to write to, which a thread adds to the log; a log that cannot be written is a warning."""
    ended = threading.Event()
    with tempfile.TemporaryFile("a+", encoding="utf-8") as file:
        thread = threading.Thread(target=_follow, args=(file.fileno(), log, ended), daemon=True)
        thread.start()
        try:
            yield file
        finally:
            file.flush()
            ended.set()
            thread.join()
            try:
                log.flush()
            except OSError as problem:
                logging.warning("%s", problem)


def _follow(descriptor: int, log: BucketLog, ended: threading.Event) -> None:
    """Adds what the file has, until it has ended and all is added."""
    added, is_last = 0, False
    while not is_last:
        is_last = ended.wait(_SECONDS)
        while content := os.pread(descriptor, _MOST_BYTES, added):
            added += len(content)
            with contextlib.suppress(OSError):  # the log keeps them, and brings them with the next ones
                log.add(content)
