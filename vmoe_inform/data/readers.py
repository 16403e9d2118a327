"""What is done to one record on the host: read, decode, crop, augment. Copies of these go to worker processes."""

import dataclasses

import numpy as np

from vmoe_inform.config import DataConfig
from vmoe_inform.data import decode, images, randaugment
from vmoe_inform.data.records import Records
from vmoe_inform.data.skipped import Unreadable

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class TrainingReader:
    """A record by its index, cropped and augmented as ``data`` says."""

    records: Records
    image_size_px: int
    data: DataConfig

    def __call__(self, index: int, random: np.random.Generator) -> Batch | Unreadable:
        """The record as arrays. ``random`` decides the augmentation."""
        try:
            record = self.records[int(index)]
            image = self._augmented(record["image"], random)
        except (OSError, decode.UnreadableImageError) as problem:
            return Unreadable(self.records.name(int(index)), str(problem))
        return {"image": image, "label": np.asarray(record["label"], np.int32)}

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
    crop: float

    def __call__(self, index: int) -> Batch | Unreadable:
        """The record as arrays."""
        try:
            record = self.records[int(index)]
            image = images.to_square(record["image"], self.image_size_px, self.crop)
        except (OSError, decode.UnreadableImageError) as problem:
            return Unreadable(self.records.name(int(index)), str(problem))
        return {
            "image": image,
            "label": np.asarray(record["label"], np.int32),
            "index": np.asarray(index, np.int32),
        }
