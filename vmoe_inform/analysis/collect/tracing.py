"""Records each MoE layer of a model while it classifies images, in batches and on any mesh."""

import contextlib
import dataclasses
import functools
import json
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vmoe_inform import checks
from vmoe_inform.analysis.collect.traces import LayerTrace, Trace
from vmoe_inform.axes import Array, Float, Tree
from vmoe_inform.config import ModelConfig, VisionModelConfig
from vmoe_inform.nn import models
from vmoe_inform.nn.models import Model
from vmoe_inform.nn.router import TRACE
from vmoe_inform.routing import topk_margin
from vmoe_inform.routing.steps import INFORM_STEPS, SELECT_STEPS
from vmoe_inform.sharding.mesh import batch_sharding, replicated
from vmoe_inform.sharding.rules import gathered

# What a record may hold besides the token graph, which is by far the largest.
FIELDS = ("base", "informed", "base_indices", "indices", "weights", "load", "dropped", "margin")
_GRAPH = "graph"
_IMAGES_AT_A_TIME = 64


def trace(
    model: Model,
    variables: Tree,
    images: Float[Any, "n P P 3"],
    *,
    keep: Collection[str] | None = None,
    graphs: bool = False,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    label: str = "",
) -> Trace:
    """A record of each MoE layer on the images, in evaluation mode.

    Only what is kept leaves the devices. Consecutive images form groups that share the experts' slots. Filler images
    take none, so the result does not depend on the size of the batches. Where tokens find no free slot, or experts
    choose, it depends on the images of the group.

    Args:
      model: from :func:`vmoe_inform.nn.models.from_config`.
      variables: what ``model.apply`` takes.
      images: normalised pixels (:func:`vmoe_inform.data.images.augment.normalize`).
      keep: names of the fields of :class:`LayerTrace` to keep; None: all that there are but the graph.
      graphs: keeps the token graphs too, N x N numbers an image and layer; of layers whose tokens do not mix there are
        none.
      batch_size: images at a time, a multiple of the devices times ``model.moe.group_size_sequences``; None: about 64.
      mesh: whose devices share out the images of a batch; None: the default device.
      label: what is traced, for titles.

    Raises:
      ValueError: a model without MoE layers, images of another size or not normalised, an unknown field, or a batch
        size that does not fit.
    """
    config = model.config
    if not isinstance(config, VisionModelConfig):
        raise checks.error("model.inputs", "'images'", config.inputs)
    check_has_routers(config)
    fields = _check_fields(config, keep) + ((_GRAPH,) if graphs else ())
    images = np.asarray(images)
    size = config.image_size_px
    if images.ndim != 4 or images.shape[1:] != (size, size, 3) or not len(images):
        raise checks.error("images", f"shape [n, {size}, {size}, 3] (model.image_size_px = {size})", list(images.shape))
    if images.dtype.kind != "f":
        raise checks.error("images", "normalised pixels, float32 (data.augment.normalize)", str(images.dtype))
    unit = config.moe.group_size_sequences * (1 if mesh is None else mesh.size)
    if batch_size is None:
        batch_size = unit * math.ceil(min(len(images), _IMAGES_AT_A_TIME) / unit)
    elif batch_size < 1 or batch_size % unit:
        raise checks.error("batch_size", f"a multiple of {unit} (devices times sequences of a group)", batch_size)

    look = _compiled(json.dumps(dataclasses.asdict(config), sort_keys=True), fields, mesh)
    found = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size].astype(np.float32)
        count = len(batch)
        padded = np.concatenate([batch, np.zeros((batch_size - count, *batch.shape[1:]), np.float32)])
        inputs = (padded, np.arange(batch_size) < count)
        if mesh is not None:  # every process has all of the images
            inputs = jax.device_put(inputs, batch_sharding(mesh))
        with contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh):
            outputs = look(variables, *inputs)
        found.append(jax.tree.map(lambda values, count=count: np.asarray(values)[:count], outputs))
    logits, layers = jax.tree.map(lambda *parts: np.concatenate(parts), *found)
    side = size // config.patch_size_px
    return Trace(
        logits=logits,
        layers={block: layers[block] for block in block_names(config)},
        num_experts=config.moe.num_experts,
        grid=(side, side),
        class_token=config.classifier == "token",
        label=label,
    )


