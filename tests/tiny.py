"""The smallest run that has every part: shared by tests so that it is compiled as rarely as possible."""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import grain
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from configs import digits
from vmoe_inform import config as config_lib
from vmoe_inform.config import Config
from vmoe_inform.nn import models
from vmoe_inform.nn.vit import VisionTransformer
from vmoe_inform.runs import folder
from vmoe_inform.runs.checkpoints import Checkpoints
from vmoe_inform.runs.state import TrainState

# Presets that together have every score, inform and select step of the papers; what holds for each of these steps
# holds for their products too.
SYSTEMS = (
    "vmoe",
    "alternate_vmoe",
    "symphony_xmoe",
    "smoe_dropout",
    "stablemoe",
    "hash",
    "base",
    "expert_choice",
    "soft",
)
BEYOND_THE_PAPERS = ("symphony_across_layers", "symphony_oja")  # inform steps of our own
# Products of the papers' tables, and of our own steps with their baselines.
INFORMED = tuple(
    f"{step}_{base}"
    for step in ("similarity", "attention", "symphony", *BEYOND_THE_PAPERS)
    for base in ("vmoe", "smoe_top1", "smoe_top2", "glam", "xmoe", "smoe_dropout")
)

# Overrides for what needs a MoE layer and no other block: a step compiles faster.
ONE_BLOCK: Mapping[str, Any] = {"model__num_layers": 1, "model__moe__layers": (0,)}


def config_dict(router: str = "vmoe", **overrides: Any) -> ml_collections.ConfigDict:
    """digits with one dense and one MoE block of width 16.

    Args:
      router: preset.
      **overrides: fields with ``__`` for the dots, e.g. ``train__steps=3``.
    """
    # As many MoE layers as the router needs, the dense block first where one is enough.
    where = "0+1" if config_lib.parse_model(digits.get_config(f"router={router}").model).moe_layers[1:] else "1"
    config = digits.get_config(f"router={router},experts=4,where={where}")
    config.model.router.options.distilled.switch_step = 10
    config.model.num_layers = 2
    config.model.hidden_size = 16
    config.model.mlp_size = 32
    config.model.num_heads = 2
    config.model.classifier = "token"
    config.model.representation_size = None
    config.model.patch_size_px = 16
    config.model.moe.group_size_sequences = 2
    config.model.moe.capacity_factor = 1.05
    config.data.random_rotation_degrees = 0.0
    config.data.random_zoom = 0.0
    config.mesh.expert = 1
    config.train.epochs = None
    config.train.steps = 20
    config.train.batch_size = 16
    config.train.ema_decay = 0.0
    config.train.log_every_steps = 5
    config.optimizer.warmup_steps = 4
    config.evaluation.batch_size = 64
    for name, value in overrides.items():
        *groups, field = name.split("__")
        group = config
        for key in groups:
            group = group[key]
        group[field] = value
    return config


def variables(model: VisionTransformer) -> dict[str, Any]:
    """Random variables of a model, with a head that gradients pass, and the state that routing starts with.

    ``models.initialize`` compiles a generator of random numbers for each parameter, which takes longer than the model.
    """
    key = jax.random.key(0)
    made = dict(jax.eval_shape(functools.partial(models.initialize, model), key))
    random = np.random.default_rng(0)

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        """Scales near 1, biases near 0, and kernels by their fan-in."""
        normal = random.normal(size=leaf.shape)
        if path[-1].key == "scale":
            values = 1 + 0.1 * normal
        elif path[-1].key == "bias":
            values = 0.1 * normal
        else:
            values = normal / np.sqrt(leaf.size / leaf.shape[-1] if leaf.shape else 1)
        return jax.device_put(np.asarray(values, leaf.dtype))  # jnp.asarray compiles a program for each shape

    made["params"] = jax.tree_util.tree_map_with_path(draw, made["params"])
    if "routing" in made:
        made["routing"] = jax.jit(lambda key: models.initialize(model, key)["routing"])(key)  # the parameters drop out
    return made


def write_run(workdir: pathlib.Path, config: Config, steps: Mapping[int, dict[str, Any]]) -> pathlib.Path:
    """Writes the folder of a run that was not trained.

    Args:
      workdir: of the run.
      config: of the run.
      steps: variables of each checkpoint by its step, ascending.
    """
    folder.write_config(workdir, config)
    with Checkpoints(workdir, keep=len(steps)) as saved:
        for step, of_step in steps.items():
            state = TrainState(
                step=jnp.int32(step),
                seed=jnp.uint32(0),
                params=of_step["params"],
                opt_state=optax.sgd(0.1).init(of_step["params"]),
                routing=of_step.get("routing", {}),
                ema_params=None,
            )
            saved.save(state, iter(grain.MapDataset.range(3).to_iter_dataset()))
    return workdir
