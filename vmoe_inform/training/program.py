"""Turns a config into compiled functions on a mesh, for training and the dry run."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh

from vmoe_inform import checks, tasks
from vmoe_inform.axes import Array, Tree
from vmoe_inform.config import Config, check_duration, mesh_sizes, sizes
from vmoe_inform.nn import models
from vmoe_inform.nn.models import Model
from vmoe_inform.routing.steps import Duration
from vmoe_inform.runs import state as state_lib
from vmoe_inform.runs.state import TrainState
from vmoe_inform.sharding.mesh import batch_sharding, make_mesh, replicated, slice_count
from vmoe_inform.sharding.rules import tree_shardings
from vmoe_inform.tasks import Task
from vmoe_inform.training import paths
from vmoe_inform.training.optimizer import make_optimizer, make_schedule
from vmoe_inform.training.step import make_train_step


@dataclasses.dataclass(frozen=True)
class Program:
    """The compiled functions of a run.

    Attributes:
      mesh: of all devices.
      task: what is learned.
      model: the Flax module.
      num_frozen: parameters that are not trained.
      state_shapes: shapes, types and shardings of the state.
      batch_shapes: the same of a batch.
      initialize: jitted ``() -> state``.
      train_step: jitted ``(state, batch) -> (state, metrics)``; the old state's memory is used for the new one.
    """

    mesh: Mesh
    task: Task
    model: Model
    num_frozen: int
    state_shapes: TrainState
    batch_shapes: dict[str, jax.ShapeDtypeStruct]
    initialize: Callable[[], TrainState]
    train_step: Any

    def in_use(self) -> contextlib.AbstractContextManager[Any]:
        """The mesh as the one that sharding constraints in the model refer to."""
        return jax.set_mesh(self.mesh)

    def to_devices(self, batch: dict[str, np.ndarray]) -> dict[str, Array]:
        """This process's part of a batch as global arrays."""
        sharding = batch_sharding(self.mesh)
        return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}


def total_steps(config: Config, num_records: int) -> int:
    """Optimizer steps of the whole run.

    Raises:
      ValueError: ``train.epochs`` is less than one batch.
    """
    if config.train.steps is not None:
        return config.train.steps
    assert config.train.epochs is not None  # config/validate.py: exactly one of the two is set
    steps = round(config.train.epochs * num_records / config.train.batch_size)
    if steps >= 2**31:  # they are counted in int32
        raise checks.error(
            "train.epochs",
            f"less than 2^31 batches of {config.train.batch_size} of {num_records} records",
            config.train.epochs,
        )
    if steps < 1:
        raise checks.error(
            "train.epochs",
            f"at least one batch of {config.train.batch_size} of {num_records} records",
            config.train.epochs,
        )
    return steps


def epoch_steps(config: Config, num_records: int) -> int:
    """Optimizer steps of an epoch, rounded, at least 1."""
    return max(round(num_records / config.train.batch_size), 1)


def build(
    config: Config, num_steps: int, devices: Sequence[jax.Device] | None = None, *, task: Task | None = None
) -> Program:
    """Puts model, optimizer and mesh together; compiles nothing yet.

    Args:
      config: the run.
      num_steps: of the run, for all that changes over it.
      devices: all devices of all processes by default.
      task: that of the config, if its data were opened already.

    Raises:
      ValueError: the devices do not fit the mesh or the batch, see :func:`vmoe_inform.config.mesh_sizes`. Also if the
        router does not fit the number of steps, or a pattern of the optimizer matches no parameter.
    """
    task = tasks.from_config(config) if task is None else task
    check_duration(config, Duration(num_steps))
    if devices is None:
        devices = jax.devices()
        sizes.check_memory(config, len(devices), jax.local_device_count())
    mesh = make_mesh(**mesh_sizes(config, len(devices), slice_count(devices)), devices=devices)
    model = models.from_config(config.model)
    optimizer = make_optimizer(config.optimizer, num_steps)

    seed = np.uint32(config.seed)

    def create(seed: Array) -> TrainState:
        memory = model.initial_memory(config.train.batch_size) if task.carries_memory else None
        return state_lib.create(model, optimizer, seed=seed, ema=config.train.ema_decay > 0, memory=memory)

    with jax.set_mesh(mesh):  # as when it runs: it is traced once
        shapes = jax.eval_shape(create, seed)
    paths.check(config.optimizer, shapes.params, shapes.routing)
    frozen = paths.num_frozen(shapes.params, config.optimizer.frozen)
    if config.optimizer.frozen:
        logging.info(
            "optimizer.frozen: %s of %s parameters stay as they are",
            f"{frozen:,}",
            f"{models.num_parameters(shapes.params):,}",
        )
    shardings = tree_shardings(shapes, mesh)
    schedule = make_schedule(config.optimizer, num_steps)
    duration = Duration(num_steps, lambda: epoch_steps(config, task.num_records))
    step = make_train_step(model, task, optimizer, schedule, config, duration)
    batch, shapes_of_batch = batch_sharding(mesh), task.batch_shapes(config.train.batch_size)
    return Program(
        mesh=mesh,
        task=task,
        model=model,
        num_frozen=frozen,
        state_shapes=_with_shardings(shapes, shardings),
        batch_shapes=_with_shardings(shapes_of_batch, dict.fromkeys(shapes_of_batch, batch)),
        initialize=functools.partial(
            jax.jit(create, out_shardings=shardings, compiler_options=_of_a_program_that_runs_once(mesh)), seed
        ),
        train_step=jax.jit(
            step, in_shardings=(shardings, batch), out_shardings=(shardings, replicated(mesh)), donate_argnums=0
        ),
    )


def _of_a_program_that_runs_once(mesh: Mesh) -> dict[str, str]:
    """Options of the compiler: half the work on a CPU, for the same bits. It takes longer than what it compiles."""
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    already_quick = jax.config.read("jax_disable_most_optimizations")  # as the user has said
    return {"xla_backend_optimization_level": "1"} if on_cpu and not already_quick else {}


def _with_shardings(shapes: Tree, shardings: Tree) -> Tree:
    return jax.tree.map(lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s), shapes, shardings)


def describe(program: Program) -> dict[str, float]:
    """Compiles the step and says what it costs: a dry run.

    Returns:
      ``parameters`` and ``frozen_parameters`` (counts), and of one step on one device ``flops``, ``argument_bytes``
      (state and batch), ``temporary_bytes`` and ``output_bytes``, as the compiler states them.
    """
    with program.in_use():
        compiled = program.train_step.lower(program.state_shapes, program.batch_shapes).compile()
    memory = compiled.memory_analysis()
    return {
        "parameters": models.num_parameters(program.state_shapes.params),
        "frozen_parameters": program.num_frozen,
        "flops": compiled.cost_analysis()["flops"],
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
    }
