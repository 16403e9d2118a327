"""timm (PyTorch Image Models): ViT, DeiT and DeiT III as safetensors, with or without the Hub's config.json."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, TypedDict

from vmoe_inform import checks
from vmoe_inform.config import VisionModelConfig
from vmoe_inform.interop.families import _json, _preparation, _roots, _shapes, _torch
from vmoe_inform.interop.families._positions import grid_side, with_class_token
from vmoe_inform.interop.families._shapes import Shapes, number_of_blocks, shape_of
from vmoe_inform.interop.families.base import Family, Move, Question, Settings
from vmoe_inform.interop.stored import StoredCheckpoint

_POOL = "attn_pool"
# What of timm's many variants has no counterpart here: names of arrays -> what they are.
_MISSING: Mapping[str, str] = {
    r"dist_token|head_dist\..*": "a distillation token, whose head is averaged with the other; take the model without",
    r"reg_token": "register tokens",
    r"norm_pre\..*": "a LayerNorm before the blocks (CLIP)",
    r"fc_norm\..*": "a LayerNorm after pooling",
    r"patch_embed\.(?!proj\.).*": "a convolutional stem",
    r"blocks\.\d+\.attn\.(q_norm|k_norm|norm)\..*": "normalised queries, keys or outputs of attention",
    r"blocks\.\d+\.mlp\.(w\d+|fc1_[gx]|norm)\..*": "gated MLPs (SwiGLU)",
    r"blocks\.\d+\.(gamma_\d|attn\.[qkv]_bias)": "the names of BEiT or EVA",
    r".*(rel_pos|relative_position|rope).*": "relative or rotary positions",
    rf"{_POOL}\.(pos_embed|q_norm.*|k_norm.*)": "attention pooling with positions or norms",
}
_HEADS = {"tiny": 3, "small": 6, "medium": 8, "base": 12, "large": 16, "huge": 16, "so400m": 16}
_ARCHITECTURE = re.compile(rf"(?:vit|deit|deit3)_({'|'.join(_HEADS)})_patch\d+_\w+")
_POST_NORM = re.compile(r"\w+_rpn_\w+")  # has the names of the others
_ACTIVATIONS = {"gelu": "gelu_exact", "gelu_tanh": "gelu"}
_POOLS = {"token": "token", "avg": "gap", "map": "map"}
_FUSED = ("query", "key", "value")
_Pool = Literal["token", "avg", "map"]


class _ModelArguments(TypedDict, total=False):
    num_heads: checks.Width
    act_layer: Literal["gelu", "gelu_tanh"]
    global_pool: _Pool


class _Config(TypedDict, total=False):
    """The Hub's config.json."""

    architecture: str
    global_pool: _Pool
    model_args: _ModelArguments
    pretrained_cfg: _preparation.PretrainedConfig
    label_names: Any


class Timm(Family):
    """Blocks with a fused projection to queries, keys and values; LayerScale is taken into the weights."""

    title = "timm (blocks.0.attn.qkv.weight, patch_embed.proj.weight)"
    setting_names: Mapping[str, str] = {
        "embed_dim": "hidden_size",
        "depth": "num_layers",
        "img_size": "image_size_px",
        "patch_size": "patch_size_px",
        "global_pool": "classifier",
        "act_layer": "activation",
    }
    setting_values: Mapping[str, Mapping[str, Any]] = {"global_pool": _POOLS, "act_layer": _ACTIVATIONS}

    roots = _roots.TORCH

    def has_names(self, names: Collection[str]) -> bool:
        return {"blocks.0.attn.qkv.weight", "patch_embed.proj.weight"} <= set(names)

    def read_settings(self, parameters: StoredCheckpoint) -> Settings:
        shapes = parameters.shapes
        _check_supported(shapes)
        description = _description(parameters)
        model = _sizes(shapes)
        _check_pooling(model, description, shapes)
        unsure = {
            "num_heads": _heads(description, model["hidden_size"]),
            "activation": _activation(description, shapes),
        }
        asked = {**_shapes.asked(model), **{field: _QUESTIONS[field] for field in unsure if unsure[field] is None}}
        known = {field: value for field, value in unsure.items() if value is not None}
        assumed = {**known, "layer_norm_epsilon": 1e-6}
        said = description.get("pretrained_cfg", {})
        names = _preparation.class_names(description.get("label_names", ()))
        data = {**_preparation.of_timm(said), **({"class_names": names} if names else {})}
        return Settings(model, asked, assumed, data, _preparation.asked_of_timm(said))

    def make_moves(self, parameters: StoredCheckpoint, model: VisionModelConfig) -> Sequence[Move]:
        found = _torch.patch_embedding("patch_embed.proj")
        if model.classifier == "token":
            found.append(Move("class_token", ("cls_token",)))
        found.append(_positions(parameters.shapes, model))
        for number in range(model.num_layers):
            found += _block(f"blocks.{number}", f"block_{number}", parameters, model)
        found += _torch.norm("norm", "encoder_norm")
        if model.classifier == "map":
            found += _map_pooling(parameters, model)
        return found + (_torch.linear("head", "head") if "head.weight" in parameters.arrays else [])


_QUESTIONS = {
    "num_heads": Question("attention heads, which a fused projection does not show", "6"),
    "activation": Question("'gelu_exact', or 'gelu' for act_layer='gelu_tanh'", "gelu_exact"),
}


