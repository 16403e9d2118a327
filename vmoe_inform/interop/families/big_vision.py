"""google-research/big_vision: its ViTs, with each way of pooling."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from vmoe_inform.config import VisionModelConfig
from vmoe_inform.interop.families import _flax_vit, _preparation, _roots, _shapes
from vmoe_inform.interop.families._shapes import Shapes, shape_of
from vmoe_inform.interop.families.base import Family, Move, Settings
from vmoe_inform.interop.stored import StoredCheckpoint

_STACK = "Transformer/encoderblock/LayerNorm_0/scale"  # of all blocks at once, where a loop runs over them


class BigVision(Family):
    """Positions are added before a class token, so that it has none; they may be computed ones.

    Of a pair of towers, such as SigLIP, the one of images is read.
    """

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
    roots = (*_roots.FLAX, "params/img/", "img/")
    outside: Mapping[str, str] = {**_roots.FLAX_STATE, r"(params/)?(txt/.*|t|b)": "of the tower of texts"}

    def our_setting(self, name: str, value: Any, model: Mapping[str, Any]) -> tuple[str, Any]:
        if name == "rep_size" and isinstance(value, bool):  # True: the model's own width
            value = model["hidden_size"] if value else None
        return super().our_setting(name, value, model)

    def has_names(self, names: Collection[str]) -> bool:
        return _flax_vit.has_first_block(names) and _flax_vit.POSITIONS[0] not in names

    def read_settings(self, parameters: StoredCheckpoint) -> Settings:
        shapes = parameters.shapes
        model = _flax_vit.sizes(shapes, _stacked_blocks(shapes))
        model |= _flax_vit.image_size_px(shapes, model)
        data = _preparation.of_big_vision(model.get("image_size_px", 0))
        return Settings(model, asked=_shapes.asked(model), data=data)

    def make_moves(self, parameters: StoredCheckpoint, model: VisionModelConfig) -> Sequence[Move]:
        return _flax_vit.moves(parameters, model)


def _stacked_blocks(shapes: Shapes) -> int | None:
    """Number of blocks, where one array holds them all; None where each has arrays of its own."""
    return shape_of(shapes, _STACK, 2)[0] if _STACK in shapes else None
