"""Runs on a made-up corpus, whose parameters nobody has trained."""

import pathlib

import jax
import numpy as np

from tests import tiny, tiny_text
from vmoe_inform import config as config_lib
from vmoe_inform.nn import models
from vmoe_inform.runs.run import Run
from vmoe_inform.sharding.mesh import make_mesh
from vmoe_inform.tasks.language_modeling import LanguageModeling


def runs(
    folder: pathlib.Path, router: str = "similarity_smoe_top2", *, task_class=LanguageModeling, **overrides
) -> dict[int, Run]:
    """Two checkpoints of a model of text by step; the later is the earlier, moved a little."""
    config = tiny_text.parse(folder, router, **overrides)
    config = task_class(config_lib.as_language(config)).opened().config
    model, mesh = models.from_config(config.model), make_mesh(1, 1, jax.devices()[:1])
    random = np.random.default_rng(2)
    first = tiny.variables(model)
    moved = {
        **first,
        "params": jax.tree.map(
            lambda leaf: leaf + 0.1 * random.normal(size=leaf.shape).astype(leaf.dtype), first["params"]
        ),
    }
    return {
        step: Run(router, pathlib.Path(router), step, config, model, variables, mesh)
        for step, variables in ((10, first), (20, moved))
    }
