"""Where labelled images come from: random-access records, by the name that ``config.data.source`` gives."""

import gzip
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict

import numpy as np
from absl import logging

from vmoe_inform import checks
from vmoe_inform.config import DataConfig
from vmoe_inform.registry import Registry


class Record(TypedDict):
    """One labelled image.

    Attributes:
      image: uint8 array [height, width, channels] with 1 or 3 channels, or the bytes of an image file.
      label: index into the source's class names.
    """

    image: np.ndarray | bytes
    label: int


class Records(Protocol):
    """Random access to records. Several threads read at once, and other processes get a pickled copy."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Record: ...

    def name(self, index: int, /) -> str:
        """What to call the record in logs and files of predictions: the same on every machine, unique in the set."""
        ...


@dataclass(frozen=True)
class Source:
    """A split of a data set.

    Attributes:
      records: the labelled images.
      class_names: one name a label.
      origin: where the images are from, in words for tables: "published folder", "TFDS", "generated".
    """

    records: Records
    class_names: tuple[str, ...]
    origin: str = ""

    @property
    def num_classes(self) -> int:
        """Number of labels, counted over the data set, not over the split."""
        return len(self.class_names)


SourceFunction = Callable[[DataConfig, str], Source]
SOURCES: Registry[SourceFunction] = Registry("data source")


def load(data: DataConfig, split: str) -> Source:
    """The split ``split`` of ``data.source``.

    Raises:
      ValueError: an unknown source or split, or damaged files.
      FileNotFoundError: data that are not where the config says; the message says what is expected there.
    """
    return SOURCES[data.source](data, split)


@dataclass(frozen=True, eq=False)
class ArrayRecords:
    """Records in memory: images uint8 [n, height, width, channels], labels integer [n]."""

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            expected = "uint8 [n, height, width, channels]"
            raise checks.error("images", expected, f"{self.images.dtype} {self.images.shape}")
        if self.labels.shape != self.images.shape[:1]:
            raise checks.error("labels", f"shape {self.images.shape[:1]}, one for each image", self.labels.shape)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Record:
        return {"image": self.images[index], "label": int(self.labels[index])}

    def name(self, index: int) -> str:
        return str(index)


# ------------------------------------------------------------------------------------------------------------ digits

_DIGITS_TEST_EVERY = 5


@SOURCES.register("digits")
def digits(data: DataConfig, split: str) -> Source:
    """scikit-learn's 1,797 handwritten digits, gray 8 x 8; the splits are ``train`` and ``test``.

    Of each digit the 1st, 6th, 11th, ... image is for the test, so that the split is stratified (364 of 1,797) and
    depends on no random generator. Intensities 0 to 16 become 0 to 255.
    """
    from sklearn.datasets import load_digits

    if split not in ("train", "test"):
        raise checks.error("split of digits", "one of 'train', 'test'", split)
    bunch = load_digits()
    labels = bunch.target.astype(np.int32)
    rank_within_class = np.empty_like(labels)
    for digit in range(10):
        members = np.flatnonzero(labels == digit)
        rank_within_class[members] = np.arange(len(members))
    chosen = (rank_within_class % _DIGITS_TEST_EVERY == 0) == (split == "test")
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    return Source(ArrayRecords(images[chosen], labels[chosen]), tuple(str(digit) for digit in range(10)))


# --------------------------------------------------------------------------------------------------------- idx files

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
    directory = _existing_directory(data, "the files of MNIST's format, such as train-images-idx3-ubyte.gz")
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


# ------------------------------------------------------------------------------------------------------ image folder

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class FileRecords:
    """Records whose images are files, read when they are asked for."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Record:
        path = self.paths[index]
        return {"image": path.read_bytes(), "label": self.labels[index]}

    def name(self, index: int) -> str:
        path = self.paths[index]
        return f"{path.parent.name}/{path.name}"


def _class_folders(directory: Path) -> list[Path]:
    return sorted((path for path in directory.iterdir() if path.is_dir()), key=lambda path: path.name)


