"""Checkpoints of a state made by hand: nothing is compiled, so that every kind of damage can be tried."""

import pathlib

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax

from vmoe_inform.runs.checkpoints import Checkpoints
from vmoe_inform.runs.state import TrainState
from vmoe_inform.sharding.mesh import make_mesh
from vmoe_inform.sharding.rules import tree_shardings


def make_state(step: int, *, width: int = 4, replica: int = 1, expert: int = 1) -> TrainState:
    """A state whose arrays say which step they are of, on a mesh of these sizes."""
    params = {
        "block_1": {"moe": {"experts": {"hidden": {"kernel": np.arange(16.0 * width).reshape(8, 2, width) + step}}}},
        "head": {"kernel": np.full((width, 3), step, np.float32)},
    }
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    state = TrainState(
        step=jnp.int32(step),
        seed=jnp.uint32(7),
        params=params,
        opt_state=optax.adam(1e-3).init(params),
        routing={"block_1": {"moe": {"router": {"adjacency": jnp.eye(8) * step}}}},
        ema_params=jax.tree.map(lambda leaf: leaf / 2, params),
    )
    mesh = make_mesh(replica, expert, jax.devices()[: replica * expert])
    return jax.device_put(state, tree_shardings(state, mesh))


def shapes_of(state: TrainState) -> TrainState:
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), state)


def make_data(position: int = 0):
    iterator = iter(grain.MapDataset.range(100).to_iter_dataset())
    for _ in range(position):
        next(iterator)
    return iterator


def write(workdir: pathlib.Path, *steps: int, **sizes: int) -> None:
    with Checkpoints(workdir, keep=5) as of_run:
        for step in steps:
            of_run.save(make_state(step, **sizes), make_data(position=step))


def restore(workdir: pathlib.Path, **sizes: int) -> tuple[TrainState, int]:
    """The newest state, and the next record."""
    data = make_data()
    with Checkpoints(workdir, keep=5) as of_run:
        return of_run.restore(shapes_of(make_state(0, **sizes)), data), next(data)
