"""A function compiled for one device, with what the compiler says that it costs."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax

from vmoe_inform.axes import Tree
from vmoe_inform.performance import costs
from vmoe_inform.performance.costs import schedules
from vmoe_inform.sharding.mesh import make_mesh, replicated


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A program.

    Attributes:
      run: takes arrays of the shapes that it was compiled for; cannot be called if the device is not there.
      costs: as compiled.
      schedule: cycles by the final schedules of a TPU; None if they were not asked for.
    """

    run: Callable[..., Any]
    costs: costs.Costs
    schedule: schedules.Schedule | None = None


def compile_for(
    device: jax.Device, function: Callable[..., Tree], *arguments: Tree, schedules_in: pathlib.Path | None = None
) -> Compiled:
    """Compiles ``function``.

    Args:
      device: one of this machine, or of a topology that is not there.
      function: pure.
      *arguments: what it will be called with, or ShapeDtypeStructs of that.
      schedules_in: folder of :func:`vmoe_inform.performance.costs.schedules.write_to`, which is emptied first; None: no
        schedules are looked at.
    """
    for path in () if schedules_in is None else schedules_in.iterdir():
        path.unlink()
    mesh = make_mesh(1, 1, [device])
    sharding = replicated(mesh)
    placed = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), arguments)
    with jax.set_mesh(mesh):  # says to what looks at the platform which one it is
        program = jax.jit(function).lower(*placed).compile()
    schedule = schedules.of_compiled(program, device.device_kind, schedules_in)
    return Compiled(program, costs.of(program), schedule)


def bytes_without_cycles(of: costs.Costs) -> int | None:
    """Read and written by instructions of which the compiler states no cycles; None where it states none at all."""
    return None if of.estimated_cycles is None else sum(size for _, size in of.without_cycles.values())
