"""What the numbers of a suite are called and how they are shown."""

import dataclasses
from typing import Literal

Unit = Literal["share", "ratio", "nats", "images"]


@dataclasses.dataclass(frozen=True)
class Metric:
    """One number of a suite.

    Attributes:
      name: key in results.json.
      title: in words; ``{classes}`` becomes the number of classes of the model.
      short_title: where there is little room; empty for the title.
      unit: ``share`` is from 0 to 1 and shown in %, with an interval; ``ratio`` is shown in % of another model's.
      less_is_better: as for errors.
    """

    name: str
    title: str
    short_title: str = ""
    unit: Unit = "share"
    less_is_better: bool = False


TOP1 = Metric("top1", "top-1 accuracy")
TOP5 = Metric("top5", "top-5 accuracy")
NLL = Metric("nll", "negative log-likelihood", unit="nats", less_is_better=True)
AURC = Metric("aurc", "area under the risk-coverage curve, less is better", less_is_better=True)
