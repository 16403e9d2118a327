"""The images of an analysis: some of the clean test images, or the same ones under corruptions."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
from jaxtyping import UInt8

from vmoe_inform import checks
from vmoe_inform.analysis.collect import certified_rows
from vmoe_inform.analysis.collect.choices import Choices
from vmoe_inform.analysis.collect.groups import whole_groups
from vmoe_inform.analysis.collect.observing import Observer
from vmoe_inform.analysis.data import ANALYSED, AnalysedData
from vmoe_inform.analysis.images import corruptions
from vmoe_inform.analysis.images.choice import CLEAN_IMAGES, Choice, parse, selected
from vmoe_inform.analysis.images.shown import view_of_run
from vmoe_inform.analysis.images.views import UNCORRUPTED, Views
from vmoe_inform.analysis.results import Analysis, Corruptions
from vmoe_inform.config import Config, as_images
from vmoe_inform.data.images import pixels as images_lib
from vmoe_inform.data.images.published import CORRUPTIONS, SEVERITIES
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation import suites
from vmoe_inform.evaluation.suites import NotAvailable, Suite, test_split
from vmoe_inform.evaluation.suites.c import GENERATED
from vmoe_inform.runs.run import Run

_NUM_SHOWN = 24


@ANALYSED.register("classification")
class Images(AnalysedData[Views]):
    """The images that an analysis looks at, and the same ones clean and under corruptions."""

    unit = "images"
    compared_fields = (
        *("model.image_size_px", "model.patch_size_px", "model.num_tokens", "model.num_classes"),
        *("data.source", "data.tfds_name"),
    )

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
            raise checks.error("--limit", f"a number >= {group_size}{which}", limit)
        images = as_images(config)
        # Of all test images: those that are looked at are chosen here, the same ones clean and corrupted.
        evaluation = dataclasses.replace(images.evaluation, corrupted_images=None)
        self._config = dataclasses.replace(images, evaluation=evaluation)
        self.choice = choice
        self.suite = str(choice)
        self._clean = test_split(config.data)
        self.class_names = tuple(self._clean.class_names)
        self._indices = whole_groups(len(self._clean.records), group_size, limit)
        self._corrupted: Suite | None = None

    @classmethod
    def of_run(cls, config: Config, suite: str, number: int | None) -> Self:
        """The images that ``--suite`` and ``--limit`` select; see :func:`parse` and :class:`Images`."""
        return cls(config, number, parse(suite), group_size=config.model.moe.group_size_sequences)

    def source(self) -> Source:
        """The images that are looked at.

        Raises:
          ValueError: corrupted images are wanted and unavailable; all of them are asked for before any work.
        """
        if self.choice.all_corruptions:
            self.corrupted(CORRUPTIONS[0], SEVERITIES[0])
        if self.choice.corruption is None or self.choice.severity is None:
            return self.clean()
        return self.corrupted(self.choice.corruption, self.choice.severity)

    def corruptions(self, observer: Observer, say: Callable[[str], None]) -> Corruptions | None:
        if not self.choice.all_corruptions:
            return None
        return corruptions.of_all(observer, self.clean(), self.corrupted, say)

    def views(self, runs: Sequence[Run], choices: Choices, found: Analysis) -> Views:
        """At most 24 of the readable images, evenly over all, clean and under one corruption in all severities."""
        corruption = corruption_to_show(self.choice, found)
        there, number = choices.indices, min(_NUM_SHOWN, len(choices.indices))
        chosen = there[np.arange(number) * len(there) // number].tolist()
        sources = {UNCORRUPTED: self.clean()}
        if corruption is not None:
            sources |= {(corruption, severity): self.corrupted(corruption, severity) for severity in SEVERITIES}
        pixels = {condition: self.pixels(selected(source, chosen)) for condition, source in sources.items()}
        clean = sources[UNCORRUPTED].records
        return Views(
            images=pixels,
            labels=[int(clean[index]["label"]) for index in chosen],
            class_names=self.class_names,
            views=[view_of_run(run, shown, condition) for run in runs for condition, shown in pixels.items()],
            certified=certified_rows.of_corruptions(found.corruptions),
        )

    def pixels(self, source: Source) -> UInt8[np.ndarray, "n P P 3"]:
        """All images of a (small) source, as the model sees them before they are normalised.

        Args:
          source: whose records can all be read.
        """
        size, framing = self._config.model.image_size_px, source.framing_in(self._config.data)
        records = source.records
        return np.stack([images_lib.to_square(records[index]["image"], size, framing) for index in range(len(records))])

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


def _file_name(source: Source, index: int) -> str:
    return pathlib.PurePosixPath(source.records.name(index)).name


def corruption_to_show(choice: Choice, found: Analysis) -> str | None:
    """The one that was chosen; of all, the one that costs most accuracy; else none."""
    if found.corruptions is None:
        return choice.corruption
    mean = np.mean(found.corruptions.top1, axis=1)
    return found.corruptions.names[int(np.argmin(mean))]
