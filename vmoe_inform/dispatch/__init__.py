"""Ways to move tokens to experts and back.

A router ends in a plan, of one of three kinds: tokens that choose experts (:class:`Assignment`), slots that choose
tokens (:class:`SlotChoice`), or soft slots (:class:`SoftSlots`). :func:`carry_out` executes it. Each expert receives
its tokens as rows [E, G, T, D], where empty rows are zero. The result is the sum of each token's expert outputs times
their weights. A dropped assignment contributes nothing.

For tokens that choose experts there are several dispatchers, interchangeable behind one contract:
``dispatcher(tokens [G, S, D], assignment, experts) -> outputs [G, S, D]``. ``ragged`` passes its rows in another shape:
blocks [X, T, D] of one expert each. Its second argument is the expert of each block [X], where E means none.
``segments`` passes rows [R, D], and where those of each expert are (:class:`Segments`).
"""

from collections.abc import Callable
from typing import TypeAlias

from vmoe_inform.axes import Array, ExpertFunction, Float
from vmoe_inform.dispatch.capacity import Assignment, assign_slots, expert_capacity
from vmoe_inform.dispatch.choice import choose_dispatcher, current_platform
from vmoe_inform.dispatch.einsum import dispatch_einsum
from vmoe_inform.dispatch.gather import dispatch_gather
from vmoe_inform.dispatch.ragged import dispatch_ragged
from vmoe_inform.dispatch.reference import dispatch_reference
from vmoe_inform.dispatch.segment_products import Segments
from vmoe_inform.dispatch.segments import dispatch_segments
from vmoe_inform.dispatch.slots import SlotChoice, dispatch_slots
from vmoe_inform.dispatch.soft import SoftSlots, dispatch_soft
from vmoe_inform.registry import Registry

Plan: TypeAlias = Assignment | SlotChoice | SoftSlots
Dispatcher = Callable[[Float[Array, "G S D"], Assignment, ExpertFunction], Float[Array, "G S D"]]

DISPATCHERS: Registry[Dispatcher] = Registry("dispatcher")
DISPATCHERS.add("reference", dispatch_reference)
DISPATCHERS.add("einsum", dispatch_einsum)
DISPATCHERS.add("gather", dispatch_gather)
DISPATCHERS.add("ragged", dispatch_ragged)
DISPATCHERS.add("segments", dispatch_segments)
NEED_ALL_EXPERTS = ("ragged", "segments")  # on each device, which sorts its own tokens


def carry_out(
    tokens: Float[Array, "G S D"], plan: Plan, experts: ExpertFunction, *, dispatcher: str = "gather"
) -> Float[Array, "G S D"]:
    """Carries out a plan.

    Args:
      tokens: [G, S, D].
      plan: from a select step.
      experts: rows [E, G, T, D] -> rows of the same shape. For ``ragged`` blocks [X, T, D], and their experts [X]. For
        ``segments`` rows [R, D], and the segments.
      dispatcher: registered way to move tokens that choose experts; the other kinds of plan have one way each.

    Raises:
      ValueError: unknown dispatcher.
    """
    match plan:
        case SlotChoice():
            return dispatch_slots(tokens, plan, experts)
        case SoftSlots():
            return dispatch_soft(tokens, plan, experts)
        case Assignment():
            return DISPATCHERS[dispatcher](tokens, plan, experts)


__all__ = [
    "DISPATCHERS",
    "NEED_ALL_EXPERTS",
    "Assignment",
    "Dispatcher",
    "Plan",
    "Segments",
    "SlotChoice",
    "SoftSlots",
    "assign_slots",
    "carry_out",
    "choose_dispatcher",
    "current_platform",
    "expert_capacity",
]
