"""Labelled text in a user's tables: SST-2, SST-5 or Banking-77 as CSV, TSV, JSON lines or Parquet."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vmoe_inform import checks
from vmoe_inform.config import TextDataConfig
from vmoe_inform.data.text import columns, files
from vmoe_inform.data.text.lines import LABELLED, LabelledTexts, existing_directory


@LABELLED.register("table")
def table(data: TextDataConfig, split: str) -> LabelledTexts:
    """The texts and labels of ``data.directory/SPLIT.csv`` (or ``.tsv``, ``.jsonl``, ``.parquet``, its shards).

    ``data.text_field`` and ``data.label_field`` name the columns. A label is a name or a number. The classes are those
    of the training split: in the order of the numbers, else in alphabetical order.

    Raises:
      FileNotFoundError: a missing folder or file.
      ValueError: a row without text or label, a label that the training split does not have, or damaged files.
    """
    texts, labels = _read(data, split, [data.text_field, data.label_field])
    known = data.class_names or class_names(labels if split == data.train_split else _training_labels(data))
    numbers = {name: number for number, name in enumerate(known)}
    unknown = sorted(set(labels) - numbers.keys())
    if unknown:
        raise checks.error(f"labels of split {split!r}", f"the {len(known)} classes of training", unknown[:5])
    return LabelledTexts(texts, np.asarray([numbers[label] for label in labels], np.int32), known, "table")


def class_names(labels: Sequence[str]) -> tuple[str, ...]:
    """The different labels: numbers in their order, else names in alphabetical order."""
    names = set(labels)
    return tuple(sorted(names, key=int) if all(name.isdecimal() for name in names) else sorted(names))


def label_name(value: Any, place: str) -> str:
    """A label as the name of its class.

    Raises:
      ValueError: there is none, as in test splits whose labels are not public; names the ``place``.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    name = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if name in ("", "-1"):
        raise checks.error(place, "a label (data.label_field); some published test splits have none", value)
    return name


def _training_labels(data: TextDataConfig) -> list[str]:
    return _read(data, data.train_split, [data.label_field])[0]


def _read(data: TextDataConfig, split: str, fields: Sequence[str]) -> list[list[str]]:
    """The columns of a split, labels as names of classes."""
    expected = f"{split}.csv (or {', '.join(columns.SUFFIXES)})"
    root = existing_directory(data, expected)
    paths = files.of_split([root, root / "data"], [split], columns.SUFFIXES)
    if not paths:
        raise FileNotFoundError(f"data.directory: expected {expected} in it; received {str(root)!r} without it")
    settings = {data.text_field: "data.text_field", data.label_field: "data.label_field"}
    result: list[list[str]] = [[] for _ in fields]
    for path in paths:
        names = columns.parquet_class_names(path, data.label_field) if path.suffix == columns.PARQUET else None
        for number, row in enumerate(columns.rows(path, {field: settings[field] for field in fields}), start=1):
            for column, field, value in zip(result, fields, row, strict=True):
                column.append(_cell(value, f"{path}: row {number}", names, is_label=field == data.label_field))
    return result


def _cell(value: Any, place: str, names: Sequence[str] | None, *, is_label: bool) -> str:
    if not is_label:
        text = columns.text(value, place)
        if not text.strip():
            raise checks.error(place, "a text (data.text_field)", text)
        return text
    name = label_name(value, place)
    if names is None or not isinstance(value, int):
        return name
    if not 0 <= value < len(names):
        raise checks.error(place, f"a label from 0 to {len(names) - 1}", value)
    return names[value]
