"""Checks that a run has routers to look at, and that runs can be compared layer by layer."""

import operator
from collections.abc import Sequence

from vmoe_inform import checks
from vmoe_inform.config import Config, ModelConfig
from vmoe_inform.data import classes

# By field of the config, what it is called where that says more.
_OF_ALL = {
    "model.inputs": "model.inputs",
    "model.moe.num_experts": "model.moe.num_experts (E)",
    "model.moe.num_selected_experts": "model.moe.num_selected_experts (K)",
    "model.moe_layers": "blocks with a MoE layer",
}


def check_has_routers(config: ModelConfig) -> None:
    """Raises ValueError for a model without MoE layers, which has no routers to look at."""
    if not config.moe_layers:
        raise checks.error("model.moe.layers", "at least one MoE layer, whose router is looked at", checks.NOTHING)


def check_comparable(own: Config, other: Config, fields: Sequence[str]) -> None:
    """Raises ValueError, with all that differs, unless two runs' routers can be compared.

    Args:
      own, other: the configs.
      fields: of the configs, in which runs on these inputs have to agree.
    """
    same_inputs = own.model.inputs == other.model.inputs
    differing = []
    for field in (*_OF_ALL, *(fields if same_inputs else ())):
        mine, theirs = map(operator.attrgetter(field), (own, other))
        if mine != theirs:
            expected, received = (list(value) if isinstance(value, tuple) else value for value in (mine, theirs))
            name = _OF_ALL.get(field, field)
            differing.append(f"{name}: expected {expected!r} as in --workdir; received {received!r}")
    names, others = own.data.class_names, other.data.class_names
    if names and others and {*names} != {*others} and len(names) == len(others):
        differing.append(f"classes: {classes.difference(others, names)}")
    if differing:
        raise checks.InputError("--against is a run of another shape. " + "; ".join(differing))
