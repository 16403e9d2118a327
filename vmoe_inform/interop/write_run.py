"""Writes an imported model as a run's folder, which all commands take as one that was trained here."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from vmoe_inform import checks, storage
from vmoe_inform.axes import Array, Tree
from vmoe_inform.config import Config
from vmoe_inform.interop import exported
from vmoe_inform.interop.checkpoint_import import CheckpointImport
from vmoe_inform.interop.precedence import Value
from vmoe_inform.interop.stored import StoredCheckpoint
from vmoe_inform.nn import models
from vmoe_inform.runs import saved_trees
from vmoe_inform.runs.checkpoints import Checkpoints
from vmoe_inform.runs.folder import CONFIG_FILE, MOST_TOKENIZER_BYTES, TOKENIZER_FILE, write_config
from vmoe_inform.runs.lock import RunLock
from vmoe_inform.runs.reading import CHECKPOINT_FOLDER
from vmoe_inform.runs.state import TrainState
from vmoe_inform.sharding.mesh import make_mesh
from vmoe_inform.sharding.rules import tree_shardings
from vmoe_inform.training.optimizer import make_optimizer

IMPORT_FILE = "import.json"
_VERSION = 1


def check_folder(workdir: storage.Path) -> None:
    """Raises ValueError if there is a run already, or no checkpoint can be written there."""
    saved_trees.check_path(workdir)
    for name in (CONFIG_FILE, CHECKPOINT_FOLDER):
        if storage.exists(workdir / name):
            raise checks.error("--workdir", "a folder without a run", f"{workdir}, which has {name}")
    storage.check_writable(workdir)


@contextlib.contextmanager
def new_folder(workdir: storage.Path | None) -> Iterator[None]:
    """A folder for :func:`write`, from :func:`check_folder`; if the import fails, what did not exist is gone again.

    Args:
      workdir: of the run; None for an import that writes none.

    Raises:
      ValueError: as :func:`check_folder`.
    """
    if workdir is None:
        yield
        return
    with storage.gone_on_error(workdir):
        check_folder(workdir)
        yield


def write(record: Mapping[str, Any], config: Config, variables: Mapping[str, Tree], workdir: storage.Path) -> None:
    """Writes ``config.json``, ``import.json`` and a checkpoint of step 0.

    Args:
      record: what the run is from, JSON, such as :func:`record_of`.
      config: of the run.
      variables: of the model, as NumPy or JAX arrays.
      workdir: folder of the run, from :func:`check_folder`.

    Raises:
      SavingError: the checkpoint cannot be written.
    """
    state = _state(config, variables)
    with RunLock(workdir), Checkpoints(workdir, keep=config.checkpoint.keep) as checkpoints:
        checkpoints.save(state, None)
        checkpoints.wait()
        storage.write_json(workdir / IMPORT_FILE, {"version": _VERSION, **record}, within=workdir)
        write_config(workdir, config)  # last: now it is a run


def write_exported(stored: StoredCheckpoint, workdir: storage.Path) -> None:
    """Writes the run that a model was exported from, at step 0, with the tokenizer of a run on text.

    Args:
      stored: see :mod:`vmoe_inform.interop.exported`.
      workdir: as of :func:`write`.

    Raises:
      FileNotFoundError, ValueError: as :func:`vmoe_inform.interop.exported.read`.
      SavingError: as :func:`write`.
    """
    config, variables = exported.read(stored)
    tokenizer = storage.path("--from", stored.path).with_name(TOKENIZER_FILE)
    if storage.exists(tokenizer):
        content = storage.read_bytes(tokenizer, most_bytes=MOST_TOKENIZER_BYTES)
        storage.write_bytes(workdir / TOKENIZER_FILE, content, within=workdir)
    record = {"path": stored.path, "format": stored.format, "family": exported.FORMAT}
    write(record, config, variables, workdir)


def _state(config: Config, variables: Mapping[str, Tree]) -> TrainState:
    """The state before the first step, on all devices."""
    mesh = make_mesh(jax.device_count(), 1)
    optimizer = make_optimizer(config.optimizer, config.train.steps or config.optimizer.warmup_steps + 1)

    def create(variables: Mapping[str, Tree], seed: Array) -> TrainState:
        params = variables["params"]
        return TrainState(
            step=jax.numpy.zeros((), jax.numpy.int32),
            seed=seed,
            params=params,
            opt_state=optimizer.init(params),
            routing=variables.get("routing", {}),
            ema_params=jax.tree.map(jax.numpy.copy, params) if config.train.ema_decay > 0 else None,
            memory=models.from_config(config.model).initial_memory(config.train.batch_size),
        )

    seed = np.uint32(config.seed)
    shardings = tree_shardings(jax.eval_shape(create, variables, seed), mesh)
    return jax.jit(create, out_shardings=shardings)(variables, seed)


def record_of(found: CheckpointImport, data: Mapping[str, Value]) -> dict[str, Any]:
    """What a run of another program's checkpoint is from.

    Args:
      found: the import.
      data: fields of ``config.data`` that were decided; the names of the classes stand in the config.
    """
    return {
        "path": found.stored.path,
        "format": found.stored.format,
        "family": found.family.title,
        "settings": {field: {"value": one.value, "origin": one.origin} for field, one in found.values.items()},
        "data": {
            field: {"value": one.value if field != "class_names" else len(one.value), "origin": one.origin}
            for field, one in data.items()
        },
        "arrays": [
            {"theirs": row.theirs, "ours": row.ours, "shape": list(row.shape), "action": row.action}
            for row in found.plan.rows
        ],
    }
