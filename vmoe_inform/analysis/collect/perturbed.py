"""What a change of the inputs does to the routing of the same tokens: measured, and what certificates say of it."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from vmoe_inform.analysis.collect.choices import Choices, changed
from vmoe_inform.analysis.collect.observing import Certifiable

Certified = tuple[Choices, Mapping[str, Certifiable]]  # as the observer gives them


@dataclasses.dataclass(frozen=True)
class Perturbed:
    """The tokens of a layer.

    Attributes:
      rerouted: share of them with another set of experts.
      certified: mean length by which their base probabilities moved. Then the shares of them that provably keep their
        experts, each for its own length, by margin and by pairs. None where there are no certificates.
    """

    rerouted: float
    certified: tuple[float, float, float] | None


def compared(before: Certified, after: Certified) -> dict[str, Perturbed]:
    """By block what happened to the tokens of all records that could be read both times."""
    (clean, certifiable), (moved, moved_certifiable) = before, after
    both = np.intersect1d(moved.indices, clean.indices)
    experts, experts_after = clean.of(both).of_tokens, moved.of(both).of_tokens
    rows, rows_after = (np.searchsorted(of.indices, both) for of in (clean, moved))
    real = clean.real[rows]

    def certified(block: str) -> tuple[float, float, float] | None:
        if block not in certifiable:
            return None
        of_block = certifiable[block]
        radii, base = (np.asarray(array)[rows][real] for array in (of_block.radii, of_block.base))
        other = np.asarray(moved_certifiable[block].base)[rows_after][real]
        lengths = np.linalg.norm(other.astype(np.float64) - base, axis=-1)
        by_margin, by_pairs = np.mean(radii > lengths[:, None], axis=0).tolist()
        return float(np.mean(lengths)), by_margin, by_pairs

    return {
        block: Perturbed(float(np.mean(changed(experts[block], of_block))), certified(block))
        for block, of_block in experts_after.items()
    }
