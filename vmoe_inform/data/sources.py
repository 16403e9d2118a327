"""Where labelled images come from: random-access records, by the name that ``config.data.source`` gives.

A run learns from :func:`training` and is measured on :func:`test`. With ``data.validation_share`` both are parts of the
training split, so that settings can be chosen without a look at the test images.
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Bool, Int

from vmoe_inform import checks
from vmoe_inform.config import ImageDataConfig
from vmoe_inform.data import classes
from vmoe_inform.data.held_out import held_out
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
    "evenly",
    "load",
    "test",
    "training",
]


def load(data: ImageDataConfig, split: str) -> Source:
    """The split ``split`` of ``data.source``; its labels number ``data.class_names``, where there are some.

    Raises:
      ValueError: an unknown source or split, damaged files, or other classes than ``data.class_names``.
      FileNotFoundError: data that are not where the config says; the message says what is expected there.
    """
    return classes.in_order(SOURCES[data.source](data, split), data.class_names, f"classes of split {split!r}")


def training(data: ImageDataConfig) -> Source:
    """The images that a run learns from: ``data.train_split`` without those held out for validation.

    Raises:
      ValueError, FileNotFoundError: as :func:`load`; or ``data.validation_share`` leaves no image on one side.
    """
    source = load(data, data.train_split)
    return _part(source, ~held_out(len(source.records), data.validation_share), data)


@functools.lru_cache(maxsize=1)
def test(data: ImageDataConfig) -> Source:
    """The clean images that a run is measured on: ``data.test_split``, or those held out of ``data.train_split``.

    Those of the last call are kept: everything that evaluates asks for them, and 50,000 files take a while to list.

    Raises:
      ValueError, FileNotFoundError: as :func:`training`.
    """
    if data.validation_share == 0:
        return load(data, data.test_split)
    source = load(data, data.train_split)
    return _part(source, held_out(len(source.records), data.validation_share), data)


def evenly(source: Source, number: int | None) -> Int[np.ndarray, " k"]:
    """Numbers of ``number`` images, evenly over the set; None, or more than there are: all.

    Many sets are sorted by class, and their first images would show a few classes only.
    """
    total = len(source.records)
    number = total if number is None else min(number, total)
    return np.arange(number) * total // number


def _part(source: Source, chosen: Bool[np.ndarray, " n"], data: ImageDataConfig) -> Source:
    if chosen.all():
        return source
    if not chosen.any():
        expected = f"a share that leaves images of split {data.train_split!r} ({len(chosen)}) on both sides"
        raise checks.error("data.validation_share", expected, data.validation_share)
    return dataclasses.replace(source, records=source.records.selected(np.flatnonzero(chosen)))
