"""What updates of a step's state keep to, for contract.py."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vmoe_inform.axes import Array, Tree
from vmoe_inform.routing._function_trial import close
from vmoe_inform.routing._trial import DURATION, expect
from vmoe_inform.routing.steps import LayerSizes, VariableStep


def check_state(
    step: VariableStep,
    sums: Callable[[Tree, slice], Tree],
    parameters: Mapping[str, Array],
    sizes: LayerSizes,
    options: dict[str, Any],
    *,
    must_change: bool = True,
) -> None:
    """An update keeps the state's form, changes something, and is the same with and without jit.

    Args:
      step: with a state that is updated.
      sums: ``sums(state, part)``, what the step observes of a part of the batch.
      parameters: of the step.
      sizes: of the layer.
      options: of the step.
      must_change: whether the update has to change something.

    Raises:
      ValueError: it does not keep to that, or sums of parts do not add up to those of the batch.
    """
    assert step.initial_state is not None
    assert step.update_state is not None
    update_state, name, whole = step.update_state, f"{step.name}.update_state", slice(None)
    state = step.initial_state(jax.random.key(0), sizes, **options)

    given = {"duration": DURATION} if step.needs_duration else {}

    def update(state: Tree) -> Tree:
        return update_state(state, sums(state, whole), parameters, **given, **options)

    @jax.jit
    def both(state: Tree) -> tuple[Tree, Tree]:
        return jax.tree.map(jnp.add, sums(state, slice(0, 1)), sums(state, slice(1, None))), sums(state, whole)

    added = all(close(*pair) for pair in zip(*map(jax.tree.leaves, both(state)), strict=True))
    expect(f"{step.name}.observe", "sums: those of the parts of a batch add up to the batch's", "others", holds=added)

    updated, eager = jax.jit(update)(state), update(state)
    forms = [jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.asarray(leaf).dtype), tree) for tree in (updated, state)]
    expect(name, f"the form of the state: {forms[1]}", forms[0], holds=forms[0] == forms[1])
    pairs = list(zip(*map(jax.tree.leaves, (updated, state, eager)), strict=True))
    finite = all(np.isfinite(new).all() for new, _, _ in pairs)
    expect(name, "finite values", "NaN or infinity", holds=finite)
    changed = any(not np.array_equal(new, old) for new, old, _ in pairs)
    expect(name, "a change of the state", "none", holds=changed or not must_change)
    same = all(np.allclose(new, other, rtol=1e-6) for new, _, other in pairs)
    expect(name, "the same with and without jit", "a difference", holds=same)
