"""A function compiled for one device, with what the compiler says that it costs."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from vmoe_inform.axes import Tree
from vmoe_inform.performance import costs
from vmoe_inform.sharding.mesh import make_mesh, replicated


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A program.

    Attributes:
      run: takes arrays of the shapes that it was compiled for; cannot be called if the device is not there.
      costs: as compiled.
      text: HLO, as the compiler prints it.
    """

    run: Callable[..., Any]
    costs: costs.Costs
    text: str


def compile_for(device: jax.Device, function: Callable[..., Tree], *arguments: Tree) -> Compiled:
    """Compiles ``function``.

    Args:
      device: one of this machine, or of a topology that is not there.
      function: pure.
      *arguments: what it will be called with, or ShapeDtypeStructs of that.
    """
    mesh = make_mesh(1, 1, [device])
    sharding = replicated(mesh)
    placed = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), arguments)
    with jax.set_mesh(mesh):  # says to what looks at the platform which one it is
        program = jax.jit(function).lower(*placed).compile()
    return Compiled(program, costs.of(program), program.as_text() or "")


def bytes_without_cycles(of: costs.Costs) -> int | None:
    """Read and written by instructions of which the compiler states no cycles; None where it states none at all."""
    return None if of.estimated_cycles is None else sum(size for _, size in of.without_cycles.values())
