"""google-research/big_vision: its ViTs, with each way of pooling."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vmoe_inform.config import VisionModelConfig
from vmoe_inform.interop.families import _flax_vit, _preparation, _shapes
from vmoe_inform.interop.families._shapes import Shapes, shape_of
from vmoe_inform.interop.families.base import Family, Move, Settings
from vmoe_inform.interop.stored import StoredCheckpoint

_STATE = re.compile(r"(opt|chrono|rng|rng_loop|step)(/.*)?")
_STACK = "Transformer/encoderblock/LayerNorm_0/scale"  # of all blocks at once, where a loop runs over them


class BigVision(Family):
    """Positions are added before a class token, so that it has none; they may be computed ones."""

    title = "google-research/big_vision (params/Transformer/encoderblock_0/..., params/pos_embedding)"
    setting_names: Mapping[str, str] = {
        "pool": "classifier",
        "pool_type": "classifier",
        "width": "hidden_size",
        "depth": "num_layers",
        "mlp_dim": "mlp_size",
        "patch_size": "patch_size_px",
        "image_size": "image_size_px",
        "rep_size": "representation_size",
    }
    setting_values: Mapping[str, Mapping[str, Any]] = {name: {"tok": "token"} for name in ("pool", "pool_type")}

    def our_setting(self, name: str, value: Any, settings: Settings) -> tuple[str, Any]:
        if name == "rep_size" and isinstance(value, bool):  # True: the model's own width
            value = settings.model["hidden_size"] if value else None
        return super().our_setting(name, value, settings)

    def recognises(self, stored: StoredCheckpoint) -> bool:
        names = {name.removeprefix(_flax_vit.PARAMS) for name in stored.arrays}
        return any(map(_flax_vit.FIRST_BLOCK.fullmatch, names)) and _flax_vit.POSITIONS[0] not in names

    def ignored(self, name: str) -> str | None:
        return "state of training" if _STATE.fullmatch(name) else None

    def settings(self, stored: StoredCheckpoint) -> Settings:
        shapes = _flax_vit.shapes_of(stored)
        model = _flax_vit.sizes(shapes, _stacked_blocks(shapes))
        model |= _flax_vit.image_size_px(shapes, model)
        data = _preparation.of_big_vision(model.get("image_size_px", 0))
        return Settings(model, asked=_shapes.asked(model), data=data)

    def moves(self, stored: StoredCheckpoint, model: VisionModelConfig) -> Sequence[Move]:
        return _flax_vit.moves(stored, model)


def _stacked_blocks(shapes: Shapes) -> int | None:
    """Number of blocks, where one array holds them all; None where each has arrays of its own."""
    return shape_of(shapes, _STACK, 2)[0] if _STACK in shapes else None
