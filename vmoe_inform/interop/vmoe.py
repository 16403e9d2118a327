"""Names and settings of the original V-MoE implementation, translated to ours."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax.traverse_util
import numpy as np

from vmoe_inform import checks
from vmoe_inform import config as config_lib
from vmoe_inform.axes import Tree

# Original path -> our path; {n} stands for a number. Arrays have the same shapes on both sides.
_PATHS = (
    ("cls", "class_token"),
    ("embedding/{leaf}", "patch_embedding/{leaf}"),
    ("Encoder/posembed_input/pos_embedding", "position_embedding"),
    ("Encoder/encoder_norm/{leaf}", "encoder_norm/{leaf}"),
    ("Encoder/encoderblock_{n}/LayerNorm_0/{leaf}", "block_{n}/attention_norm/{leaf}"),
    ("Encoder/encoderblock_{n}/LayerNorm_1/{leaf}", "block_{n}/mlp_norm/{leaf}"),
    ("Encoder/encoderblock_{n}/SelfAttention/out/{leaf}", "block_{n}/attention/output/{leaf}"),
    ("Encoder/encoderblock_{n}/SelfAttention/{projection}/{leaf}", "block_{n}/attention/{projection}/{leaf}"),
    ("Encoder/encoderblock_{n}/Mlp/Dense_0/{leaf}", "block_{n}/mlp/hidden/{leaf}"),
    ("Encoder/encoderblock_{n}/Mlp/Dense_1/{leaf}", "block_{n}/mlp/output/{leaf}"),
    ("Encoder/encoderblock_{n}/Moe/Mlp/Dense_0/{leaf}", "block_{n}/moe/experts/hidden/{leaf}"),
    ("Encoder/encoderblock_{n}/Moe/Mlp/Dense_1/{leaf}", "block_{n}/moe/experts/output/{leaf}"),
    ("Encoder/encoderblock_{n}/Moe/Router/dense/{leaf}", "block_{n}/moe/router/linear/{leaf}"),
    ("MapHead/probe", "map_pooling/probe"),
    ("MapHead/LayerNorm/{leaf}", "map_pooling/norm/{leaf}"),
    ("MapHead/MultiHeadDotProductAttention/{projection}/{leaf}", "map_pooling/attention/{projection}/{leaf}"),
    ("MapHead/Mlp/Dense_0/{leaf}", "map_pooling/mlp/hidden/{leaf}"),
    ("MapHead/Mlp/Dense_1/{leaf}", "map_pooling/mlp/output/{leaf}"),
    ("pre_logits/{leaf}", "pre_logits/{leaf}"),
    ("head/{leaf}", "head/{leaf}"),
)
_GROUPS = {
    "n": r"(?P<n>\d+)",
    "leaf": r"(?P<leaf>kernel|bias|scale)",
    "projection": r"(?P<projection>query|key|value|out)",
}
_RULES = [(re.compile(theirs.format(**_GROUPS)), ours) for theirs, ours in _PATHS]

# Setting of the original -> field of config.model
FIELDS = {
    "num_experts": "moe.num_experts",
    "num_selected_experts": "moe.num_selected_experts",
    "moe_layers": "moe.layers",
    "images_per_group": "moe.group_size_sequences",
    "capacity_factor": "moe.capacity_factor",
    "capacity_multiple_of": "moe.capacity_multiple_of",
    "batch_priority": "moe.batch_priority",
    "num_layers": "num_layers",
    "hidden_size": "hidden_size",
    "mlp_dim": "mlp_size",
    "num_heads": "num_heads",
    "patch_size": "patch_size_px",
    "image_size": "image_size_px",
    "classifier": "classifier",
    "num_classes": "num_classes",
    "representation_size": "representation_size",
    "importance_loss_weight": "router.options.importance.weight",
    "load_loss_weight": "router.options.load.weight",
    "gshard_loss_weight": "router.options.gshard.weight",
    "renormalize": "router.options.top_experts.renormalize",
    "noise_std": "router.noise_std",
}

# Setting of the original -> its values that mean something else here, with ours. Nothing is rounded up to None or 0.
_VALUES: Mapping[str, Sequence[tuple[Any, Any]]] = {"capacity_multiple_of": ((None, 1), (0, 1))}

_LOSSES = ("importance", "load", "gshard")

# Defaults of optional settings; every other one must be named. The values are the original's own defaults, except noise
# and losses. The original adds those by default; a recorded run has the ones that it names.
_DEFAULTS = {
    "batch_priority": False,
    "capacity_multiple_of": 4,
    "classifier": "token",
    "representation_size": None,
    "renormalize": False,
    "noise_std": 0.0,
    "importance_loss_weight": 0.0,
    "load_loss_weight": 0.0,
    "gshard_loss_weight": 0.0,
}


def our_name(path: str) -> str:
    """Our path of a parameter, e.g. ``cls`` -> ``class_token``.

    Raises:
      ValueError: the original has no such parameter.
    """
    ours = find_our_name(path)
    if ours is None:
        raise checks.error("parameter path", "one of the original V-MoE's", path)
    return ours


def find_our_name(path: str) -> str | None:
    """As :func:`our_name`, but None for a parameter that the original does not have."""
    matches = ((pattern.fullmatch(path), ours) for pattern, ours in _RULES)
    return next((ours.format(**match.groupdict()) for match, ours in matches if match), None)


def our_value(name: str, value: Any) -> Any:
    """Our value of a setting that has the original's name, e.g. 1 for capacities in multiples of None."""
    return next((ours for theirs, ours in _VALUES.get(name, ()) if theirs == value), value)


