"""Where labelled images come from: random-access records, by the name that ``config.data.source`` gives."""

from vmoe_inform.config import DataConfig
from vmoe_inform.data import digits, idx_files, image_folder, tfds  # noqa: F401  (they register their sources)
from vmoe_inform.data.records import SOURCES, ArrayRecords, Record, Records, Source, SourceFunction
from vmoe_inform.data.trees import IMAGE_SUFFIXES

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
    """The split ``split`` of ``data.source``.

    Raises:
      ValueError: an unknown source or split, or damaged files.
      FileNotFoundError: data that are not where the config says; the message says what is expected there.
    """
    return SOURCES[data.source](data, split)
