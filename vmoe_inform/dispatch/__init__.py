"""Ways to move tokens to experts and back, interchangeable behind one contract.

A dispatcher is ``dispatch(tokens [G, S, D], assignment, experts) -> outputs [G, S, D]``: it hands each expert its
tokens as rows [E, G, T, D], where empty rows are zero, and returns the sum of each token's expert outputs times their
weights. A dropped assignment contributes nothing.
"""

from collections.abc import Callable

from vmoe_inform.axes import Array, ExpertFunction, Float
from vmoe_inform.dispatch.capacity import Assignment, assign_slots, expert_capacity
from vmoe_inform.dispatch.einsum import dispatch_einsum
from vmoe_inform.dispatch.gather import dispatch_gather
from vmoe_inform.dispatch.reference import dispatch_reference
from vmoe_inform.registry import Registry

Dispatcher = Callable[[Float[Array, "G S D"], Assignment, ExpertFunction], Float[Array, "G S D"]]

DISPATCHERS: Registry[Dispatcher] = Registry("dispatcher")
DISPATCHERS.add("reference", dispatch_reference)
DISPATCHERS.add("einsum", dispatch_einsum)
DISPATCHERS.add("gather", dispatch_gather)

__all__ = ["DISPATCHERS", "Assignment", "Dispatcher", "assign_slots", "expert_capacity"]
