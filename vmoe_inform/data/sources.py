"""Where labelled images come from: random-access records, by the name that ``config.data.source`` gives."""

from vmoe_inform.config import DataConfig
from vmoe_inform.data import classes
from vmoe_inform.data.images import digits, folder, idx_files, tfds  # noqa: F401  (they register their sources)
from vmoe_inform.data.images.trees import IMAGE_SUFFIXES
from vmoe_inform.data.records import SOURCES, ArrayRecords, Record, Records, Source, SourceFunction

__all__ = [
    "IMAGE_SUFFIXES",
    "SOURCES",
    "ArrayRecords",
    "Record",
    "Records",
    "Source",
    "SourceFunction",
    "load",
]


def load(data: DataConfig, split: str) -> Source:
    """The split ``split`` of ``data.source``; its labels number ``data.class_names``, where there are some.

    Raises:
      ValueError: an unknown source or split, damaged files, or other classes than ``data.class_names``.
      FileNotFoundError: data that are not where the config says; the message says what is expected there.
    """
    return classes.in_order(SOURCES[data.source](data, split), data.class_names, f"classes of split {split!r}")
