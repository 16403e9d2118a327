"""`Run`: a trained model and where it is from. ``load("runs/digits")`` gives one; ``find`` looks without loading."""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from absl import logging
from jax.sharding import Mesh

from vmoe_inform import config as config_lib
from vmoe_inform import storage
from vmoe_inform.axes import Tree
from vmoe_inform.config import Config, identity
from vmoe_inform.nn import models
from vmoe_inform.nn.models import Model
from vmoe_inform.runs import heads, router_settings
from vmoe_inform.runs.checkpoint_path import CheckpointPath, name_of
from vmoe_inform.runs.folder import hash_by_older_versions, read_config, with_kept_tokenizer
from vmoe_inform.runs.integrity import DamagedCheckpointError
from vmoe_inform.runs.reading import CheckpointReader
from vmoe_inform.sharding.mesh import make_mesh
from vmoe_inform.sharding.rules import tree_shardings

_AS_RECORDED: Mapping[str, Any] = {}


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained model and where it is from.

    Attributes:
      name: for titles.
      folder: of the run.
      step: optimizer steps that the model was trained for.
      config: of the run, as it holds on this machine.
      model: the Flax module.
      variables: what ``model.apply`` takes, with the moving average of the parameters if the run keeps one.
      mesh: that the variables lie on.
    """

    name: str
    folder: storage.Path
    step: int
    config: Config
    model: Model
    variables: dict[str, Tree]
    mesh: Mesh

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of the logits; empty where they are not known."""
        return self.config.data.class_names

    def with_classes_in_order_of(self, class_names: Sequence[str]) -> "Run":
        """The same run with its logits in this order; unchanged if the names of either are not known."""
        if not class_names or not self.class_names:
            return self
        params = heads.in_order(self.variables["params"], self.class_names, class_names)
        data = dataclasses.replace(self.config.data, class_names=tuple(class_names))
        config = dataclasses.replace(self.config, data=data)
        return dataclasses.replace(self, config=config, variables={**self.variables, "params": params})

    def rerouted(self, settings: Mapping[str, Any]) -> "Run":
        """The same run with other routers, which nobody trains.

        Args:
          settings: values by field, e.g. ``{"model.router.inform": "similarity"}``. All else is as it was trained.

        Raises:
          ValueError: as :func:`vmoe_inform.runs.router_settings.with_settings`, or a router with arrays that the run
            has not learned.
        """
        config = router_settings.with_settings(self.config, settings)
        model = models.from_config(config.model)
        variables = router_settings.variables_for(self.variables, _shapes(model), settings)
        return dataclasses.replace(self, config=config, model=model, variables=variables)


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """A checkpoint of a run that was found and is not loaded.

    Attributes:
      name: for titles.
      path: of the checkpoint as it was asked for.
      step: optimizer steps done in the checkpoint.
      kept_steps: those of all checkpoints of the run, ascending.
      recorded: the config in the run's folder.
      config: the same as it holds on this machine, with other folders, processes or batches.
      older_hash: of the recorded config, as versions made it that hashed all settings.
      trained: the run as it was trained, where this one has other routers; None: this is it.
      settings: of these routers, by field.
    """

    name: str
    path: CheckpointPath
    step: int
    kept_steps: tuple[int, ...]
    recorded: Config
    config: Config
    older_hash: str
    trained: "SavedRun | None" = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def folder(self) -> storage.Path:
        """Of the run."""
        return self.path.folder

    @property
    def config_hash(self) -> str:
        """Of the recorded config; results of the run are known by it."""
        return identity.config_hash(self.recorded)

    @functools.cached_property
    def shapes(self) -> dict[str, Tree]:
        """Of the model's variables."""
        return _shapes(models.from_config(self.config.model))

    def at(self, step: int) -> "SavedRun":
        """Another checkpoint of the run; ``step`` is one of ``kept_steps``."""
        path = CheckpointPath(self.folder, step)
        trained = None if self.trained is None else self.trained.at(step)
        return dataclasses.replace(self, path=path, step=step, trained=trained)

    def rerouted(self, settings: Mapping[str, Any]) -> "SavedRun":
        """The same checkpoint with other routers; args and errors as :meth:`Run.rerouted`."""
        trained = self.trained or self
        recorded, config = (router_settings.with_settings(one, settings) for one in (trained.recorded, trained.config))
        router_settings.variables_for(trained.shapes, _shapes(models.from_config(config.model)), settings)
        return dataclasses.replace(
            trained,
            recorded=recorded,
            config=config,
            older_hash=identity.config_hash(recorded),  # no older version could do this
            trained=trained,
            settings=router_settings.used(settings, config),
        )

    def load(self, mesh: Mesh | None = None) -> Run:
        """Loads the checkpoint, whatever mesh it was trained on.

        Args:
          mesh: that the variables shall lie on; None: all devices.

        Raises:
          ValueError: the checkpoint is damaged, or does not fit the run's config.
        """
        return self._load(self.step, mesh)

    def load_intact(self, mesh: Mesh | None = None) -> Run:
        """As :meth:`load`; if no step was asked for, the newest intact checkpoint stands in for a damaged one, with a
        warning."""
        return self._load(self.path.step, mesh)

    def _load(self, step: int | None, mesh: Mesh | None) -> Run:
        if self.trained is not None:
            return self.trained._load(step, mesh).rerouted(self.settings)
        mesh = make_mesh(jax.device_count(), 1) if mesh is None else mesh
        model = models.from_config(self.config.model)
        shapes = _shapes(model)
        shardings = tree_shardings(shapes, mesh)
        expected = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), shapes, shardings)
        with CheckpointReader(self.folder) as checkpoints:
            step, variables = checkpoints.restore_variables(expected, step=step)
        return Run(self.name, self.folder, step, self.config, model, variables, mesh)

    def warn_of_unnamed_classes(self) -> None:
        """Warns that labels are compared by number, where nobody knows the names of the run's classes."""
        if self.config.model.num_classes is not None and not self.config.data.class_names:
            logging.warning(
                "%s has no record of its classes: labels of the data are taken to number them as the model does",
                self.folder,
            )

    def routing_states(self) -> dict[int, Tree]:
        """The collection ``routing`` of each checkpoint by step, as NumPy arrays; damaged checkpoints are left out."""
        states = {}
        with CheckpointReader(self.folder) as checkpoints:
            for step in self.kept_steps:
                try:
                    states[step] = checkpoints.load_arrays(step, names=("routing",))[1]["routing"]
                except DamagedCheckpointError as damage:
                    logging.warning("%s", damage)
        return states


