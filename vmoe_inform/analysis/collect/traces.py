"""Records of a router on some sequences: one typed record for each MoE layer, on the host."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Self

import jax
import numpy as np

from vmoe_inform.axes import Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerTrace:
    """One MoE layer's routing of n sequences of N tokens; a field that was not kept is None.

    Attributes:
      base: softmax of the router's own logits.
      informed: what the experts are chosen from, scaled to sum 1.
      base_indices: the K experts of the largest base logits, the largest first.
      indices: the K chosen experts, the first choice first; E where there is none.
      weights: of the chosen experts, as the outputs are multiplied by; 0 where there is none.
      load: how much of a token goes to each expert, dropped choices included. It sums to 1 where tokens choose K.
      dropped: share of a token's choices that got no slot.
      margin: K-th minus (K + 1)-th largest informed probability; infinite where K = E; None also where it is not the
        tokens that choose.
      graph: row i holds the weights with which token i attends to each token; None also where tokens do not mix.
      key_squares: squared length of what each token is compared with as a key of the graph. Of the attention posterior
        it is the length of a head's mean. None where the router has no such lengths.
    """

    base: Float[np.ndarray, "n N E"] | None = None
    informed: Float[np.ndarray, "n N E"] | None = None
    base_indices: Int[np.ndarray, "n N K"] | None = None
    indices: Int[np.ndarray, "n N K"] | None = None
    weights: Float[np.ndarray, "n N K"] | None = None
    load: Float[np.ndarray, "n N E"] | None = None
    dropped: Float[np.ndarray, "n N"] | None = None
    margin: Float[np.ndarray, "n N"] | None = None
    graph: Float[np.ndarray, "n N N"] | None = None
    key_squares: Float[np.ndarray, "n N"] | None = None

    def only(self, fields: Collection[str]) -> Self:
        """With these fields alone."""
        return type(self)(**{name: getattr(self, name) for name in fields})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trace:
    """The routing of n sequences by a model.

    Attributes:
      layers: by block name, in the model's order.
      num_experts: E.
      label: what was traced, for titles, e.g. ``"vmoe, step 537"``; may be empty.
    """

    layers: Mapping[str, LayerTrace]
    num_experts: int
    label: str = ""
