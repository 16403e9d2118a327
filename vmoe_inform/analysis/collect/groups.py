"""Which records are looked at where not all are."""

import math

import numpy as np


def whole_groups(number: int, group_size: int, limit: int | None) -> list[int]:
    """Indices of at most ``limit`` of ``number`` records, in whole groups of consecutive ones, evenly over all."""
    if limit is None or limit >= number:
        return list(range(number))
    num_groups, wanted = math.ceil(number / group_size), limit // group_size
    first = np.arange(wanted) * num_groups // wanted * group_size
    return [index for start in first.tolist() for index in range(start, min(start + group_size, number))]