def _shapes(model: Model) -> dict[str, Tree]:
    """Of a model's variables."""
    return jax.eval_shape(lambda: models.initialize(model, jax.random.key(0)))


def find(
    folder: str | os.PathLike[str],
    step: int | None = None,
    *,
    name: str | None = None,
    here: Mapping[str, Any] = _AS_RECORDED,
    field: str = "workdir",
) -> SavedRun:
    """Finds a checkpoint of a run; nothing of the checkpoint is read.

    Args:
      folder: of the run.
      step: of the checkpoint; None: the newest.
      name: for titles; None: that of the folder.
      here: fields of the run's config that differ on this machine, e.g. ``{"data.directory": "/data"}``.
      field: that named the folder, for errors.

    Raises:
      FileNotFoundError: no run, no checkpoint yet, or none of that step; lists those that there are.
      ValueError: a damaged config, or fields that it does not have.
    """
    path = CheckpointPath(storage.path(field, folder), step)
    recorded = read_config(path.folder, field)
    config = with_kept_tokenizer(config_lib.override(recorded, here), path.folder)
    with CheckpointReader(path.folder) as checkpoints:
        found, kept = checkpoints.find_step(step), tuple(checkpoints.steps())
    name = name_of(path.folder) if name is None else name
    return SavedRun(name, path, found, kept, recorded, config, hash_by_older_versions(path.folder))


def load(
    folder: str | os.PathLike[str],
    step: int | None = None,
    *,
    name: str | None = None,
    here: Mapping[str, Any] = _AS_RECORDED,
) -> Run:
    """Loads a run onto all devices of this machine; args and errors as :func:`find` and :meth:`SavedRun.load`.

    The newest checkpoint is the newest intact one, with a warning if it is not the newest.
    """
    return find(folder, step, name=name, here=here).load_intact()
