"""google-research/vision_transformer: the ViTs of arXiv 2010.11929, and of AugReg, arXiv 2106.10270."""

from collections.abc import Collection, Mapping, Sequence

from vmoe_inform.config import VisionModelConfig
from vmoe_inform.interop.families import _flax_vit, _roots, _shapes
from vmoe_inform.interop.families.base import Family, Move, Settings
from vmoe_inform.interop.stored import StoredCheckpoint


class VisionTransformer(Family):
    """Models with a class token and learned positions, also in the names of before Flax's Linen."""

    title = "google-research/vision_transformer (Transformer/encoderblock_0/..., Transformer/posembed_input/...)"

    setting_names: Mapping[str, str] = {
        "mlp_dim": "mlp_size",
        "patch_size": "patch_size_px",
        "image_size": "image_size_px",
    }

    roots = _roots.FLAX
    outside = _roots.FLAX_STATE

    def has_names(self, names: Collection[str]) -> bool:
        return _flax_vit.has_first_block(names) and _flax_vit.POSITIONS[0] in names

    def read_settings(self, parameters: StoredCheckpoint) -> Settings:
        shapes = parameters.shapes
        model = _flax_vit.sizes(shapes)
        model |= _flax_vit.image_size_px(shapes, model)
        return Settings(model, asked=_shapes.asked(model), data=_PREPARATION)

    def make_moves(self, parameters: StoredCheckpoint, model: VisionModelConfig) -> Sequence[Move]:
        return _flax_vit.moves(parameters, model)


# The program resizes the whole image to P x P, bilinear without antialiasing, and maps pixels to [-1, 1].
_PREPARATION = {
    "pixel_mean": 0.5,
    "pixel_std": 0.5,
    "evaluation_crop": 1.0,
    "evaluation_resize": "stretch",
    "evaluation_interpolation": "bilinear_aliased",
}
