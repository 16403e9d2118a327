"""Records derived from those of another set as they are read: corrupted, or selected."""

import dataclasses
import threading

import numpy as np
from jaxtyping import Int

from vmoe_inform.data.images import pixels as images
from vmoe_inform.data.images.framing import Framing
from vmoe_inform.data.records import Record, Records, SelectedRecords
from vmoe_inform.evaluation import corruptions

# The corruptions draw from numpy's global generator, whose threads would get in each other's way.
_DRAWING = threading.Lock()


@dataclasses.dataclass(frozen=True)
class CorruptedRecords:
    """The records of a set, each at the model's size and with one corruption, for sets too large to keep 75 of them.

    An image's randomness is seeded by its number. So the order, the process and the number of reads do not matter.
    Several processes draw in parallel; the threads of one take turns.

    Attributes:
      records: of the clean images.
      image_size_px, framing: as :func:`vmoe_inform.data.images.pixels.to_square` takes them.
      corruption, severity, seed: as :func:`vmoe_inform.evaluation.corruptions.corrupt` takes them.
    """

    records: Records
    image_size_px: int
    framing: Framing
    corruption: str
    severity: int
    seed: int

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Record:
        record = self.records[index]
        image = images.to_square(record["image"], self.image_size_px, self.framing)
        with _DRAWING:
            drawn = corruptions.corrupt(image, index, self.corruption, self.severity, self.seed)
        return {"image": drawn, "label": record["label"]}

    def name(self, index: int) -> str:
        return self.records.name(index)

    def relabelled(self, labels: Int[np.ndarray, " classes"]) -> "CorruptedRecords":
        return dataclasses.replace(self, records=self.records.relabelled(labels))

    def selected(self, numbers: Int[np.ndarray, " k"]) -> SelectedRecords:
        return SelectedRecords(self, tuple(numbers.tolist()))
