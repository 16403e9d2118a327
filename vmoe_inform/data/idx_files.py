"""Files in the format of MNIST and Fashion-MNIST."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from vmoe_inform import checks
from vmoe_inform.config import DataConfig
from vmoe_inform.data.records import SOURCES, ArrayRecords, Source, existing_directory

_IDX_PREFIXES = {"train": "train", "test": "t10k"}
_IDX_IMAGES = "{}-images-idx3-ubyte"
_IDX_LABELS = "{}-labels-idx1-ubyte"


def _find_idx(directory: Path, name: str) -> Path | None:
    return next((path for path in (directory / name, directory / f"{name}.gz") if path.is_file()), None)


def _need_idx(directory: Path, name: str) -> Path:
    path = _find_idx(directory, name)
    if path is None:
        raise FileNotFoundError(f"data.directory: expected {name} or {name}.gz in it; received {str(directory)!r}")
    return path


def _read_idx(path: Path, num_dimensions: int) -> np.ndarray:
    """Reads an idx file of bytes: 0, 0, type 8 (unsigned byte), number of dimensions, big-endian sizes, data."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as problem:
        raise checks.error(str(path), "a complete gzip file", str(problem)) from None
    magic = bytes((0, 0, 8, num_dimensions))
    if content[:4] != magic:
        raise checks.error(
            str(path), f"an idx file of unsigned bytes in {num_dimensions} dimensions, magic {magic!r}", content[:4]
        )
    header_size = 4 + 4 * num_dimensions
    if len(content) < header_size:
        raise checks.error(str(path), f"a header of {header_size} bytes", f"{len(content)} bytes")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", num_dimensions, offset=4))
    if len(content) - header_size != math.prod(shape):
        received = f"{len(content) - header_size} bytes"
        raise checks.error(str(path), f"{math.prod(shape)} bytes of data for the sizes {shape} of its header", received)
    return np.frombuffer(content, np.uint8, offset=header_size).reshape(shape)


@SOURCES.register("idx")
def idx(data: DataConfig, split: str) -> Source:
    """Files in MNIST's format, gzipped or not, in ``data.directory``; the splits are ``train`` and ``test`` (t10k).

    The files name no classes: a class is called by its number, and there are as many as the largest label of the
    label files says.
    """
    if split not in _IDX_PREFIXES:
        raise checks.error("split of idx files", "one of 'train', 'test'", split)
    directory = existing_directory(data, "the files of MNIST's format, such as train-images-idx3-ubyte.gz")
    prefix = _IDX_PREFIXES[split]
    images_path = _need_idx(directory, _IDX_IMAGES.format(prefix))
    labels_path = _need_idx(directory, _IDX_LABELS.format(prefix))
    images, labels = _read_idx(images_path, 3), _read_idx(labels_path, 1)
    if len(images) == 0 or len(images) != len(labels):
        expected = f"as many labels as images of {images_path.name} and at least one, {len(images)} images"
        raise checks.error(str(labels_path), expected, len(labels))
    label_paths = [_find_idx(directory, _IDX_LABELS.format(other)) for other in _IDX_PREFIXES.values()]
    num_classes = 1 + max(int(_read_idx(path, 1).max(initial=0)) for path in label_paths if path is not None)
    return Source(ArrayRecords(images[..., None], labels.astype(np.int32)), tuple(map(str, range(num_classes))))
