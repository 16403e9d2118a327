"""Changes of routing and accuracy under each corruption and severity, on the same images."""

from collections.abc import Callable

import numpy as np

from vmoe_inform.analysis.collect.choices import changed
from vmoe_inform.analysis.collect.images import Images
from vmoe_inform.analysis.collect.observing import Observer, Seen
from vmoe_inform.analysis.results import Corruptions
from vmoe_inform.axes import Tree
from vmoe_inform.data.images.published import CORRUPTIONS, SEVERITIES


def of_all(observer: Observer, variables: Tree, images: Images, clean: Seen, say: Callable[[str], None]) -> Corruptions:
    """Analyses the images under all corruptions.

    Args:
      observer: of the model.
      variables: of the checkpoint.
      images: as ``clean`` is of.
      clean: what was seen of them without corruption.
      say: called with a line for each corruption.

    Raises:
      ValueError: as :meth:`vmoe_inform.analysis.collect.images.Images.corrupted`.
    """
    top1 = np.zeros((len(CORRUPTIONS), len(SEVERITIES)))
    rerouted = {block: np.zeros_like(top1) for block in clean.chosen}
    for row, corruption in enumerate(CORRUPTIONS):
        for column, severity in enumerate(SEVERITIES):
            right, moved, count = 0, dict.fromkeys(rerouted, 0), 0
            source = images.corrupted(corruption, severity)
            for records, hits, experts in observer.choices(variables, source):
                both = clean.readable[records]
                count += int(np.count_nonzero(both))
                right += int(np.count_nonzero(hits[both]))
                for block, of_block in experts.items():
                    before = clean.chosen[block][records[both]]
                    moved[block] += int(np.count_nonzero(changed(before, of_block[both])))
            top1[row, column] = right / count
            for block, number in moved.items():
                rerouted[block][row, column] = number / (count * clean.chosen[block].shape[1])
        say(f"{corruption}: top-1 {100 * top1[row, 0]:.1f} % at severity 1, {100 * top1[row, -1]:.1f} % at 5")
    return Corruptions(
        names=tuple(CORRUPTIONS),
        severities=tuple(SEVERITIES),
        top1=_rows(top1),
        clean_top1=clean.top1,
        rerouted={block: _rows(shares) for block, shares in rerouted.items()},
    )


def _rows(values: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, values.tolist()))
