"""What every source of labelled images gives: random-access records with the names of their classes."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypedDict

import numpy as np
from jaxtyping import Int

from vmoe_inform import checks, storage
from vmoe_inform.config import ImageDataConfig
from vmoe_inform.data.images.framing import Framing
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

    def relabelled(self, labels: Int[np.ndarray, " classes"], /) -> "Records":
        """The same records, with ``labels[label]`` for each label."""
        ...

    def selected(self, numbers: Int[np.ndarray, " k"], /) -> "Records":
        """The records of these numbers, in this order, under their own names."""
        ...


@dataclass(frozen=True)
class Source:
    """A split of a data set.

    Attributes:
      records: the labelled images.
      class_names: one name a label.
      origin: where the images are from, in words for tables: "published folder", "folder" for one's own,
        "TFDS", "generated".
      framing: what evaluation shows of its images; None: what ``data`` says. Images that were cropped when the set was
        made are shown whole.
    """

    records: Records
    class_names: tuple[str, ...]
    origin: str = ""
    framing: Framing | None = None

    @property
    def num_classes(self) -> int:
        """Number of labels, counted over the data set, not over the split."""
        return len(self.class_names)

    def framing_in(self, data: ImageDataConfig) -> Framing:
        """What evaluation shows of an image: as the source says, or ``data``."""
        return Framing.of(data) if self.framing is None else self.framing


SourceFunction = Callable[[ImageDataConfig, str], Source]
SOURCES: Registry[SourceFunction] = Registry("data source")


@dataclass(frozen=True, eq=False)
class ArrayRecords:
    """Records in memory.

    Attributes:
      images: uint8 [n, height, width, channels].
      labels: integer [n].
      numbers: integer [n], what to call each record; None: 0 to n - 1.
    """

    images: np.ndarray
    labels: np.ndarray
    numbers: Int[np.ndarray, " n"] | None = None

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
        return str(index if self.numbers is None else int(self.numbers[index]))

    def relabelled(self, labels: Int[np.ndarray, " classes"]) -> "ArrayRecords":
        return dataclasses.replace(self, labels=labels[self.labels].astype(np.int32))

    def selected(self, numbers: Int[np.ndarray, " k"]) -> "ArrayRecords":
        own = numbers if self.numbers is None else self.numbers[numbers]
        return ArrayRecords(self.images[numbers], self.labels[numbers], own)


@dataclass(frozen=True)
class SelectedRecords:
    """Some of the records of a set, ``chosen`` their numbers in it."""

    records: Records
    chosen: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> Record:
        return self.records[self.chosen[index]]

    def name(self, index: int) -> str:
        return self.records.name(self.chosen[index])

    def relabelled(self, labels: Int[np.ndarray, " classes"]) -> "SelectedRecords":
        return dataclasses.replace(self, records=self.records.relabelled(labels))

    def selected(self, numbers: Int[np.ndarray, " k"]) -> "SelectedRecords":
        return SelectedRecords(self.records, tuple(self.chosen[number] for number in numbers))


def existing_directory(data: ImageDataConfig, expected: str) -> storage.Path:
    """``data.directory``, which should hold what ``expected`` says.

    Raises:
      FileNotFoundError: it is not there.
    """
    return storage.inputs.existing_folder("data.directory", data.directory, f"a directory with {expected}")
