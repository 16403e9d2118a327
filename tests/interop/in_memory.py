"""Models made of checkpoints without a run folder."""

from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import jax
import numpy as np

from vmoe_inform import config as config_lib
from vmoe_inform.interop import families
from vmoe_inform.interop.stored import StoredCheckpoint
from vmoe_inform.nn import models


def model_config(stored: StoredCheckpoint, given: Mapping[str, Any] = {}) -> Any:
    """``config.model`` as the family infers it; ``given`` is what it asks for."""
    settings = families.recognise(stored).settings(stored)
    assert set(settings.asked) == set(given)
    fields = {"representation_size": None, "router.losses": (), **settings.assumed, **settings.model, **given}
    return config_lib.parse_model(flax.traverse_util.unflatten_dict(fields, sep="."))


def parameters(stored: StoredCheckpoint, model: Any) -> dict[str, np.ndarray]:
    """By our paths; every array of the checkpoint is used or ignored."""
    family = families.recognise(stored)
    moves = family.moves(stored, model)
    used = {name for move in moves for name in move.theirs}
    assert stored.arrays.keys() - family.ignored(stored).keys() == used
    assert len({move.ours for move in moves}) == len(moves)
    return {move.ours: move.convert(*(stored.arrays[name].read() for name in move.theirs)) for move in moves}


def logits(stored: StoredCheckpoint, images: np.ndarray, given: Mapping[str, Any] = {}) -> np.ndarray:
    """What our model computes with the parameters of a checkpoint."""
    model = models.from_config(model_config(stored, given))
    params = parameters(stored, model.config)
    wanted = jax.eval_shape(lambda: models.initialize(model, jax.random.key(0)))["params"]
    shapes = {path: leaf.shape for path, leaf in flax.traverse_util.flatten_dict(wanted, sep="/").items()}
    assert {path: array.shape for path, array in params.items()} == shapes
    tree = flax.traverse_util.unflatten_dict(params, sep="/")
    with jax.default_matmul_precision("highest"):
        return np.asarray(jax.jit(lambda tree: model.apply({"params": tree}, images, train=False)[0])(tree))
