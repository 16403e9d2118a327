"""The table of certificates on an interactive page."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from vmoe_inform.analysis.results import Certified, Corruptions, SwappedWords


@dataclasses.dataclass(frozen=True)
class CertifiedRow:
    """One change of the inputs: means over the layers that have certificates, and over severities if it has some.

    Attributes:
      name: of the change.
      length: by which a token's base probabilities move.
      by_margin, by_pairs: shares of the tokens that provably keep their experts.
      kept: share of the tokens that keep them.
    """

    name: str
    length: float
    by_margin: float
    by_pairs: float
    kept: float


def of_corruptions(found: Corruptions | None) -> tuple[CertifiedRow, ...]:
    """A row for each corruption, and at last one for the mean of all; none without certificates."""
    if found is None or not found.certified:
        return ()
    names = [name.replace("_", " ") for name in found.names]
    rerouted = [found.rerouted[block] for block in found.certified]
    rows = _rows(names, [*found.certified.values()], np.mean(np.asarray(rerouted), axis=2))
    means = np.mean([dataclasses.astuple(row)[1:] for row in rows], axis=0)
    return (*rows, CertifiedRow("mean of all", *means.tolist()))


def of_swaps(found: SwappedWords | None) -> tuple[CertifiedRow, ...]:
    """A row for each share of swapped words; none without certificates."""
    if found is None or not found.certified:
        return ()
    names = [f"{100 * share:g} % of the words of a line" for share in found.share]
    rerouted = [found.rerouted[block] for block in found.certified]
    return _rows(names, [*found.certified.values()], np.asarray(rerouted))


def _rows(names: Sequence[str], certified: Sequence[Certified], rerouted: np.ndarray) -> tuple[CertifiedRow, ...]:
    """``rerouted`` [layers, changes]; the certificates are by change, then by severity if there are some."""
    columns = [
        np.mean([np.asarray(getattr(of, field)).reshape(len(names), -1).mean(axis=1) for of in certified], axis=0)
        for field in ("length", "by_margin", "by_pairs")
    ]
    columns.append(1 - np.mean(rerouted, axis=0))
    return tuple(CertifiedRow(name, *map(float, values)) for name, *values in zip(names, *columns, strict=True))
