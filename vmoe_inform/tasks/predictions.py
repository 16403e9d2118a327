"""What models say about a set of records, in the order of its records: one type for each kind of answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from vmoe_inform.axes import Bool, Float, Int


class Answers(Protocol):
    """What all kinds of answers share; they are about the n readable records of a set."""

    @property
    def indices(self) -> Int[np.ndarray, " n"]:
        """Number of each record in its source, ascending."""
        ...

    @property
    def skipped(self) -> int:
        """Records that could not be read, which are not among the n."""
        ...

    @property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """The answers and what they are compared with, for files of predictions, [n, ...] each."""
        ...


@dataclass(frozen=True)
class Predictions:
    """What a classifier says.

    Attributes:
      logits: [n, classes].
      labels: [n].
      indices, skipped: as of :class:`Answers`.
    """

    logits: Float[np.ndarray, "n classes"]
    labels: Int[np.ndarray, " n"]
    indices: Int[np.ndarray, " n"]
    skipped: int

    @property
    def arrays(self) -> Mapping[str, np.ndarray]:
        return {"logits": self.logits.astype(np.float32), "labels": self.labels}


@dataclass(frozen=True)
class TokenLosses:
    """What a language model says: how surprised it is by each token. Records are windows of N tokens.

    Attributes:
      nats: -log of the probability of each target, [n, N].
      targets: token ids, [n, N].
      mask: False for filler, which counts nowhere, [n, N].
      indices, skipped: as of :class:`Answers`.
    """

    nats: Float[np.ndarray, "n N"]
    targets: Int[np.ndarray, "n N"]
    mask: Bool[np.ndarray, "n N"]
    indices: Int[np.ndarray, " n"]
    skipped: int

    @property
    def arrays(self) -> Mapping[str, np.ndarray]:
        return {"nats": self.nats.astype(np.float32), "targets": self.targets, "mask": self.mask}
