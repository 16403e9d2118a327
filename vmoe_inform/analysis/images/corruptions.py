"""Changes of routing and accuracy under each corruption and severity, on the same images."""

import dataclasses
from collections.abc import Callable

import numpy as np

from vmoe_inform.analysis.collect.choices import Choices, changed
from vmoe_inform.analysis.collect.observing import Certifiable, Observer
from vmoe_inform.analysis.results import Certified, Corruptions
from vmoe_inform.axes import Int
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
    before, certifiable = observer.certified(clean)
    top1 = np.zeros((len(CORRUPTIONS), len(SEVERITIES)))
    rerouted = {block: np.zeros_like(top1) for block in before.experts}
    certified = {block: np.zeros((3, *top1.shape)) for block in certifiable}
    for row, corruption in enumerate(CORRUPTIONS):
        for column, severity in enumerate(SEVERITIES):
            after, moved = observer.certified(corrupted(corruption, severity))
            both = np.intersect1d(after.indices, before.indices)  # could be read
            top1[row, column] = observer.score(after.of(both))
            experts = before.of(both).of_tokens
            for block, of_block in after.of(both).of_tokens.items():
                rerouted[block][row, column] = np.mean(changed(experts[block], of_block))
            for block, found in certified.items():
                found[:, row, column] = _certified(before, certifiable[block], after, moved[block], both)
        say(f"{corruption}: top-1 {100 * top1[row, 0]:.1f} % at severity 1, {100 * top1[row, -1]:.1f} % at 5")
    return Corruptions(
        names=tuple(CORRUPTIONS),
        severities=tuple(SEVERITIES),
        top1=_rows(top1),
        clean_top1=observer.score(before),
        rerouted={block: _rows(shares) for block, shares in rerouted.items()},
        certified={block: Certified(*map(_rows, found)) for block, found in certified.items()},
    )


def _certified(
    clean: Choices, before: Certifiable, corrupted: Choices, after: Certifiable, both: Int[np.ndarray, " n"]
) -> tuple[float, float, float]:
    """Mean length of the change of a token's base probabilities, and the shares of tokens with a larger radius."""
    rows, rows_after = (np.searchsorted(of.indices, both) for of in (clean, corrupted))
    real = clean.real[rows]
    radii, base = (np.asarray(array)[rows][real] for array in (before.radii, before.base))
    moved = np.asarray(after.base)[rows_after][real]
    lengths = np.linalg.norm(moved.astype(np.float64) - base, axis=-1)
    by_margin, by_pairs = np.mean(radii > lengths[:, None], axis=0).tolist()
    return float(np.mean(lengths)), by_margin, by_pairs


@dataclasses.dataclass(frozen=True)
class CertifiedRow:
    """A corruption in the table of certificates: means over its severities and over the layers that have certificates.

    Attributes:
      corruption: its name; empty for the mean of all.
      length: of the change of a token's base probabilities.
      by_margin, by_pairs: shares of the tokens that provably keep their experts.
      kept: share of the tokens that keep them.
    """

    corruption: str
    length: float
    by_margin: float
    by_pairs: float
    kept: float


def certified_rows(found: Corruptions | None) -> tuple[CertifiedRow, ...]:
    """The table of certificates, with the mean of all corruptions last; empty where there are no certificates."""
    if found is None or not found.certified:
        return ()
    parts = [(of.length, of.by_margin, of.by_pairs) for of in found.certified.values()]
    kept = [1 - np.asarray(found.rerouted[block]) for block in found.certified]
    columns = [*np.mean(np.asarray(parts), axis=(0, 3)), np.mean(np.asarray(kept), axis=(0, 2))]
    means = [*zip(found.names, *columns, strict=True), ("", *(np.mean(column) for column in columns))]
    return tuple(CertifiedRow(name, *map(float, values)) for name, *values in means)


def _rows(values: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, values.tolist()))
