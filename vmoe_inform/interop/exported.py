"""Models that this package has exported (:mod:`vmoe_inform.export`): they become runs again, bit-identically."""

from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import jax
import numpy as np

from vmoe_inform import checks, storage
from vmoe_inform import config as config_lib
from vmoe_inform.axes import Tree
from vmoe_inform.config import Config
from vmoe_inform.interop.stored import StoredCheckpoint
from vmoe_inform.nn import models

FORMAT = "vmoe_inform"  # in the metadata of the arrays' file
VERSION = 1
_NAMES_SHOWN = 5


def flatten(variables: Mapping[str, Tree]) -> dict[str, Any]:
    """``params/block_0/mlp/hidden/kernel`` -> array; states of router steps are below ``routing``."""
    return flax.traverse_util.flatten_dict(dict(variables), sep="/")


def unflatten(arrays: Mapping[str, Any]) -> dict[str, Tree]:
    """The variables of :func:`flatten` again, as ``model.apply`` takes them."""
    return flax.traverse_util.unflatten_dict(dict(arrays), sep="/")


def metadata(step: int, library: str) -> dict[str, str]:
    """What an exported file says of itself.

    Args:
      step: training steps of the checkpoint.
      library: version of this package.
    """
    return {"format": FORMAT, "version": str(VERSION), "library": library, "step": str(step)}


def is_exported(stored: StoredCheckpoint) -> bool:
    """Whether a checkpoint is one that this package has exported."""
    return stored.description.get("metadata", {}).get("format") == FORMAT


def refuse_settings(*given: Any) -> None:
    """Raises ValueError for settings of an import: an exported model has its own."""
    for settings in filter(None, given):
        raise checks.error("command line", "no settings of a model that vmoe-export wrote, which has its own", settings)


def read(stored: StoredCheckpoint) -> tuple[Config, dict[str, Tree]]:
    """The config of the run and the model's variables, to the bit.

    Raises:
      FileNotFoundError: no config next to the arrays.
      ValueError: a file of a later version, a damaged one, or arrays of another model than the config's.
    """
    said = stored.description["metadata"]
    if said.get("version") != str(VERSION):
        raise checks.error(f"{stored.path}", f"an exported model of version {VERSION}", said.get("version"))
    folder = storage.path("--from", stored.path).parent
    if "config" not in stored.description:
        raise FileNotFoundError(f"{folder}: expected the config.json that was exported with the arrays; received none")
    config = config_lib.parse_recorded(stored.description["config"], folder)
    model = models.from_config(config.model)
    expected = flatten(jax.eval_shape(lambda: models.initialize(model, jax.random.key(0))))
    missing, unknown = sorted(expected.keys() - stored.arrays.keys()), sorted(stored.arrays.keys() - expected.keys())
    if missing or unknown:
        received = f"missing: {missing[:_NAMES_SHOWN]}; unknown: {unknown[:_NAMES_SHOWN]}"
        raise checks.error(stored.path, "the arrays of the model in config.json", received)
    for name, array in stored.arrays.items():
        wanted = (tuple(expected[name].shape), np.dtype(expected[name].dtype))
        if (array.shape, array.dtype) != wanted:
            raise checks.error(name, f"{wanted[1]}{list(wanted[0])}", f"{array.dtype}{list(array.shape)}")
    return config, unflatten({name: array.read() for name, array in stored.arrays.items()})
