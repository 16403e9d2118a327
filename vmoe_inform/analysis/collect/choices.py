"""Two sets of choices of the same tokens, by two checkpoints or on two versions of the inputs."""

import dataclasses
from collections.abc import Mapping
from typing import Self

import jax
import numpy as np

from vmoe_inform import checks
from vmoe_inform.analysis.collect.traces import Trace
from vmoe_inform.analysis.results import Change
from vmoe_inform.axes import Bool, Int, Tree

Chosen = Mapping[str, Int[np.ndarray, "*tokens K"]]  # by block: the experts of every token, E where there is none


@dataclasses.dataclass(frozen=True)
class Choices:
    """The experts of every token of n records, and what the task keeps of these records.

    Attributes:
      indices: numbers of the records in their source, ascending.
      real: which tokens are no filler.
      experts: by block [n, N, K].
      kept: what the task keeps, [n, ...] each.
      facts: the task's facts of the records, [n, ...] each.
    """

    indices: Int[np.ndarray, " n"]
    real: Bool[np.ndarray, "n N"]
    experts: Chosen
    kept: Tree
    facts: Mapping[str, np.ndarray]

    @property
    def of_tokens(self) -> Chosen:
        """By block the experts of the real tokens [T, K]."""
        return {block: experts[self.real] for block, experts in self.experts.items()}

    def of(self, indices: Int[np.ndarray, " k"]) -> Self:
        """Of the records only those of these numbers, which are among them."""
        rows = np.searchsorted(self.indices, indices)
        taken = jax.tree.map(lambda values: values[rows], (self.real, self.experts, self.kept, self.facts))
        return type(self)(indices, *taken)


def fluctuation(before: Chosen, after: Chosen) -> dict[str, Change]:
    """By block the share of tokens whose choice changed between two checkpoints, shown the same inputs.

    ``set``: their K experts are not the same (Mutual-Inform SMoE, Fig. 2: one or both of two were switched);
    ``first``: the first choice is not.

    Raises:
      ValueError: choices of other layers, or of other inputs, tokens or K.
    """
    _check_alike(before, after)
    return {
        block: Change(
            set=float(np.mean(changed(before[block], after[block]))),
            first=float(np.mean(before[block][..., 0] != after[block][..., 0])),
        )
        for block in after
    }


def changed(before: Int[np.ndarray, "*batch K"], after: Int[np.ndarray, "*batch K"]) -> np.ndarray:
    """Whether each token's set of K experts is another one."""
    return np.any(np.sort(before, axis=-1) != np.sort(after, axis=-1), axis=-1)


def choices(trace: Trace) -> dict[str, np.ndarray]:
    """The experts of every token, by block, as :func:`fluctuation` takes them.

    Raises:
      ValueError: they were not kept.
    """
    found = {}
    for block, layer in trace.layers.items():
        if layer.indices is None:
            raise checks.error(f"trace of {block}", "the field 'indices' (trace(..., keep=...))", None)
        found[block] = layer.indices
    return found


def _check_alike(before: Chosen, after: Chosen) -> None:
    if list(before) != list(after):
        raise checks.error("MoE layers", ", ".join(before), ", ".join(after))
    for block in before:
        if before[block].shape != after[block].shape:
            expected = f"shape {[*before[block].shape]}"
            raise checks.error(f"choices of {block}", expected, [*after[block].shape])
