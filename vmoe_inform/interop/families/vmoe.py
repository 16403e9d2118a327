"""google-research/vmoe: V-MoE (arXiv 2106.05974), whose names of parameters and settings ../vmoe.py translates."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from vmoe_inform import checks
from vmoe_inform.config import VisionModelConfig
from vmoe_inform.interop import vmoe
from vmoe_inform.interop.families import _preparation, _roots, _shapes
from vmoe_inform.interop.families._positions import computed_positions, grid_side
from vmoe_inform.interop.families._shapes import number_of_blocks, refuse, shape_of
from vmoe_inform.interop.families.base import Family, Move, Question, Settings
from vmoe_inform.interop.stored import StoredCheckpoint

_BLOCKS = r"Encoder/encoderblock_(\d{1,5})/"
_FIRST_BLOCK = "Encoder/encoderblock_0/LayerNorm_0/scale"
_EXPERTS = re.compile(r"Encoder/encoderblock_(\d+)/Moe/Mlp/Dense_0/kernel")
_POSITIONS = "Encoder/posembed_input/pos_embedding"
_MISSING: Mapping[str, str] = {
    r".*/Moe/Router/(mu|scale)": "Soft MoE, whose experts see mixtures of all tokens",
    r".*/(query|key)_(norm|ln)/.*": "normalised queries and keys",
}


class VMoe(Family):
    """V-MoE, and dense ViTs of the same program."""

    title = "google-research/vmoe (Encoder/encoderblock_0/..., MoE layers under Moe/)"
    setting_names: Mapping[str, str] = {
        **vmoe.FIELDS,
        "moe_blocks": "moe.layers",
        "tokens_per_group": "moe.group_size_sequences",
        "group_size": "moe.group_size_sequences",
        "capacity_factor": "moe.capacity_factor_evaluation",
    }
    relative_names = ("tokens_per_group", "group_size")
    roots = _roots.FLAX
    outside = _roots.FLAX_STATE

    def has_names(self, names: Collection[str]) -> bool:
        return _FIRST_BLOCK in names

    def read_settings(self, parameters: StoredCheckpoint) -> Settings:
        shapes = parameters.shapes
        refuse(shapes, _MISSING, "a V-MoE or a plain ViT")
        blocks = number_of_blocks(shapes, _BLOCKS)
        sparse = sorted(int(match[1]) for match in map(_EXPERTS.fullmatch, shapes) if match)
        model = _sizes(shapes, blocks)
        asked = _shapes.asked(model)
        data = _preparation.of_big_vision(model.get("image_size_px", 0))
        if not sparse:
            return Settings({**model, "moe.layers": "none"}, asked=asked, data=data)
        experts = shape_of(shapes, f"Encoder/encoderblock_{sparse[0]}/Moe/Mlp/Dense_0/kernel", 3)
        router = shape_of(shapes, f"Encoder/encoderblock_{sparse[0]}/Moe/Router/dense/kernel", None)
        if router != (model["hidden_size"], experts[0]):
            raise checks.error(
                f"{parameters.path}: router",
                f"[hidden size, experts], {[model['hidden_size'], experts[0]]} (ensembles of E3 are not supported)",
                list(router),
            )
        model |= {"moe.layers": tuple(sparse), "moe.num_experts": experts[0], "mlp_size": experts[2]}
        return Settings(model, asked={**asked, **_ASKED}, assumed=_ASSUMED, data=data)

    def make_moves(self, parameters: StoredCheckpoint, model: VisionModelConfig) -> Sequence[Move]:
        translated = {name: vmoe.find_our_name(name) for name in parameters.arrays}
        found = [Move(ours, (name,)) for name, ours in translated.items() if ours is not None]
        return found if _POSITIONS in parameters.arrays else [*found, computed_positions(model)]

    def our_setting(self, name: str, value: Any, model: Mapping[str, Any]) -> tuple[str, Any]:
        field, value = super().our_setting(name, vmoe.our_value(name, value), model)
        if name in self.relative_names:
            return field, _sequences(name, value, model)
        return field, value


_ASKED = {
    "moe.num_selected_experts": Question("K, experts of each token", "2"),
    "moe.group_size_sequences": Question(
        "images whose tokens share the experts' slots (tokens_per_group / tokens of an image)", "8"
    ),
}
_ASSUMED = {
    "moe.capacity_factor": 1.05,
    "moe.capacity_factor_evaluation": 4.0,
    "moe.capacity_multiple_of": 4,
    "moe.batch_priority": False,
    "router.noise_std": 1.0,
    "router.options.top_experts.renormalize": False,
}


def _sizes(shapes: Mapping[str, tuple[int, ...]], num_layers: int) -> dict[str, Any]:
    """Fields of the model that the dense arrays say."""
    patch, columns, channels, hidden = shape_of(shapes, "embedding/kernel", 4)
    if patch != columns or channels != 3:
        raise checks.error("embedding/kernel", "square patches of three channels", list(shapes["embedding/kernel"]))
    classifier = "token" if "cls" in shapes else "map" if "MapHead/probe" in shapes else "gap"
    dense = shapes.get("Encoder/encoderblock_0/Mlp/Dense_0/kernel") or shapes.get("MapHead/Mlp/Dense_0/kernel")
    return {
        "num_layers": num_layers,
        "hidden_size": hidden,
        "num_heads": shape_of(shapes, "Encoder/encoderblock_0/SelfAttention/query/kernel", 3)[1],
        "patch_size_px": patch,
        **_image_size(shapes, patch, has_class_token=classifier == "token"),
        "classifier": classifier,
        "representation_size": shape_of(shapes, "pre_logits/kernel", 2)[1] if "pre_logits/kernel" in shapes else None,
        **({"num_classes": shape_of(shapes, "head/kernel", 2)[1]} if "head/kernel" in shapes else {}),
        **({"mlp_size": dense[-1]} if dense else {}),
    }


def _image_size(shapes: _shapes.Shapes, patch: int, *, has_class_token: bool) -> dict[str, int]:
    """The field of that name; nothing if there are no position embeddings, which are computed then."""
    if _POSITIONS not in shapes:
        return {}
    patches = shape_of(shapes, _POSITIONS, 3)[1] - has_class_token  # a class token has its own
    return {"image_size_px": grid_side(_POSITIONS, patches, class_token=False)[0] * patch}


def _sequences(name: str, tokens: Any, model: Mapping[str, Any]) -> int:
    """Images of a group of this number of tokens."""
    if "image_size_px" not in model:
        raise checks.error(name, "also --model.image_size_px, which the arrays do not say", tokens)
    each = (model["image_size_px"] // model["patch_size_px"]) ** 2 + (model["classifier"] == "token")
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < each or tokens % each:
        raise checks.error(name, f"a multiple of the {each} tokens of an image", tokens)
    return tokens // each
