"""TensorBoard's event files.

They are written here as bytes. The libraries' writers have a thread that writes from a queue. When it fails, as on a
full disk, the queue fills up and the next metric waits forever.
"""

import contextlib
import socket
import struct
import time
from collections.abc import Mapping

from tensorboardX import summary
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c

from vmoe_inform import checks, storage
from vmoe_inform.training.writers.base import WRITERS, Opening, Writer


@WRITERS.register("tensorboard")
class TensorBoard(Writer):
    """Writes the events of each process into a file of its own in DIR/tensorboard.

    Raises:
      ValueError: ``tensorboard`` is a link or a file.
    """

    when_failing = "the numbers are kept until they fit"

    def __init__(self, opening: Opening):
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.from_step_{opening.start_step}"
        path = opening.workdir / "tensorboard" / name
        storage.check_folders(path.parent, opening.workdir)
        self._file = storage.log(path, header=_header(), within=opening.workdir)
        with contextlib.suppress(OSError, checks.InputError):  # the first event says so again
            self._file.add(_start(opening.start_step + 1))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """An event for each metric."""
        self._file.add(_scalars(step, metrics))

    def flush(self) -> None:
        """See :class:`~vmoe_inform.storage.Log`."""
        self._file.flush()

    def close(self) -> None:
        """Events that cannot be written are lost: metrics.jsonl has the same numbers."""
        if self._file.waiting:
            with contextlib.suppress(OSError, checks.InputError):
                self._file.flush()


def _header() -> bytes:
    """What a file begins with."""
    return _record(event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2"))


def _start(step: int) -> bytes:
    """TensorBoard drops what it has read at or after this step."""
    session = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    return _record(event_pb2.Event(wall_time=time.time(), step=step, session_log=session))


def _scalars(step: int, values: Mapping[str, float]) -> bytes:
    """Metrics by name, an event for each."""
    now = time.time()
    events = (
        event_pb2.Event(wall_time=now, step=step, summary=summary.scalar(name, value)) for name, value in values.items()
    )
    return b"".join(_record(event) for event in events)


def _record(event: event_pb2.Event) -> bytes:
    """TFRecord: the length, its CRC, the data, their CRC."""
    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))
