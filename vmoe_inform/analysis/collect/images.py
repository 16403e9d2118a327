"""The images of an analysis: some of the clean test images, or the same ones under corruptions."""

import dataclasses
import math
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from vmoe_inform import checks
from vmoe_inform.config import Config, as_images
from vmoe_inform.data.images import pixels as images_lib
from vmoe_inform.data.images.published import CORRUPTIONS, SEVERITIES
from vmoe_inform.data.records import SelectedRecords
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation import suites
from vmoe_inform.evaluation.suites import NotAvailable, Suite, test_split
from vmoe_inform.evaluation.suites.c import GENERATED

_CLEAN = "clean"  # the test images as they are


@dataclasses.dataclass(frozen=True)
class Choice:
    """The images that ``--suite`` selects.

    Attributes:
      corruption, severity: of the images, or None for clean ones.
      all_corruptions: whether clean images are compared with all of their corruptions.
    """

    corruption: str | None = None
    severity: int | None = None
    all_corruptions: bool = False

    def __str__(self) -> str:
        return _CLEAN if self.corruption is None else f"c:{self.corruption}:{self.severity}"


CLEAN_IMAGES = Choice()


def parse(text: str) -> Choice:
    """``clean``, ``c`` or ``c:NAME:SEVERITY``.

    Raises:
      ValueError: anything else.
    """
    suite, *rest = text.split(":")
    if (suite, rest) == (_CLEAN, []):
        return Choice()
    if (suite, rest) == ("c", []):
        return Choice(all_corruptions=True)
    if suite == "c" and len(rest) == 2 and rest[0] in CORRUPTIONS and rest[1] in map(str, SEVERITIES):
        return Choice(rest[0], int(rest[1]))
    raise checks.error(
        "--suite", f"clean, c or c:NAME:SEVERITY with NAME one of {', '.join(CORRUPTIONS)} and SEVERITY 1 to 5", text
    )


class Images:
    """The images that an analysis looks at, and the same ones clean and under corruptions."""

    def __init__(self, config: Config, limit: int | None = None, choice: Choice = CLEAN_IMAGES, *, group_size: int = 1):
        """Args:
        config: of the run, as it holds on this machine.
        limit: at most this many images, evenly over the test split; None: all.
        choice: which of them are looked at.
        group_size: consecutive images that are chosen together. With ``model.moe.group_size_sequences``, whose tokens
          share the experts' slots, the routing of each image is that of the whole set.

        Raises:
          ValueError: a limit below the size of a group, or damaged data.
          FileNotFoundError: the data set is missing.
        """
        if limit is not None and limit < group_size:
            which = "" if group_size == 1 else ", the images that share experts' slots (model.moe.group_size_sequences)"
            raise checks.error("--images", f"a number >= {group_size}{which}", limit)
        self._config = as_images(config)
        self.choice = choice
        self._clean = test_split(config.data)
        self._indices = whole_groups(len(self._clean.records), group_size, limit)
        self._corrupted: Suite | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the labels."""
        return tuple(self._clean.class_names)

    def chosen(self) -> Source:
        """The images that are looked at.

        Raises:
          ValueError: corrupted images are wanted and unavailable; all of them are asked for before any work.
        """
        if self.choice.all_corruptions:
            self.corrupted(CORRUPTIONS[0], SEVERITIES[0])
        if self.choice.corruption is None or self.choice.severity is None:
            return self.clean()
        return self.corrupted(self.choice.corruption, self.choice.severity)

    def pixels(self, source: Source) -> UInt8[np.ndarray, "n P P 3"]:
        """All images of a (small) source, as the model sees them before they are normalised.

        Args:
          source: whose records can all be read.
        """
        size, crop = self._config.model.image_size_px, source.crop_in(self._config.data)
        records = source.records
        return np.stack([images_lib.to_square(records[index]["image"], size, crop) for index in range(len(records))])

    def clean(self) -> Source:
        """The images as they are."""
        return selected(self._clean, self._indices)

    def corrupted(self, corruption: str, severity: int) -> Source:
        """The same images, in the same order, under a corruption.

        Raises:
          ValueError: the corrupted images cannot be had, or are not those of the clean ones.
        """
        try:
            if self._corrupted is None:
                self._corrupted = suites.load("c", self._config)
            source = self._corrupted.sets[f"{corruption}/{severity}"].load()
        except NotAvailable as problem:
            raise checks.InputError(f"--suite=c is not available: {problem}") from None
        return selected(source, self._indices_in(source, f"{corruption}/{severity}"))

    def _indices_in(self, source: Source, name: str) -> list[int]:
        """Indices of the chosen clean images in a set of C."""
        if source.origin == GENERATED:  # of the clean records, in their order
            if len(source.records) != len(self._clean.records):
                raise checks.error(
                    f"corrupted images {name}",
                    f"one for each of the {len(self._clean.records)} clean images, all of which can be read",
                    len(source.records),
                )
            return self._indices
        wanted = [_file_name(self._clean, index) for index in self._indices]
        there = {_file_name(source, index): index for index in range(len(source.records))}
        missing = [file_name for file_name in wanted if file_name not in there]
        if missing:
            raise checks.error(
                f"corrupted images {name}",
                f"files called as the clean images are, {missing[0]} among them",
                f"{len(there)} files, without that and {len(missing) - 1} more",
            )
        return [there[file_name] for file_name in wanted]


def whole_groups(number: int, group_size: int, limit: int | None) -> list[int]:
    """Indices of at most ``limit`` of ``number`` records, in whole groups of consecutive ones, evenly over all."""
    if limit is None or limit >= number:
        return list(range(number))
    num_groups, wanted = math.ceil(number / group_size), limit // group_size
    first = np.arange(wanted) * num_groups // wanted * group_size
    return [index for start in first.tolist() for index in range(start, min(start + group_size, number))]


def selected(source: Source, indices: Sequence[int]) -> Source:
    """The records of a source with these numbers."""
    return dataclasses.replace(source, records=SelectedRecords(source.records, tuple(indices)))


def _file_name(source: Source, index: int) -> str:
    return pathlib.PurePosixPath(source.records.name(index)).name