@functools.lru_cache(maxsize=16)
def _compiled(config: str, fields: tuple[str, ...], mesh: Mesh | None) -> Callable[..., Any]:
    """Compiled once for a model and what is asked of it, for notebooks that look more than once."""
    model = models.from_config(json.loads(config))

    def look(variables: Tree, images: Array, mask: Array) -> tuple[Array, dict[str, LayerTrace]]:
        logits, layers = apply_and_record(model, variables, images, mask)
        kept = {block: LayerTrace(**{name: getattr(layer, name) for name in fields}) for block, layer in layers.items()}
        return logits, kept

    return jax.jit(look) if mesh is None else jax.jit(look, out_shardings=replicated(mesh))


def apply_and_record(
    model: Model, variables: Tree, images: Array, mask: Array
) -> tuple[Float[Array, "B classes"], dict[str, LayerTrace]]:
    """Logits and full records of a batch, for use under ``jit``: what is not used is not computed.

    Args:
      model, variables: as for :func:`trace`.
      images: normalised [B, P, P, 3].
      mask: False for filler images [B].
    """
    variables = variables | {"params": gathered(variables["params"])}
    (logits, _), left = model.apply(variables, images, train=False, sequence_mask=mask, mutable=[TRACE])
    layers = left[TRACE]
    return logits, {block: _record(layers[block]["moe"], model.config) for block in block_names(model.config)}


def _record(left: Mapping[str, Any], config: ModelConfig) -> LayerTrace:
    """The record of what :class:`vmoe_inform.nn.moe.MoeLayer` left; its arrays are on the devices."""
    routing = left["routing"]
    sums = jnp.sum(routing.informed, axis=-1, keepdims=True)
    informed = routing.informed / jnp.where(sums > 0, sums, 1.0)
    found: dict[str, Any] = {name: left[name] for name in ("indices", "weights", "load", "dropped")}
    if tokens_choose(config):
        found["margin"] = topk_margin(informed, routing.base_indices.shape[-1])
    found |= {"base": jax.nn.softmax(routing.logits, axis=-1), "informed": informed}
    return LayerTrace(base_indices=routing.base_indices, graph=routing.graph, **found)


def block_names(config: ModelConfig) -> list[str]:
    """Names of the blocks with a MoE layer, in order."""
    return [f"block_{layer}" for layer in config.moe_layers]


def tokens_choose(config: ModelConfig) -> bool:
    """Whether each token takes the experts that it finds most probable; else experts or slots choose."""
    return not SELECT_STEPS[config.router.select].fills_slots


def has_adjacency(config: ModelConfig) -> bool:
    """Whether a step of the router multiplies with a matrix of experts, which is a part of its state."""
    return any(INFORM_STEPS[name].adjacency is not None for name in config.router.inform_steps)


def check_has_routers(config: ModelConfig) -> None:
    """Raises ValueError for a model without MoE layers, which has no routers to look at."""
    if not config.moe_layers:
        raise checks.error("model.moe.layers", "at least one MoE layer, whose router could be looked at", "none")


def _check_fields(config: ModelConfig, keep: Collection[str] | None) -> tuple[str, ...]:
    there = tuple(name for name in FIELDS if name != "margin" or tokens_choose(config))
    if keep is None:
        return there
    for name in keep:
        if name not in FIELDS:
            more = " (the token graph: graphs=True)" if name == _GRAPH else ""
            raise checks.error("keep", f"names among {', '.join(FIELDS)}{more}", name)
        if name not in there:
            raise checks.error(
                "keep", f"no margins with model.router.select = {config.router.select!r}, where no token chooses", name
            )
    return tuple(name for name in there if name in keep)