def _check_supported(shapes: Shapes) -> None:
    _shapes.refuse(shapes, _MISSING, "a plain ViT")
    if "pos_embed" not in shapes:
        raise checks.error("checkpoint", "an array pos_embed, learned positions", checks.NOTHING)
    hidden, read = (shapes.get(f"blocks.0.mlp.{name}.weight", ()) for name in ("fc1", "fc2"))
    if len(hidden) == len(read) == 2 and hidden[0] == 2 * read[1]:
        raise checks.error("blocks.0.mlp.fc1.weight", "a plain ViT", "gated MLPs (SwiGLU)")


def _description(parameters: StoredCheckpoint) -> _Config:
    """The Hub's config.json, or nothing; older ones have no part of their own for images."""
    given = parameters.description.get("config", {})
    config = _json.read("config.json", {"pretrained_cfg": given, **given}, _Config)
    if _POST_NORM.fullmatch(config.get("architecture", "")):
        raise checks.error("config.json: architecture", "a plain ViT", f"{config['architecture']}, norms after layers")
    return config


def _sizes(shapes: Shapes) -> dict[str, Any]:
    hidden, channels, height, width = shape_of(shapes, "patch_embed.proj.weight", 4)
    if height != width or channels != 3:
        raise checks.error("patch_embed.proj.weight", "square patches of three channels", [channels, height, width])
    token = "cls_token" in shapes
    side, _ = grid_side("pos_embed", shape_of(shapes, "pos_embed", 3)[1], class_token=token)
    return {
        "num_layers": number_of_blocks(shapes, r"blocks\.(\d{1,5})\."),
        "hidden_size": hidden,
        "mlp_size": shape_of(shapes, "blocks.0.mlp.fc1.weight", 2)[0],
        "patch_size_px": height,
        "image_size_px": side * height,
        "classifier": "token" if token else "map" if f"{_POOL}.latent" in shapes else "gap",
        "representation_size": None,
        **({"num_classes": shape_of(shapes, "head.weight", 2)[0]} if "head.weight" in shapes else {}),
        "moe.layers": "none",
    }


def _check_pooling(model: Mapping[str, Any], description: _Config, shapes: Shapes) -> None:
    """Raises ValueError if the config says that the arrays are pooled in another way."""
    pool = description.get("model_args", {}).get("global_pool", description.get("global_pool"))
    if "cls_token" in shapes and f"{_POOL}.latent" in shapes:
        raise checks.error(_POOL, "a class token or attention pooling", "both")
    if pool is not None and _POOLS[pool] != model["classifier"]:
        raise checks.error("config.json: global_pool", f"that of the arrays, {model['classifier']!r}", pool)


def _heads(description: _Config, width: int) -> int | None:
    match = _ARCHITECTURE.fullmatch(description.get("architecture", ""))
    known = _HEADS[match[1]] if match else None
    if known is not None and width % known:  # vit_base_patch32_plus_256 is wider, with more heads
        known = None
    return description.get("model_args", {}).get("num_heads", known)


def _activation(description: _Config, shapes: Shapes) -> str | None:
    said = description.get("model_args", {}).get("act_layer")
    if said is not None:
        return _ACTIVATIONS[said]
    # SigLIP's models have either, as their names do not say.
    is_siglip = f"{_POOL}.latent" in shapes or "siglip" in description.get("architecture", "")
    return None if is_siglip else "gelu_exact"


def _positions(shapes: Shapes, model: VisionModelConfig) -> Move:
    """DeiT III and big_vision give no position to the class token."""
    _, has_class_token = grid_side("pos_embed", shapes["pos_embed"][1], class_token=model.classifier == "token")
    if model.classifier == "token" and not has_class_token:
        return Move("position_embedding", ("pos_embed",), "zeros for the class token", with_class_token)
    return Move("position_embedding", ("pos_embed",))


def _block(name: str, ours: str, stored: StoredCheckpoint, model: VisionModelConfig) -> list[Move]:
    scales = [scale if (scale := f"{name}.ls{index}.gamma") in stored.arrays else None for index in (1, 2)]
    return [
        *_torch.norm(f"{name}.norm1", f"{ours}/attention_norm"),
        *_torch.head_projections(f"{name}.attn.qkv", f"{ours}/attention", stored, model, _FUSED),
        *_torch.output_projection(f"{name}.attn.proj", f"{ours}/attention/output", model, scales[0]),
        *_torch.norm(f"{name}.norm2", f"{ours}/mlp_norm"),
        *_torch.linear(f"{name}.mlp.fc1", f"{ours}/mlp/hidden"),
        *_torch.linear(f"{name}.mlp.fc2", f"{ours}/mlp/output", scales[1]),
    ]


def _map_pooling(stored: StoredCheckpoint, model: VisionModelConfig) -> list[Move]:
    ours = "map_pooling"
    return [
        Move(f"{ours}/probe", (f"{_POOL}.latent",)),
        *_torch.head_projections(f"{_POOL}.q", f"{ours}/attention", stored, model, ("query",)),
        *_torch.head_projections(f"{_POOL}.kv", f"{ours}/attention", stored, model, ("key", "value")),
        *_torch.output_projection(f"{_POOL}.proj", f"{ours}/attention/out", model),
        *_torch.norm(f"{_POOL}.norm", f"{ours}/norm"),
        *_torch.linear(f"{_POOL}.mlp.fc1", f"{ours}/mlp/hidden"),
        *_torch.linear(f"{_POOL}.mlp.fc2", f"{ours}/mlp/output"),
    ]
