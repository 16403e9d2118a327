"""The model of a run as one of its checkpoints has it, for evaluation and analysis."""

import dataclasses
import pathlib

import jax
from absl import logging
from jax.sharding import Mesh

from vmoe_inform.axes import Tree
from vmoe_inform.config import Config
from vmoe_inform.nn import models
from vmoe_inform.nn.vit import VisionTransformer
from vmoe_inform.runs.checkpoints import Checkpoints
from vmoe_inform.runs.folder import read_config
from vmoe_inform.runs.integrity import DamagedCheckpointError
from vmoe_inform.sharding.mesh import make_mesh
from vmoe_inform.sharding.rules import tree_shardings


@dataclasses.dataclass(frozen=True)
class Restored:
    """A trained model.

    Attributes:
      config: of the run.
      step: optimizer steps that it was trained for.
      model: the Flax module.
      variables: what ``model.apply`` takes; the moving average of the parameters if the run keeps one.
      mesh: that the variables lie on.
    """

    config: Config
    step: int
    model: VisionTransformer
    variables: dict[str, Tree]
    mesh: Mesh


def find_step(workdir: pathlib.Path, step: int | None = None) -> int:
    """Optimizer steps done in a checkpoint of a run: the newest one's, or ``step`` if there is one of it.

    Raises:
      FileNotFoundError: no run, no checkpoint yet, or none of that step; lists those that there are.
    """
    read_config(workdir)
    with Checkpoints(workdir) as checkpoints:
        return checkpoints.find_step(step)


def kept_steps(workdir: pathlib.Path) -> list[int]:
    """Optimizer steps done in each checkpoint of a run, ascending.

    Raises:
      FileNotFoundError: no run, or no checkpoint yet.
    """
    find_step(workdir)
    with Checkpoints(workdir) as checkpoints:
        return checkpoints.steps()


def routing_states(workdir: pathlib.Path) -> dict[int, Tree]:
    """The collection ``routing`` of each checkpoint of a run, by its step, as NumPy arrays; damaged ones are left out.

    Raises:
      FileNotFoundError: no run, or no checkpoint yet.
    """
    find_step(workdir)
    states = {}
    with Checkpoints(workdir) as checkpoints:
        for step in checkpoints.steps():
            try:
                states[step] = checkpoints.load_arrays(step, names=("routing",))[1]["routing"]
            except DamagedCheckpointError as damage:
                logging.warning("%s", damage)
    return states


def restore(workdir: pathlib.Path, step: int | None = None) -> Restored:
    """Restores a checkpoint onto all devices of this machine, whatever mesh it was trained on.

    Args:
      workdir: of the run.
      step: of the checkpoint; None: the newest.

    Raises:
      FileNotFoundError: no run, no checkpoint yet, or none of that step.
      ValueError: a checkpoint that does not fit the run's config or is damaged.
    """
    config = read_config(workdir)
    if not config.data.class_names:
        logging.warning("%s has no record of its classes (older version): they are compared by number only", workdir)
    mesh = make_mesh(jax.device_count(), 1)
    model = models.from_config(config.model)
    shapes = jax.eval_shape(lambda: models.initialize(model, jax.random.key(0)))
    shardings = tree_shardings(shapes, mesh)
    expected = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), shapes, shardings)
    with Checkpoints(workdir) as checkpoints:
        step, variables = checkpoints.restore_variables(expected, step=step)
    return Restored(config, step, model, variables, mesh)
