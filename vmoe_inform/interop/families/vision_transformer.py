"""google-research/vision_transformer: the ViTs of arXiv 2010.11929, and of AugReg, arXiv 2106.10270."""

import re
from collections.abc import Mapping, Sequence

from vmoe_inform.config import VisionModelConfig
from vmoe_inform.interop.families import _flax_vit, _shapes
from vmoe_inform.interop.families.base import Family, Move, Settings
from vmoe_inform.interop.stored import StoredCheckpoint

_STATE = re.compile(r"(opt|opt_state|optimizer|step|rngs?)(/.*)?")


class VisionTransformer(Family):
    """Models with a class token and learned positions, also in the names of before Flax's Linen."""

    title = "google-research/vision_transformer (Transformer/encoderblock_0/..., Transformer/posembed_input/...)"

    setting_names: Mapping[str, str] = {
        "mlp_dim": "mlp_size",
        "patch_size": "patch_size_px",
        "image_size": "image_size_px",
    }

    def recognises(self, stored: StoredCheckpoint) -> bool:
        names = {name.removeprefix(_flax_vit.PARAMS) for name in stored.arrays}
        return any(map(_flax_vit.FIRST_BLOCK.fullmatch, names)) and _flax_vit.POSITIONS[0] in names

    def ignored(self, name: str) -> str | None:
        return "state of training" if _STATE.fullmatch(name) else None

    def settings(self, stored: StoredCheckpoint) -> Settings:
        shapes = _flax_vit.shapes_of(stored)
        model = _flax_vit.sizes(shapes)
        model |= _flax_vit.image_size_px(shapes, model)
        return Settings(model, asked=_shapes.asked(model), data=_PREPARATION)

    def moves(self, stored: StoredCheckpoint, model: VisionModelConfig) -> Sequence[Move]:
        return _flax_vit.moves(stored, model)


# The program resizes the whole image to P x P, bilinear without antialiasing, and maps pixels to [-1, 1].
_PREPARATION = {
    "pixel_mean": 0.5,
    "pixel_std": 0.5,
    "evaluation_crop": 1.0,
    "evaluation_resize": "stretch",
    "evaluation_interpolation": "bilinear_aliased",
}
