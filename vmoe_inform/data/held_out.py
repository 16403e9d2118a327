"""Which records of a training split are held out for validation."""

import numpy as np
from jaxtyping import Bool

_GOLDEN_RATIO = (1 + 5**0.5) / 2


def held_out(count: int, share: float) -> Bool[np.ndarray, " n"]:
    """Which of ``count`` records are held out for validation: ``share`` of them, evenly spread.

    Record i is held out if the fractional part of i / golden ratio is below ``share``. Any run of consecutive records
    has its share of them to within a few, since Weyl's sequence of the golden ratio has the lowest discrepancy. So a
    split that is sorted by class is held out class by class. No period of the records, such as 0 1 2 ... 9 0 1 2 ...,
    coincides with an irrational step. The choice depends on no random generator.
    """
    return np.mod(np.arange(count) / _GOLDEN_RATIO, 1.0) < share


def is_held_out(number: int, share: float) -> bool:
    """Whether :func:`held_out` holds out the record of this number."""
    return bool(np.mod(number / _GOLDEN_RATIO, 1.0) < share)
