"""What google-research's two programs for ViT share, vision_transformer and big_vision: names, sizes, positions."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from vmoe_inform import checks
from vmoe_inform.config import VisionModelConfig
from vmoe_inform.interop.families._positions import computed_positions, grid_side, with_class_token
from vmoe_inform.interop.families._shapes import Shapes, number_of_blocks, shape_of
from vmoe_inform.interop.families.base import Move
from vmoe_inform.interop.stored import StoredCheckpoint

POSITIONS = ("Transformer/posembed_input/pos_embedding", "Transformer/pos_embedding", "pos_embedding")

# Files of before Flax's Linen number all modules of a block in one row: attention is 1, its LayerNorms are 0 and 2.
_ATTENTION, _LAST_NORM, _MLP = "MultiHeadDotProductAttention_[01]", "LayerNorm_[12]", "MlpBlock_[03]"
# Their path, a regular expression, and ours. {n} is the number of a block; one is not there if blocks are stacked.
_PATHS = (
    (r"embedding/{leaf}", "patch_embedding/{leaf}"),
    (r"Transformer/encoder_norm/{leaf}", "encoder_norm/{leaf}"),
    (r"Transformer/encoderblock{n}/LayerNorm_0/{leaf}", "block_{n}/attention_norm/{leaf}"),
    (rf"Transformer/encoderblock{{n}}/{_LAST_NORM}/{{leaf}}", "block_{n}/mlp_norm/{leaf}"),
    (rf"Transformer/encoderblock{{n}}/{_ATTENTION}/out/{{leaf}}", "block_{n}/attention/output/{leaf}"),
    (rf"Transformer/encoderblock{{n}}/{_ATTENTION}/{{projection}}/{{leaf}}", "block_{n}/attention/{projection}/{leaf}"),
    (rf"Transformer/encoderblock{{n}}/{_MLP}/Dense_0/{{leaf}}", "block_{n}/mlp/hidden/{leaf}"),
    (rf"Transformer/encoderblock{{n}}/{_MLP}/Dense_1/{{leaf}}", "block_{n}/mlp/output/{leaf}"),
    (r"(?:MAPHead_0/)?probe", "map_pooling/probe"),
    (r"(?:MAPHead_0/)?LayerNorm_0/{leaf}", "map_pooling/norm/{leaf}"),
    (r"(?:MAPHead_0/)?MultiHeadDotProductAttention_0/{projection}/{leaf}", "map_pooling/attention/{projection}/{leaf}"),
    (r"(?:MAPHead_0/)?MlpBlock_0/Dense_0/{leaf}", "map_pooling/mlp/hidden/{leaf}"),
    (r"(?:MAPHead_0/)?MlpBlock_0/Dense_1/{leaf}", "map_pooling/mlp/output/{leaf}"),
    (r"pre_logits/{leaf}", "pre_logits/{leaf}"),
    (r"head/{leaf}", "head/{leaf}"),
)
_GROUPS = {
    "n": r"(?:_(?P<n>\d{1,5}))?",
    "leaf": r"(?P<leaf>kernel|bias|scale)",
    "projection": r"(?P<projection>query|key|value|out)",
}
_RULES = [(re.compile(theirs.format(**_GROUPS)), ours) for theirs, ours in _PATHS]
_STEM = re.compile(r"(conv_root|gn_root|block\d+)/")


def has_first_block(names: Collection[str]) -> bool:
    """Whether there is a first block, with arrays of its own or stacked with the others."""
    return any(f"Transformer/{block}/LayerNorm_0/scale" in names for block in ("encoderblock_0", "encoderblock"))


def sizes(shapes: Shapes, num_layers: int | None = None) -> dict[str, Any]:
    """Fields of ``config.model`` that all arrays but the position embeddings say.

    Args:
      shapes: of the parameters by name.
      num_layers: where names do not say it.

    Raises:
      ValueError: a model that is no ViT of ours, with the reason.
    """
    if any(map(_STEM.match, shapes)):
        raise checks.error("checkpoint", "patches that are embedded by one layer", "a ResNet before them (hybrid)")
    height, width, channels, hidden = shape_of(shapes, "embedding/kernel", 4)
    if height != width or channels != 3:
        raise checks.error("embedding/kernel", "square patches of three channels", list(shapes["embedding/kernel"]))
    block = "Transformer/encoderblock_0/"
    if num_layers is None:
        num_layers = number_of_blocks(shapes, r"Transformer/encoderblock_(\d{1,5})/")
    else:
        block = "Transformer/encoderblock/"
    queries = _shape_ending(shapes, block, "/query/kernel")
    return {
        "num_layers": num_layers,
        "hidden_size": hidden,
        "mlp_size": _shape_ending(shapes, block, "/Dense_0/kernel")[-1],
        "num_heads": queries[-2],
        "patch_size_px": height,
        "classifier": "token" if "cls" in shapes else "map" if {"probe", "MAPHead_0/probe"} & set(shapes) else "gap",
        "representation_size": shape_of(shapes, "pre_logits/kernel", 2)[1] if "pre_logits/kernel" in shapes else None,
        **({"num_classes": shape_of(shapes, "head/kernel", 2)[1]} if "head/kernel" in shapes else {}),
        "moe.layers": "none",
        "activation": "gelu",
        "layer_norm_epsilon": 1e-6,
    }


def _shape_ending(shapes: Shapes, begin: str, end: str) -> tuple[int, ...]:
    """The shape of a kernel of the first block, whose modules have other numbers in older files."""
    found = [shape for name, shape in shapes.items() if name.startswith(begin) and name.endswith(end)]
    if not found or len(found[0]) < 2:
        raise checks.error("checkpoint", f"an array {begin}...{end} of 2 axes or more", found)
    return found[0]


def image_size_px(shapes: Shapes, model: Mapping[str, Any]) -> dict[str, int]:
    """The field of that name, if there are position embeddings."""
    for name in POSITIONS:
        if name in shapes:
            positions = shape_of(shapes, name, 3)[1]
            side, _ = grid_side(name, positions, class_token=model["classifier"] == "token")
            return {"image_size_px": side * model["patch_size_px"]}
    return {}


def moves(parameters: StoredCheckpoint, model: VisionModelConfig) -> Sequence[Move]:
    """Where each of our parameters is from; names that none is made of are left out."""
    found: list[Move] = []
    for name, array in parameters.arrays.items():
        if name == "cls":
            found.append(Move("class_token", (name,)))
        elif name in POSITIONS:
            found.append(_positions(name, array.shape, model))
        else:
            found += _translated(name, model.num_layers)
    if not any(move.ours == "position_embedding" for move in found):
        found.append(computed_positions(model))
    return found


def _translated(name: str, num_layers: int) -> list[Move]:
    """Our parameters of the same values: one, or one a block if the array holds all blocks."""
    for pattern, ours in _RULES:
        match = pattern.fullmatch(name)
        if match is None:
            continue
        parts = match.groupdict()
        if "n" in parts and parts["n"] is None:
            return [
                Move(ours.format(**parts | {"n": n}), (name,), f"block {n} of the stack", lambda array, n=n: array[n])
                for n in range(num_layers)
            ]
        return [Move(ours.format(**parts), (name,))]
    return []


def _positions(name: str, shape: tuple[int, ...], model: VisionModelConfig) -> Move:
    """Position embeddings; a class token that has no position gets zeros."""
    if len(shape) == 3 and model.classifier == "token" and shape[1] == model.num_tokens - 1:
        return Move("position_embedding", (name,), "zeros for the class token", with_class_token)
    return Move("position_embedding", (name,))
