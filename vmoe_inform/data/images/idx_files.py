"""Files in the format of MNIST and Fashion-MNIST."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from vmoe_inform import checks, storage
from vmoe_inform.config import ImageDataConfig
from vmoe_inform.data.records import SOURCES, ArrayRecords, Source, existing_directory
from vmoe_inform.storage import inputs

_IDX_PREFIXES = {"train": "train", "test": "t10k"}
_IDX_IMAGES = "{}-images-idx3-ubyte"
_IDX_LABELS = "{}-labels-idx1-ubyte"
_MOST_OF_GZIP = 1032  # bytes that one byte of a gzip file can stand for


def _find_idx(directory: storage.Path, name: str) -> Path | None:
    """The file on this machine."""
    found = next((path for path in (directory / name, directory / f"{name}.gz") if inputs.is_file(path)), None)
    return None if found is None else inputs.local(found)


def _need_idx(directory: storage.Path, name: str) -> Path:
    path = _find_idx(directory, name)
    if path is None:
        raise FileNotFoundError(f"data.directory: expected {name} or {name}.gz in it; received {str(directory)!r}")
    return path


def _read_idx(path: Path, num_dimensions: int) -> np.ndarray:
    """Reads an idx file of bytes: 0, 0, type 8 (unsigned byte), number of dimensions, big-endian sizes, data."""
    magic = bytes((0, 0, 8, num_dimensions))
    header_size = 4 + 4 * num_dimensions
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(header_size)
            if header[:4] != magic:
                expected = f"an idx file of unsigned bytes in {num_dimensions} dimensions, magic {magic!r}"
                raise checks.error(str(path), expected, header[:4])
            if len(header) < header_size:
                raise checks.error(str(path), f"a header of {header_size} bytes", f"{len(header)} bytes")
            shape = tuple(int(size) for size in np.frombuffer(header, ">u4", num_dimensions, offset=4))
            size = math.prod(shape)
            # One byte more, so that a gzip file is read to its checksum; no more, as it may unpack to any size.
            possible = path.stat().st_size * _MOST_OF_GZIP
            content = file.read(min(size, possible) + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as problem:
        raise checks.error(str(path), "a complete gzip file", str(problem)) from None
    if len(content) != size:
        received = f"{len(content)} bytes" if len(content) < size else "more"
        raise checks.error(str(path), f"{size} bytes of data for the sizes {shape} of its header", received)
    return np.frombuffer(content, np.uint8).reshape(shape)


@SOURCES.register("idx")
def idx(data: ImageDataConfig, split: str) -> Source:
    """Files in MNIST's format, gzipped or not, in ``data.directory``; the splits are ``train`` and ``test`` (t10k).

    The files name no classes, so classes are called by their numbers. The largest label of the label files sets how
    many there are.
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
