"""TensorBoard's event files, as bytes: whoever writes them decides when, and what follows where that fails.

Every writer of the libraries has a thread that writes from a queue. When it fails, as on a full disk, the queue fills
up and the next number is waited for without end.
"""

import struct
import time
from collections.abc import Mapping

from tensorboardX import summary
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c


def header() -> bytes:
    """What a file begins with."""
    return _record(event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2"))


def start(step: int) -> bytes:
    """TensorBoard drops what it has read at or after this step."""
    session = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    return _record(event_pb2.Event(wall_time=time.time(), step=step, session_log=session))


def scalars(step: int, values: Mapping[str, float]) -> bytes:
    """Numbers by name, an event for each."""
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
