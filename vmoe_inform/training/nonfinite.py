"""Steps whose loss or gradient is not finite: found on the device, and left out there if the config says so.

hooks/watch.py names them on the host."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vmoe_inform.axes import Array, Bool, Int, Tree
from vmoe_inform.sharding.rules import path_name

WHERE = "nonfinite_where"  # name of the metric that where() gives; it is not logged

# Parts of the model in the order in which the backward pass comes to them; of the blocks, the last comes first.
_BACKWARD = (
    "head",
    "vocabulary/bias",
    "vocabulary/kernel",
    "pre_logits",
    "map_pooling",
    "encoder_norm",
    "final_norm",
    "block",
    "relative_keys",
    "position_embedding",
    "class_token",
    "patch_embedding",
    "vocabulary/embedding",
)
_BACKWARD_IN_BLOCK = ("moe", "mlp", "mlp_norm", "attention", "attention_norm")


def parameter_groups(params: Tree) -> dict[str, list[Any]]:
    """Parameters by part of the model, such as ``block_1/moe``, in the order of the backward pass.

    A gradient that is not finite makes those of all later groups so, too. So the first group is the origin, unless the
    loss itself is not finite.
    """
    groups: dict[str, list[Any]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = path_name(path).split("/")
        has_parts = names[0].startswith("block_") or names[0] == "vocabulary"
        groups.setdefault("/".join(names[:2] if has_parts else names[:1]), []).append(leaf)
    return {name: groups[name] for name in sorted(groups, key=_backward_order)}


def _backward_order(group: str) -> tuple[int, int, int, str]:
    part, _, inner = group.partition("/")
    block = re.fullmatch(r"block_(\d+)", part)
    name = "block" if block else group
    rank = _BACKWARD.index(name) if name in _BACKWARD else len(_BACKWARD)
    inner_rank = _BACKWARD_IN_BLOCK.index(inner) if inner in _BACKWARD_IN_BLOCK else len(_BACKWARD_IN_BLOCK)
    return rank, -int(block[1]) if block else 0, inner_rank, group


def where(loss: Array, gradients: Tree) -> Int[Array, ""]:
    """Index of the first group whose gradient is not finite, or too large for the square of its norm in float32.

    Returns:
      -1 if all is finite; the number of groups if only the loss is not.
    """
    norms = [optax.tree.norm(group) for group in parameter_groups(gradients).values()]
    bad = ~jnp.isfinite(jnp.stack([*norms, loss.astype(jnp.float32)]))
    return jnp.where(jnp.any(bad), jnp.argmax(bad).astype(jnp.int32), jnp.int32(-1))


def choose(use: Bool[Array, ""], new: Tree, old: Tree) -> Tree:
    """``new`` where ``use``, otherwise ``old``."""
    return jax.tree.map(lambda a, b: jnp.where(use, a, b), new, old)
