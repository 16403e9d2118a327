"""Readers of one record on the host: read, decode, crop, augment. Worker processes get copies of them."""

import dataclasses
from typing import Any

import numpy as np

from vmoe_inform.config import ImageDataConfig
from vmoe_inform.data.images import decode, randaugment
from vmoe_inform.data.images import pixels as images
from vmoe_inform.data.images.framing import Framing
from vmoe_inform.data.records import Records
from vmoe_inform.data.skipped import SKIPPED, SkippedRecords, Unreadable

_MOST_IN_A_ROW = 100  # unreadable records; as many as are needed to judge their share


@dataclasses.dataclass(frozen=True)
class TrainingReader:
    """A record by its index, cropped and augmented as ``data`` says."""

    records: Records
    image_size_px: int
    data: ImageDataConfig

    def __call__(self, index: int, random: np.random.Generator) -> dict[str, Any]:
        """The record as arrays; another record is drawn in place of an unreadable one.

        So every position of the order has an image that depends on ``index`` and ``random`` alone. Other unreadable
        records, processes and workers do not affect it.

        Args:
          index: of the record.
          random: decides the augmentation, and the replacement.

        Raises:
          ValueError: 100 unreadable records in a row.
        """
        unreadable: list[Unreadable] = []
        while True:
            try:
                record = self.records[int(index)]
                image = self._augmented(record["image"], random)
            except (OSError, decode.UnreadableImageError) as problem:
                unreadable.append(Unreadable(self.records.name(int(index)), str(problem)))
                if len(unreadable) == _MOST_IN_A_ROW:
                    SkippedRecords(self.data.max_skipped_share).add(0, unreadable)
                index = int(random.integers(len(self.records)))
                continue
            return {"image": image, "label": np.asarray(record["label"], np.int32), SKIPPED: tuple(unreadable)}

    def _augmented(self, image: np.ndarray | bytes, random: np.random.Generator) -> np.ndarray:
        if self.data.crop == "inception":
            square = images.inception_crop(image, self.image_size_px, self.data.crop_min_area, random)
        else:
            square = images.to_square(image, self.image_size_px)
        if self.data.randaugment_layers == 0:
            return square
        return randaugment.randaugment(square, self.data.randaugment_layers, self.data.randaugment_magnitude, random)


@dataclasses.dataclass(frozen=True)
class EvaluationReader:
    """A record by its index, the centre of its image."""

    records: Records
    image_size_px: int
    framing: Framing

    def __call__(self, index: int) -> dict[str, Any]:
        """The record as arrays; a black image of mask False in place of an unreadable one, and beyond the last."""
        if index >= len(self.records):
            return self._filler(())
        try:
            record = self.records[int(index)]
            image = images.to_square(record["image"], self.image_size_px, self.framing)
        except (OSError, decode.UnreadableImageError) as problem:
            return self._filler((Unreadable(self.records.name(int(index)), str(problem)),))
        return self.example(image, record["label"], index, True, ())

    def _filler(self, unreadable: tuple[Unreadable, ...]) -> dict[str, Any]:
        black = np.zeros((self.image_size_px, self.image_size_px, 3), np.uint8)
        return self.example(black, 0, 0, False, unreadable)

    @staticmethod
    def example(
        image: np.ndarray, label: int, index: int, mask: bool, unreadable: tuple[Unreadable, ...]
    ) -> dict[str, Any]:
        """The arrays of an image [P, P, 3] and its record; of filler the mask is False."""
        return {
            "image": image,
            "label": np.asarray(label, np.int32),
            "index": np.asarray(index, np.int32),
            "mask": np.asarray(mask, np.bool_),
            SKIPPED: unreadable,
        }
