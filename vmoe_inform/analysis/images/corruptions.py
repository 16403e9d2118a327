"""Changes of routing and accuracy under each corruption and severity, on the same images."""

from collections.abc import Callable

import numpy as np

from vmoe_inform.analysis.collect.choices import Choices, changed
from vmoe_inform.analysis.collect.observing import Observer
from vmoe_inform.analysis.results import Corruptions
from vmoe_inform.data.images.published import CORRUPTIONS, SEVERITIES
from vmoe_inform.data.sources import Source


def of_all(
    observer: Observer,
    corrupted: Callable[[str, int], Source],
    clean: Choices,
    say: Callable[[str], None],
) -> Corruptions:
    """Analyses the images under all corruptions.

    Args:
      observer: of the checkpoint.
      corrupted: by corruption and severity, the images that ``clean`` is of, in their order.
      clean: choices without corruption.
      say: called with a line for each corruption.

    Raises:
      ValueError: as :meth:`vmoe_inform.analysis.images.data.Images.corrupted`.
    """
    top1 = np.zeros((len(CORRUPTIONS), len(SEVERITIES)))
    rerouted = {block: np.zeros_like(top1) for block in clean.experts}
    for row, corruption in enumerate(CORRUPTIONS):
        for column, severity in enumerate(SEVERITIES):
            found = observer.choices(corrupted(corruption, severity))
            both = np.intersect1d(found.indices, clean.indices)  # could be read
            found, before = found.of(both), clean.of(both).of_tokens
            top1[row, column] = observer.score(found)
            for block, after in found.of_tokens.items():
                rerouted[block][row, column] = np.mean(changed(before[block], after))
        say(f"{corruption}: top-1 {100 * top1[row, 0]:.1f} % at severity 1, {100 * top1[row, -1]:.1f} % at 5")
    return Corruptions(
        names=tuple(CORRUPTIONS),
        severities=tuple(SEVERITIES),
        top1=_rows(top1),
        clean_top1=observer.score(clean),
        rerouted={block: _rows(shares) for block, shares in rerouted.items()},
    )


def _rows(values: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, values.tolist()))
