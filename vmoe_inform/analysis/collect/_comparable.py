"""Checks that runs can be compared layer by layer."""

from vmoe_inform import checks
from vmoe_inform.config import Config
from vmoe_inform.data import classes


def check_comparable(own: Config, other: Config) -> None:
    """Raises ValueError, with all that differs, unless two runs' routers can be compared."""
    facts = {
        "model.moe.num_experts (E)": lambda config: config.model.moe.num_experts,
        "model.moe.num_selected_experts (K)": lambda config: config.model.moe.num_selected_experts,
        "blocks with a MoE layer": lambda config: list(config.model.moe_layers),
        "model.image_size_px": lambda config: config.model.image_size_px,
        "model.patch_size_px": lambda config: config.model.patch_size_px,
        "tokens of an image": lambda config: config.model.num_tokens,
        "model.num_classes": lambda config: config.model.num_classes,
        "data.source": lambda config: config.data.source,
        "data.tfds_name": lambda config: config.data.tfds_name,
    }
    differing = [
        f"{field}: expected {fact(own)!r} as in --workdir; received {fact(other)!r}"
        for field, fact in facts.items()
        if fact(own) != fact(other)
    ]
    names, theirs = own.data.class_names, other.data.class_names
    if names and theirs and {*names} != {*theirs} and len(names) == len(theirs):
        differing.append(f"classes: {classes.difference(theirs, names)}")
    if differing:
        raise checks.InputError("--against is a run of another shape. " + "; ".join(differing))
