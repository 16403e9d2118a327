"""What every source of text gives: the lines of a split, or labelled texts."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Int

from vmoe_inform import checks, storage
from vmoe_inform.config import TextDataConfig
from vmoe_inform.data import classes
from vmoe_inform.registry import Registry


@dataclasses.dataclass(frozen=True)
class Lines:
    """The lines of one split, in order; each iteration reads them from the beginning.

    Attributes:
      read: gives the lines, without line breaks; reads them as it goes.
      origin: where they are from, in words for tables.
      separated: white space separates words and punctuation marks, as in WikiText. Other lines are as people write.
      vocabulary_splits: splits whose words make the vocabulary; empty: the training split alone.
      published_counts: lines that published data of this split have; empty: any number is as good.
    """

    read: Callable[[], Iterator[str]]
    origin: str
    separated: bool = False
    vocabulary_splits: tuple[str, ...] = ()
    published_counts: tuple[int, ...] = ()

    def __iter__(self) -> Iterator[str]:
        return self.read()


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledTexts:
    """The labelled texts of one split.

    Attributes:
      texts: as people write them.
      labels: indices into ``class_names``.
      class_names: one name a label.
      origin: where they are from, in words for tables.
      separated: as of :class:`Lines`.
    """

    texts: Sequence[str]
    labels: Int[np.ndarray, " n"]
    class_names: tuple[str, ...]
    origin: str
    separated: bool = False

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.texts):
            raise checks.error("labels", f"{len(self.texts):,}, one for each text", f"{len(self.labels):,}")
        wrong = sorted({int(label) for label in self.labels if not 0 <= label < self.num_classes})
        if wrong:
            raise checks.error("labels", f"0 to {self.num_classes - 1}, one of the classes", wrong[:5])

    @property
    def num_classes(self) -> int:
        """Number of labels, counted over the data set, not over the split."""
        return len(self.class_names)

    def in_order(self, class_names: Sequence[str], field: str) -> "LabelledTexts":
        """The texts with labels that number ``class_names``; empty: as they are.

        Raises:
          ValueError: ``class_names`` are other classes; lists the difference.
        """
        wanted = tuple(class_names)
        if not wanted or self.class_names == wanted:
            return self
        classes.check_same(self.class_names, wanted, field)
        labels = classes.positions(self.class_names, wanted, field)
        return dataclasses.replace(self, labels=labels[self.labels].astype(np.int32), class_names=wanted)

    def chosen(self, mask: Bool[np.ndarray, " n"]) -> "LabelledTexts":
        """Those of the mask."""
        texts = [text for text, is_chosen in zip(self.texts, mask, strict=True) if is_chosen]
        return dataclasses.replace(self, texts=texts, labels=self.labels[mask])


# By ``config.data.source``: functions of the settings and the name of a split. A name may be in both.
LINES: Registry[Callable[[TextDataConfig, str], Lines]] = Registry("source of lines")  # for language models
LABELLED: Registry[Callable[[TextDataConfig, str], LabelledTexts]] = Registry("source of labelled text")


def existing_directory(data: TextDataConfig, expected: str) -> storage.Path:
    """``data.directory``, which should hold what ``expected`` says.

    Raises:
      FileNotFoundError: it is not there.
    """
    return storage.inputs.existing_folder("data.directory", data.directory, f"a folder with {expected}")


def known_split(split: str, known: Sequence[str], source: str) -> str:
    """``split``, or ValueError unless it is one of those that the source has."""
    if split not in known:
        raise checks.error(f"split of {source}", f"one of {', '.join(map(repr, known))}", split)
    return split
