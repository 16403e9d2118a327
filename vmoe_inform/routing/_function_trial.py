"""What every function of a step keeps to, for contract.py: jit equals eager, finite values and gradients, precision."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxprs_in_params

from vmoe_inform.axes import Array, Tree
from vmoe_inform.routing._trial import Inputs, expect


def check_function(name: str, function: Callable[[Inputs], Tree], first: Inputs, second: Inputs) -> Tree:
    """Checks a function, and returns its result for ``first``.

    jit equals eager, two calls compile once, and the same input gives the same bits. Values and gradients are finite,
    and products have the highest precision.
    """
    traces: list[None] = []

    @jax.jit
    def both(tree: Inputs) -> tuple[Tree, Tree]:
        traces.append(None)

        def loss(learned: Tree) -> tuple[Array, Tree]:
            result = function({**tree, "learned": learned})
            return sum((jnp.sum(leaf**2) for leaf in _floats(result)), jnp.zeros(())), result

        gradients, result = jax.grad(loss, has_aux=True)(tree["learned"])
        return result, gradients

    result, gradients = both(first)
    again, _ = both(first)
    both(second)
    expect(name, "one compilation for inputs of the same shape", len(traces), holds=len(traces) == 1)
    kinds = {leaf.dtype.name for leaf in jax.tree.leaves(result)}
    expect(name, "float32, int32 or bool", sorted(kinds), holds=kinds <= {"float32", "int32", "bool"})
    for what, tree in (("values", result), ("gradients", gradients)):
        finite = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))
        expect(name, f"finite {what}", "NaN or infinity", holds=finite)
    for one, two, eager in zip(*map(jax.tree.leaves, (result, again, function(first))), strict=True):
        same = np.array_equal(one, two)
        expect(name, "the same bits for the same input", "others", holds=same)
        expect(name, "the same with and without jit", "a difference", holds=close(one, eager))
    check_products(name, both, first)
    return result


def check_products(name: str, function: Callable[..., Any], *arguments: Any) -> None:
    """A router's matrix products are float32 at the highest precision, also on an accelerator (decision 6).

    Factors may be bfloat16 as they come from the model: their products are exact in float32.

    Raises:
      ValueError: another product; :func:`vmoe_inform.routing.products.float32_einsum` makes the right ones.
    """
    for equation in _equations(jax.make_jaxpr(function)(*arguments).jaxpr):
        if equation.primitive.name == "dot_general":
            precision = equation.params["precision"]
            factors = {variable.aval.dtype.name for variable in equation.invars}
            right = (
                precision is not None
                and set(precision) == {jax.lax.Precision.HIGHEST}
                and equation.outvars[0].aval.dtype == jnp.float32
                and factors in ({"float32"}, {"bfloat16"})
            )
            received = f"precision {precision} of {' and '.join(sorted(factors))}"
            expect(name, "matrix products in float32 at the highest precision (float32_einsum)", received, holds=right)


def close(one: Array, other: Array) -> bool:
    """Whether two arrays are the same within float32 rounding."""
    return np.allclose(one, other, rtol=1e-5, atol=1e-6)


def _floats(tree: Tree) -> list[Array]:
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]


def _equations(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from _equations(inner)
