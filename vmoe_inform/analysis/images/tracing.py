"""Records each MoE layer of a model while it classifies images, in batches and on any mesh."""

import contextlib
import dataclasses
import functools
import json
import math
from collections.abc import Callable, Collection
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vmoe_inform import checks
from vmoe_inform.analysis.collect.comparable import check_has_routers
from vmoe_inform.analysis.collect.recording import GRAPH, block_names, kept_fields, records
from vmoe_inform.analysis.collect.traces import LayerTrace, Trace
from vmoe_inform.axes import Array, Float, Tree
from vmoe_inform.config import VisionModelConfig
from vmoe_inform.nn import models
from vmoe_inform.nn.models import Model
from vmoe_inform.nn.router import TRACE
from vmoe_inform.sharding.mesh import batch_sharding, replicated
from vmoe_inform.sharding.rules import gathered

_IMAGES_AT_A_TIME = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageTrace(Trace):
    """The routing of n images by a model.

    Attributes:
      logits: of the classes.
      grid: rows and columns of patches.
      class_token: whether token 0 is the class token; the patches follow, row by row.
    """

    logits: Float[np.ndarray, "n classes"]
    grid: tuple[int, int]
    class_token: bool


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
) -> ImageTrace:
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
    fields = kept_fields(config, keep) + ((GRAPH,) if graphs else ())
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
    return ImageTrace(
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
        variables = variables | {"params": gathered(variables["params"])}
        (logits, _), left = model.apply(variables, images, train=False, sequence_mask=mask, mutable=[TRACE])
        return logits, {block: layer.only(fields) for block, layer in records(left[TRACE], model.config).items()}

    return jax.jit(look) if mesh is None else jax.jit(look, out_shardings=replicated(mesh))
