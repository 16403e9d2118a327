"""Identifies the records of a score by their content, in any folder."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Int

from vmoe_inform.config import DataConfig
from vmoe_inform.data.images.trees import FileRecords
from vmoe_inform.data.records import SelectedRecords
from vmoe_inform.data.sources import ArrayRecords, Records, Source
from vmoe_inform.data.text.corpora import Corpus
from vmoe_inform.data.text.lines import LabelledTexts
from vmoe_inform.evaluation.derived_records import CorruptedRecords
from vmoe_inform.evaluation.text_records import DescribedCorpus, DescribedTexts

AnyRecords: TypeAlias = Source | Corpus | LabelledTexts

_IMAGES_READ = 32  # of a set


def count_of(source: AnyRecords) -> int:
    """Number of images or texts; of a corpus, of tokens to predict."""
    return len(source.records) if isinstance(source, Source) else _described(source).count


def named(source: AnyRecords, indices: Int[np.ndarray, " n"]) -> Mapping[str, np.ndarray]:
    """What these records are, for files of predictions: of images ``names`` [n] and ``class_names`` of all labels."""
    if not isinstance(source, Source):
        return _described(source).named(indices)
    names = [source.records.name(int(index)) for index in indices]
    return {"names": np.array(names), "class_names": np.array(source.class_names)}


def fingerprint(source: AnyRecords) -> str:
    """16 hexadecimal digits by which a set of records is known again: by all of its text, or see :func:`_of_images`."""
    return _of_images(source) if isinstance(source, Source) else _described(source).fingerprint


def _described(source: Corpus | LabelledTexts) -> DescribedCorpus | DescribedTexts:
    return DescribedCorpus(source) if isinstance(source, Corpus) else DescribedTexts(source)


def _of_images(source: Source) -> str:
    """Depends on images, names, labels and classes.

    Of the images 32 are read, evenly over the set. A copy of a data set has the fingerprint of the original. A set that
    was encoded again, at another quality for instance, has another.
    """
    records = _drawn_from(source.records)
    hasher = hashlib.sha256()
    _add(hasher, source.class_names)
    _add(hasher, [str(len(records))])
    if isinstance(records, ArrayRecords | FileRecords):
        hasher.update(np.ascontiguousarray(records.labels, np.int64).data)
    if isinstance(records, FileRecords):
        _add(hasher, records.names.tolist())
    for index in np.unique(np.linspace(0, len(records) - 1, _IMAGES_READ).round().astype(int)).tolist():
        parts: list[str | bytes]
        try:
            record = records[index]
            parts = [records.name(index), str(record["label"]), _bytes(record["image"])]
        except (OSError, ValueError) as problem:
            parts = [f"unreadable: {type(problem).__name__}"]
        _add(hasher, parts)
    return hasher.hexdigest()[:16]


def together(sources: Iterable[AnyRecords]) -> str:
    """One fingerprint of several sets in their order."""
    hasher = hashlib.sha256()
    _add(hasher, [fingerprint(source) for source in sources])
    return hasher.hexdigest()[:16]


def place_of(source: AnyRecords, data: DataConfig) -> str:
    """The origin of the records in words: a folder or a tar, else the config's description."""
    if not isinstance(source, Source):
        return " ".join(filter(None, (_described(source).origin, data.directory and f"in {data.directory}")))
    records = source.records
    while isinstance(records, CorruptedRecords | SelectedRecords):
        records = records.records
    if isinstance(records, FileRecords):
        return str(records.place)
    return " ".join(filter(None, (data.source, data.tfds_name, data.directory and f"in {data.directory}")))


def _drawn_from(records: Records) -> Records:
    """Of images that are drawn as they are read, those that they are drawn from: all else about them is a setting."""
    while isinstance(records, CorruptedRecords):
        records = records.records
    return records


def _bytes(image: np.ndarray | bytes) -> bytes:
    return image if isinstance(image, bytes) else f"{image.dtype} {image.shape} ".encode() + image.tobytes()


def _add(hasher: "hashlib._Hash", parts: Sequence[str | bytes]) -> None:
    for part in parts:
        content = part.encode("utf-8", "surrogateescape") if isinstance(part, str) else part
        hasher.update(f"{len(content)}:".encode())
        hasher.update(content)
