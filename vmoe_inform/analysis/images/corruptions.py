"""Changes of routing and accuracy under each corruption and severity, on the same images."""

from collections.abc import Callable

import numpy as np

from vmoe_inform.analysis.collect.observing import Observer
from vmoe_inform.analysis.collect.perturbed import compared
from vmoe_inform.analysis.results import Certified, Corruptions
from vmoe_inform.data.images.published import CORRUPTIONS, SEVERITIES
from vmoe_inform.data.sources import Source


def of_all(
    observer: Observer, clean: Source, corrupted: Callable[[str, int], Source], say: Callable[[str], None]
) -> Corruptions:
    """Analyses the images under all corruptions.

    Args:
      observer: of the checkpoint.
      clean: the images without corruption.
      corrupted: by corruption and severity, the same images in their order.
      say: called with a line for each corruption.

    Raises:
      ValueError: as :meth:`vmoe_inform.analysis.images.data.Images.corrupted`.
    """
    with observer.keeps_workers():
        before = observer.certified(clean)
        top1 = np.zeros((len(CORRUPTIONS), len(SEVERITIES)))
        rerouted = {block: np.zeros_like(top1) for block in before[0].experts}
        certified = {block: np.zeros((3, *top1.shape)) for block in before[1]}
        for row, corruption in enumerate(CORRUPTIONS):
            for column, severity in enumerate(SEVERITIES):
                after = observer.certified(corrupted(corruption, severity))
                both = np.intersect1d(after[0].indices, before[0].indices)  # could be read
                top1[row, column] = observer.score(after[0].of(both))
                for block, found in compared(before, after).items():
                    rerouted[block][row, column] = found.rerouted
                    if found.certified is not None:
                        certified[block][:, row, column] = found.certified
            say(f"{corruption}: top-1 {100 * top1[row, 0]:.1f} % at severity 1, {100 * top1[row, -1]:.1f} % at 5")
    return Corruptions(
        names=tuple(CORRUPTIONS),
        severities=tuple(SEVERITIES),
        top1=_rows(top1),
        clean_top1=observer.score(before[0]),
        rerouted={block: _rows(shares) for block, shares in rerouted.items()},
        certified={block: Certified(*map(_rows, found)) for block, found in certified.items()},
    )


def _rows(values: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, values.tolist()))
