"""google-research/vmoe: V-MoE (arXiv 2106.05974), whose names of parameters and settings ../vmoe.py translates."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vmoe_inform import checks
from vmoe_inform.config import VisionModelConfig
from vmoe_inform.interop import vmoe
from vmoe_inform.interop.families import _preparation
from vmoe_inform.interop.families._shapes import number_of_blocks, shape_of
from vmoe_inform.interop.families.base import Family, Move, Settings
from vmoe_inform.interop.stored import StoredCheckpoint

_PARAMS = "params/"  # before the names of checkpoints that hold a whole training state
_STATE = re.compile(r"(opt_state|optimizer|state|step|rngs?|target_state|iter|[a-z_]*_rng)(/.*)?")
_BLOCKS = r"Encoder/encoderblock_(\d{1,5})/"
_FIRST_BLOCK = "Encoder/encoderblock_0/LayerNorm_0/scale"
_EXPERTS = re.compile(r"Encoder/encoderblock_(\d+)/Moe/Mlp/Dense_0/kernel")


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

    def recognises(self, stored: StoredCheckpoint) -> bool:
        return any(prefix + _FIRST_BLOCK in stored.arrays for prefix in ("", _PARAMS))

    def ignored(self, name: str) -> str | None:
        return "state of training" if _STATE.fullmatch(name) else None

    def settings(self, stored: StoredCheckpoint) -> Settings:
        shapes = {name.removeprefix(_PARAMS): shape for name, shape in stored.shapes.items()}
        blocks = number_of_blocks(shapes, _BLOCKS)
        sparse = sorted(int(match[1]) for match in map(_EXPERTS.fullmatch, shapes) if match)
        model = _sizes(shapes, blocks)
        asked = {} if "num_classes" in model else {"num_classes": "classes of the head, which the checkpoint lacks"}
        data = _preparation.of_big_vision(model["image_size_px"])
        if not sparse:
            return Settings({**model, "moe.layers": "none"}, asked=asked, data=data)
        experts = shape_of(shapes, f"Encoder/encoderblock_{sparse[0]}/Moe/Mlp/Dense_0/kernel", 3)
        router = shape_of(shapes, f"Encoder/encoderblock_{sparse[0]}/Moe/Router/dense/kernel", None)
        if router != (model["hidden_size"], experts[0]):
            raise checks.error(
                f"{stored.path}: router",
                f"[hidden size, experts], {[model['hidden_size'], experts[0]]} (ensembles of E3 are not supported)",
                list(router),
            )
        model |= {"moe.layers": tuple(sparse), "moe.num_experts": experts[0], "mlp_size": experts[2]}
        return Settings(model, asked={**asked, **_ASKED}, assumed=_ASSUMED, data=data)

    def moves(self, stored: StoredCheckpoint, model: VisionModelConfig) -> Sequence[Move]:
        del model
        names = [name for name in stored.arrays if self.ignored(name) is None]
        translated = {name: vmoe.find_our_name(name.removeprefix(_PARAMS)) for name in names}
        return [Move(ours, (name,)) for name, ours in translated.items() if ours is not None]

    def our_setting(self, name: str, value: Any, settings: Settings) -> tuple[str, Any]:
        field, value = super().our_setting(name, value, settings)
        if name in ("tokens_per_group", "group_size"):
            return field, _sequences(name, value, settings)
        return field, value


_ASKED = {
    "moe.num_selected_experts": "K, experts of each token",
    "moe.group_size_sequences": "images whose tokens share the experts' slots (tokens_per_group / tokens of an image)",
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
    tokens = shape_of(shapes, "Encoder/posembed_input/pos_embedding", 3)[1] - (classifier == "token")
    side = math.isqrt(max(tokens, 0))
    if side * side != tokens or not tokens:
        raise checks.error("Encoder/posembed_input/pos_embedding", "a square of patches", tokens)
    dense = shapes.get("Encoder/encoderblock_0/Mlp/Dense_0/kernel") or shapes.get("MapHead/Mlp/Dense_0/kernel")
    return {
        "num_layers": num_layers,
        "hidden_size": hidden,
        "num_heads": shape_of(shapes, "Encoder/encoderblock_0/SelfAttention/query/kernel", 3)[1],
        "patch_size_px": patch,
        "image_size_px": side * patch,
        "classifier": classifier,
        "representation_size": shape_of(shapes, "pre_logits/kernel", 2)[1] if "pre_logits/kernel" in shapes else None,
        **({"num_classes": shape_of(shapes, "head/kernel", 2)[1]} if "head/kernel" in shapes else {}),
        **({"mlp_size": dense[-1]} if dense else {}),
    }


def _sequences(name: str, tokens: Any, settings: Settings) -> int:
    """Images of a group of this number of tokens."""
    model = settings.model
    each = (model["image_size_px"] // model["patch_size_px"]) ** 2 + (model["classifier"] == "token")
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < each or tokens % each:
        raise checks.error(name, f"a multiple of the {each} tokens of an image", tokens)
    return tokens // each
