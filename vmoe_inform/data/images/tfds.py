"""Data sets that TFDS has prepared as ``array_record`` files; reading them needs no TensorFlow."""

import dataclasses
import functools
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from vmoe_inform import checks, storage
from vmoe_inform.config import ImageDataConfig
from vmoe_inform.data.images import ilsvrc, tfds_metadata
from vmoe_inform.data.records import SOURCES, Record, SelectedRecords, Source
from vmoe_inform.storage import inputs

_RECORD_FILE = re.compile(r"-\d{5}-of-\d{5}$")  # such as imagenet2012-train.array_record-00000-of-01024


@dataclass(frozen=True, eq=False)
class TfdsRecords:
    """Records of a prepared data set; images stay encoded.

    Attributes:
      data_source: what TFDS gives.
      data_set: what to call it in errors.
      labels: [classes of the data set], the label here of each of the data set's labels, -1 for one that must not
        occur.
      has_file_names: whether the data set keeps the names of the files that it was made of.
    """

    data_source: Sequence[Any]
    data_set: str
    labels: Int[np.ndarray, " classes"]
    has_file_names: bool

    def __len__(self) -> int:
        return len(self.data_source)

    def __getitem__(self, index: int) -> Record:
        """The record.

        Raises:
          OSError: its file is damaged.
          ValueError: a label that must not occur.
        """
        example = read(self.data_source, index)
        received = int(example["label"])
        label = int(self.labels[received]) if 0 <= received < len(self.labels) else -1
        if label < 0:
            known = int((self.labels >= 0).sum())
            raise checks.error(f"label of {self.name(index)}", f"one of the {known} classes looked for", received)
        return {"image": example["image"], "label": label}

    def name(self, index: int) -> str:
        place = f"{self.data_set}[{index}]"
        if not self.has_file_names:
            return place
        try:
            return text(read(self.data_source, index)["file_name"])
        except OSError:  # what cannot be read has a name all the same
            return place

    def relabelled(self, labels: Int[np.ndarray, " classes"]) -> "TfdsRecords":
        known = self.labels >= 0
        return dataclasses.replace(self, labels=np.where(known, labels[np.where(known, self.labels, 0)], -1))

    def selected(self, numbers: Int[np.ndarray, " k"]) -> SelectedRecords:
        return SelectedRecords(self, tuple(numbers.tolist()))


def read(data_source: Sequence[Any], index: int) -> dict[str, Any]:
    """An example of what :func:`open_split` gives.

    Raises:
      OSError: its file is damaged.
      IndexError: there is none of this index.
    """
    try:
        example = data_source[index]
    except (OSError, IndexError):
        raise
    except Exception as problem:  # of kinds that array_record, protocol buffers and TFDS have each of their own
        raise OSError(" ".join(f"{type(problem).__name__}: {problem}".split())) from None
    missing = [name for name, value in example.items() if value is None]
    if missing:  # as TFDS gives them where a file has fewer records than its index says
        raise OSError(f"a record without {', '.join(missing)}")
    return example


def text(value: bytes | str) -> str:
    """A text feature of an example."""
    return value.decode() if isinstance(value, bytes) else str(value)


# What TFDS makes of archives that the user has to load: the names of these.
MANUAL_ARCHIVES = {
    "imagenet2012": (ilsvrc.TRAIN_TAR, ilsvrc.VALIDATION_TAR),
    "imagenet2012_corrupted": (ilsvrc.VALIDATION_TAR,),
    "imagenet2012_real": (ilsvrc.VALIDATION_TAR,),
}


def prepare_command(name: str, directory: str) -> str:
    """The command that prepares a data set."""
    manual = ["--manual_dir=DIR"] if name.partition("/")[0] in MANUAL_ARCHIVES else []
    return shlex.join(["python", "-m", "vmoe_inform.data.prepare", name, *manual, f"--data_dir={directory or 'DIR'}"])


def _root(directory: str) -> storage.Path:
    """TFDS' data directory, which may be in a bucket."""
    if not directory:
        import tensorflow_datasets

        directory = tensorflow_datasets.core.constants.DATA_DIR
    return storage.path("data.directory", directory)


@functools.lru_cache(maxsize=16)
def _metadata(folder: storage.Path) -> Path:
    """The folder of a data set on this machine, with all its files but those of the records.

    A bucket is asked once in a process: it may hold 75 data sets in one folder, with thousands of files.
    """
    return inputs.local_folder(folder, without=_RECORD_FILE)


def has_folder(name: str, directory: str) -> bool:
    """Whether TFDS' data directory (empty: its default) has a folder of that data set: a quick first look."""
    return inputs.is_folder(_root(directory) / name)


