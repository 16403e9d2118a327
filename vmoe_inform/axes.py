"""The axis letters and the array types that every signature of this package is written in.

========  =====================================================================
letter    meaning
========  =====================================================================
B         images (or sequences) of a batch
N         tokens of one image
R         tokens whose rows of an N x N matrix are processed at a time
D         hidden size: width of a token
H         attention heads
F         width of one head, D / H
E         experts of a MoE layer
K         experts selected for each token
G         routing groups
S         tokens of one group (images per group x N)
C         capacity: slots of one expert for one group
T         rows of one expert for one group: its C slots, or all S tokens in the reference; rows of a block
X         blocks of rows of one expert each
M         width of the hidden layer of an MLP or expert
========  =====================================================================

``...`` in a shape stands for any leading batch axes.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
from jaxtyping import Bool, Float, Int, UInt

Array: TypeAlias = jax.Array
Tree: TypeAlias = Any  # a pytree of arrays
# Rows of the experts -> the same rows; in which shapes is said in vmoe_inform.dispatch.
ExpertFunction: TypeAlias = Callable[..., Array]

__all__ = ["Array", "Bool", "ExpertFunction", "Float", "Int", "Tree", "UInt"]