def model_config(settings: Mapping[str, Any]) -> config_lib.ModelConfig:
    """The model that settings of the original describe.

    Args:
      settings: by the original's names, e.g. ``{"mlp_dim": 64, ...}``. The one ``capacity_factor`` holds for training
        and evaluation. The defaults are capacities in multiples of 4 and a class token. By default there is no batch
        priority, representation layer, renormalization, noise or auxiliary loss.

    Raises:
      ValueError: an unknown setting, missing ones, or values that make no model.
    """
    if not isinstance(settings, Mapping):
        raise checks.error("config.json", "an object of settings", settings)
    unknown = set(settings) - set(FIELDS)
    if unknown:
        raise checks.error("config.json", f"the settings {', '.join(sorted(FIELDS))}", sorted(unknown))
    missing = set(FIELDS) - set(_DEFAULTS) - set(settings)
    if missing:
        raise checks.error("config.json", f"also the settings {', '.join(sorted(missing))}", sorted(settings))
    flat: dict[str, Any] = {"router.score": "linear", "router.inform": "none", "router.select": "top_experts"}
    flat |= {FIELDS[name]: our_value(name, value) for name, value in {**_DEFAULTS, **settings}.items()}
    flat["router.losses"] = tuple(loss for loss in _LOSSES if flat[f"router.options.{loss}.weight"] != 0)
    flat["moe.capacity_factor_evaluation"] = flat["moe.capacity_factor"]
    return config_lib.parse_model(flax.traverse_util.unflatten_dict(flat, sep="."))


def from_original(arrays: Mapping[str, np.ndarray], expected: Tree) -> Tree:
    """Parameters of the original as a tree of ours.

    Args:
      arrays: by the original's paths joined with ``/``.
      expected: our parameters (arrays or shapes) that they must fill.

    Raises:
      ValueError: missing or surplus parameters, or another shape; names the paths.
    """
    ours = {our_name(path): array for path, array in arrays.items()}
    wanted = flax.traverse_util.flatten_dict(expected, sep="/")
    if set(ours) != set(wanted):
        raise checks.InputError(
            f"parameters: expected {len(wanted)} paths; received {len(ours)}; "
            f"missing {sorted(set(wanted) - set(ours))}, surplus {sorted(set(ours) - set(wanted))}"
        )
    for path, leaf in wanted.items():
        if ours[path].shape != leaf.shape:
            raise checks.error(path, f"shape {leaf.shape}", ours[path].shape)
    return flax.traverse_util.unflatten_dict(ours, sep="/")
