"""A model's variables as arrays with names, as the exported file and the exported program call them."""

from collections.abc import Mapping
from typing import Any

import flax.traverse_util

from vmoe_inform.axes import Tree


def flatten(variables: Mapping[str, Tree]) -> dict[str, Any]:
    """``params/block_0/mlp/hidden/kernel`` -> array; states of router steps are below ``routing``."""
    return flax.traverse_util.flatten_dict(dict(variables), sep="/")


def unflatten(arrays: Mapping[str, Any]) -> dict[str, Tree]:
    """The variables of :func:`flatten` again, as ``model.apply`` takes them."""
    return flax.traverse_util.unflatten_dict(dict(arrays), sep="/")
