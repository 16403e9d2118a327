"""Parameter path -> PartitionSpec. A path that no rule matches is an error, never silently replicated.

Experts are sharded over the mesh axis ``expert``. Kernels are sharded over ``fsdp``, along the axis of the model's
width. Vectors, embeddings of patches and positions, and routers are small and whole on every device. What a model
carries from batch to batch is spread as the batch is. A step gathers sharded parameters before it uses them
(:func:`gathered`), so that the arithmetic is the same on every mesh.

Embeddings and head of a vocabulary are large, and sharded over ``fsdp`` and ``expert``. They are cut along the model's
width, since a vocabulary may have any size. They are not gathered: see
:class:`vmoe_inform.nn.language_model.Vocabulary` and :mod:`vmoe_inform.nn.cross_entropy`.
"""

import math
import re
from collections.abc import Sequence

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vmoe_inform import checks
from vmoe_inform.axes import Tree
from vmoe_inform.sharding.mesh import BATCH, EXPERT, FSDP, axis_size, constrain

Rule = tuple[str, PartitionSpec]

# Matched in order against the whole path, e.g. "params/block_1/moe/experts/hidden/kernel". Optimizer states carry the
# parameters' paths at their end and follow the same rules.
RULES: tuple[Rule, ...] = (
    # Second moments of Adafactor: of rows, of columns, and of what is too small for them; of experts [E, ...].
    (r"opt_state/.*/(v_row|v_col|v)/(.*/)?moe/experts/.*", PartitionSpec(EXPERT)),
    (r"opt_state/.*/(v_row|v_col|v)/.*", PartitionSpec()),
    (r".*/vocabulary/embedding", PartitionSpec(None, (FSDP, EXPERT))),  # [V, D]
    (r".*/vocabulary/kernel", PartitionSpec((FSDP, EXPERT))),  # [D, V]
    (r".*/vocabulary/bias", PartitionSpec()),
    (r".*/moe/experts/hidden/kernel", PartitionSpec(EXPERT, FSDP)),  # [E, D, M]
    (r".*/moe/experts/output/kernel", PartitionSpec(EXPERT, None, FSDP)),  # [E, M, D]
    (r".*/moe/experts/(hidden|output)/bias", PartitionSpec(EXPERT)),
    (r".*/moe/shared/hidden/kernel", PartitionSpec(None, FSDP)),  # [X, D, M], on every device of the experts
    (r".*/moe/shared/output/kernel", PartitionSpec(None, None, FSDP)),  # [X, M, D]
    (r".*/moe/shared/(hidden|output)/bias", PartitionSpec()),
    (r".*/moe/router/.*", PartitionSpec()),
    (r".*/attention/(query|key|value)/kernel", PartitionSpec(FSDP)),  # [D, H, F]
    (r".*/attention/(output|out)/kernel", PartitionSpec(None, None, FSDP)),  # [H, F, D]
    (r".*/mlp/hidden/kernel", PartitionSpec(FSDP)),  # [D, M]
    (r".*/mlp/output/kernel", PartitionSpec(None, FSDP)),  # [M, D]
    (r".*/patch_embedding/kernel", PartitionSpec(None, None, None, FSDP)),  # [p, p, 3, D]
    (r".*/(pre_logits|head)/kernel", PartitionSpec(FSDP)),  # [D, ...]; the head's width may be representation_size
    (r".*/(attention|mlp|head|patch_embedding|pre_logits)/(.*/)?bias", PartitionSpec()),
    (r".*/(attention_norm|mlp_norm|moe_norm|encoder_norm|final_norm|norm)/(scale|bias)", PartitionSpec()),
    (r".*/(class_token|position_embedding|relative_keys|map_pooling/probe)", PartitionSpec()),
    (r"(.*/)?(count|step|mini_step|gradient_step|seed)", PartitionSpec()),
    (r"memory(/.*)?", BATCH),
)


def path_name(path: Sequence) -> str:
    """A key path of ``jax.tree_util`` as names joined by ``/``."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def spec_for(name: str, rules: Sequence[Rule] = RULES) -> PartitionSpec:
    """PartitionSpec of the first rule that matches the whole path.

    Raises:
      ValueError: no rule matches.
    """
    for pattern, spec in rules:
        if re.fullmatch(pattern, name):
            return spec
    raise checks.error("sharding rules", "a rule that matches every path of the training state", name)


def tree_shardings(tree: Tree, mesh: Mesh, rules: Sequence[Rule] = RULES) -> Tree:
    """The NamedSharding of every array of a tree, by path.

    Raises:
      ValueError: a path without a rule, or an axis that its mesh axis does not divide.
    """

    def sharding(path: Sequence, leaf: jax.ShapeDtypeStruct | jax.Array) -> NamedSharding:
        name = path_name(path)
        spec = spec_for(name, rules)
        for size, axis in zip(leaf.shape, spec, strict=False):
            axes = () if axis is None else (axis,) if isinstance(axis, str) else axis
            devices = math.prod(mesh.shape[part] for part in axes)
            if size % devices:
                along = " x ".join(map(repr, axes))
                raise checks.error(name, f"a size divisible by the {devices} devices along {along}", size)
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding, tree)


def gathered(params: Tree, rules: Sequence[Rule] = RULES) -> Tree:
    """Parameters on the mesh in use as layers take them: whole along ``fsdp``.

    The gradient of this sums over the devices and cuts up again.
    """
    if axis_size(FSDP) == 1:
        return params

    def gather(path: Sequence, leaf: jax.Array) -> jax.Array:
        spec = spec_for("params/" + path_name(path), rules)
        return constrain(leaf, *(None if axis == FSDP else axis for axis in spec)) if FSDP in spec else leaf

    return jax.tree_util.tree_map_with_path(gather, params)