@SOURCES.register("folder")
def folder(data: DataConfig, split: str) -> Source:
    """Image files ``data.directory/split/class name/file``; labels number the class names in sorted order.

    Raises:
      FileNotFoundError: a missing folder, one without classes, or a class without images.
      ValueError: classes that are not those of the training split, whose labels would mean something else.
    """
    expected = f"{split}/CLASS/*.jpg (or {', '.join(suffix[1:] for suffix in IMAGE_SUFFIXES)})"
    root = _existing_directory(data, expected)
    if not split or not (root / split).is_dir():
        raise FileNotFoundError(f"data.directory: expected {expected} in it; received {str(root)!r} without {split!r}")
    folders = _class_folders(root / split)
    class_names = tuple(path.name for path in folders)
    if not folders:
        raise FileNotFoundError(f"data.directory: expected {expected}; received no class folder in {root / split}")
    train = root / data.train_split
    if split != data.train_split and train.is_dir():
        train_names = tuple(path.name for path in _class_folders(train))
        if class_names != train_names:
            difference = sorted(set(class_names) ^ set(train_names))
            raise checks.error(f"classes of {root / split}", f"the {len(train_names)} classes of {train}", difference)
    paths: list[Path] = []
    labels: list[int] = []
    for label, class_folder in enumerate(folders):
        files = sorted(path for path in class_folder.iterdir() if path.is_file())
        images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
        if not images:
            raise FileNotFoundError(f"data.directory: expected {expected}; received no image in {class_folder}")
        if len(images) < len(files):
            logging.warning("%s: %d files that are no images are left out", class_folder, len(files) - len(images))
        paths += images
        labels += [label] * len(images)
    return Source(FileRecords(tuple(paths), tuple(labels)), class_names)


# --------------------------------------------------------------------------------------------------------------- TFDS


@dataclass(frozen=True)
class TfdsRecords:
    """Records of a prepared TFDS data set; images stay encoded."""

    data_source: Sequence[Any]
    data_set: str

    def __len__(self) -> int:
        return len(self.data_source)

    def __getitem__(self, index: int) -> Record:
        example = self.data_source[index]
        return {"image": example["image"], "label": int(example["label"])}

    def name(self, index: int) -> str:
        return f"{self.data_set}[{index}]"


@SOURCES.register("tfds")
def tfds(data: DataConfig, split: str) -> Source:
    """A data set that TFDS has prepared as ``array_record`` files; reading them needs no TensorFlow.

    ``data.directory`` is TFDS' data directory (empty: its default) and ``split`` any split that TFDS understands.
    """
    import tensorflow_datasets

    if not data.tfds_name:
        raise checks.error("data.tfds_name", "the name of a TFDS data set", data.tfds_name)
    prepare = f"prepared with `tfds build {data.tfds_name} --file_format=array_record`"
    try:
        builder = tensorflow_datasets.builder(data.tfds_name, data_dir=data.directory or None)
    except tensorflow_datasets.core.DatasetNotFoundError:
        place = data.directory or tensorflow_datasets.core.constants.DATA_DIR
        raise FileNotFoundError(
            f"data.tfds_name: expected a data set that TFDS knows, or array_record files in {place}; "
            f"received {data.tfds_name!r}"
        ) from None
    if not builder.info.splits:
        raise FileNotFoundError(
            f"data.directory: expected the array_record files of {data.tfds_name} in {builder.data_dir}, {prepare}; "
            "received no prepared data"
        )
    if builder.info.file_format != tensorflow_datasets.core.FileFormat.ARRAY_RECORD:
        raise FileNotFoundError(
            f"data.directory: expected array_record files in {builder.data_dir}, {prepare}; "
            f"received {builder.info.file_format.value} files"
        )
    features = builder.info.features
    if not {"image", "label"} <= set(features) or not hasattr(features["label"], "names"):
        raise checks.error(f"features of {data.tfds_name}", "an image and a class label", sorted(features))
    try:
        data_source = builder.as_data_source(split, decoders={"image": tensorflow_datasets.decode.SkipDecoding()})
    except ValueError:  # TFDS names a split that it does not know, in its own words
        raise checks.error(f"split of {data.tfds_name}", f"one of {', '.join(builder.info.splits)}", split) from None
    return Source(TfdsRecords(data_source, f"{data.tfds_name}:{split}"), tuple(features["label"].names))


def _existing_directory(data: DataConfig, expected: str) -> Path:
    if not data.directory or not Path(data.directory).is_dir():
        raise FileNotFoundError(f"data.directory: expected a directory with {expected}; received {data.directory!r}")
    return Path(data.directory)
