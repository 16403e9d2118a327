"""Keeps orbax's traces of failed saves out of the log: a save that fails is one line, ``SavingError``."""

import logging as standard_logging
import traceback

from absl import logging


def silence() -> None:
    """Orbax logs a trace in each thread and task that a failure passes, some of them when the process ends."""
    for logger in (logging.get_absl_logger(), standard_logging.getLogger("asyncio")):
        logger.addFilter(_is_no_trace_of_orbax)


def _is_no_trace_of_orbax(record: standard_logging.LogRecord) -> bool:
    frames = traceback.extract_tb(record.exc_info[2]) if record.exc_info else ()
    words = (record.pathname, record.getMessage(), *(frame.filename for frame in frames))
    return not record.exc_info or not any("orbax" in word for word in words)