def load_builder(name: str, directory: str, **options: Any) -> Any:
    """TFDS' builder of a data set, prepared or not, after a check of its metadata.

    Args:
      name: of the data set, with its config after a slash if it has any.
      directory: TFDS' data directory; empty for its default.
      options: further ones of ``tensorflow_datasets.builder``.

    Raises:
      FileNotFoundError: a name that TFDS does not know, or one of another registry, whose code would be downloaded.
      ValueError: prepared data that are refused (:func:`tfds_metadata.check`) or damaged.
    """
    import tensorflow_datasets

    expected = f"a data set that TFDS knows, or array_record files in {_root(directory)}"
    try:
        parsed, _ = tensorflow_datasets.core.naming.parse_builder_name_kwargs(name)
    except ValueError:
        raise FileNotFoundError(f"data.tfds_name: expected {expected}; received {name!r}") from None
    if parsed.namespace:
        raise checks.error("data.tfds_name", "a data set of TFDS itself, of no other registry", name)
    tfds_metadata.check(_metadata(_root(directory) / parsed.name))
    try:
        data_dir = inputs.place_of_copies(_root(directory)) if directory else None  # where TFDS looks by itself
        return tensorflow_datasets.builder(name, data_dir=data_dir, **options)
    except (tensorflow_datasets.core.DatasetNotFoundError, ValueError) as problem:  # the latter of an unknown config
        reason = str(problem).strip().partition("\n")[0]
        raise FileNotFoundError(f"data.tfds_name: expected {expected}; received {name!r} ({reason})") from None
    except OSError:
        raise
    except Exception as problem:  # of kinds that JSON, protocol buffers and TFDS' classes have each of their own
        received = " ".join(f"{type(problem).__name__}: {problem}".split())
        raise checks.error(f"metadata of {name} in {_root(directory)}", "such as TFDS writes", received) from None


def builder_of(name: str, directory: str) -> Any:
    """TFDS' builder of a data set whose array_record files are there.

    Args:
      name: of the data set, with its config after a slash if it has any.
      directory: TFDS' data directory; empty for its default.

    Raises:
      FileNotFoundError: an unknown name, no prepared data, or other than array_record files.
      ValueError: prepared data that are refused or damaged, see :func:`load_builder`.
    """
    import tensorflow_datasets

    prepare = f"prepared with `{prepare_command(name, directory)}`"
    builder = load_builder(name, directory)
    if not builder.info.splits:
        raise FileNotFoundError(
            f"data.directory: expected the array_record files of {name} in {builder.data_dir}, {prepare}; "
            "received no prepared data"
        )
    if builder.info.file_format != tensorflow_datasets.core.FileFormat.ARRAY_RECORD:
        raise FileNotFoundError(
            f"data.directory: expected array_record files in {builder.data_dir}, {prepare}; "
            f"received {builder.info.file_format.value} files"
        )
    return builder


def open_split(builder: Any, name: str, split: str) -> Any:
    """The split's examples on this machine, with random access and encoded images.

    Raises:
      ValueError: a split that the data set has not.
    """
    import tensorflow_datasets

    features = builder.info.features
    has_images = hasattr(features, "keys") and "image" in features
    decoders = {"image": tensorflow_datasets.decode.SkipDecoding()} if has_images else None
    try:
        return builder.as_data_source(split, decoders=decoders)
    except ValueError:  # TFDS names a split that it does not know, in its own words
        raise checks.error(f"split of {name}", f"one of {', '.join(builder.info.splits)}", split) from None


def fetch_split(builder: Any, name: str, split: str, directory: str) -> Any:
    """As :func:`open_split`; record files that are in a bucket are fetched first, those of this split alone.

    Args:
      builder: from :func:`builder_of`.
      name: of the data set.
      split: as TFDS understands it.
      directory: TFDS' data directory.
    """
    if not directory:
        return open_split(builder, name, split)
    try:
        files = [one.filename for one in builder.info.splits[split].file_instructions]
    except (KeyError, ValueError):
        return open_split(builder, name, split)  # which says what is wrong
    root = _root(directory)
    inputs.local_each([root / Path(file).relative_to(inputs.place_of_copies(root)) for file in files])
    return open_split(builder, name, split)


def class_names(builder: Any, name: str, feature: str = "label") -> tuple[str, ...]:
    """Names of a prepared data set's classes.

    Raises:
      ValueError: it has no images with a class label.
    """
    features = builder.info.features
    found = sorted(features) if hasattr(features, "keys") else [type(features).__name__]
    if not {"image", feature} <= set(found) or not hasattr(features[feature], "names"):
        raise checks.error(f"features of {name}", f"an image and a class label {feature!r}", found)
    return tuple(features[feature].names)


@SOURCES.register("tfds")
def tfds(data: ImageDataConfig, split: str) -> Source:
    """The data set ``data.tfds_name``, as TFDS has prepared it.

    ``data.directory`` is TFDS' data directory (empty: its default) and ``split`` any split that TFDS understands.

    Raises:
      FileNotFoundError: see :func:`builder_of`.
      ValueError: no name, an unknown split, or a data set without class labels. When a record is read: a label out of
        range, as in ImageNet's test split, whose labels are not public.
    """
    if not data.tfds_name:
        raise checks.error("data.tfds_name", "the name of a TFDS data set", data.tfds_name)
    builder = builder_of(data.tfds_name, data.directory)
    names = class_names(builder, data.tfds_name)
    return Source(records(builder, data.tfds_name, split, np.arange(len(names)), data.directory), names, "TFDS")


def records(builder: Any, name: str, split: str, labels: Int[np.ndarray, " classes"], directory: str) -> TfdsRecords:
    """Records of a prepared data set; ``labels`` as of :class:`TfdsRecords`, the rest as of :func:`fetch_split`."""
    has_file_names = "file_name" in builder.info.features
    return TfdsRecords(fetch_split(builder, name, split, directory), f"{name}:{split}", labels, has_file_names)
