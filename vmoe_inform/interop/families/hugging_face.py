"""Hugging Face transformers: ViT as safetensors with its config.json."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, TypedDict

from vmoe_inform import checks
from vmoe_inform.config import VisionModelConfig
from vmoe_inform.interop.families import _json, _preparation, _shapes, _torch
from vmoe_inform.interop.families._positions import grid_side
from vmoe_inform.interop.families._shapes import Shapes, number_of_blocks, shape_of
from vmoe_inform.interop.families.base import Family, Move, Question, Settings
from vmoe_inform.interop.stored import StoredCheckpoint

_PREFIX = re.compile(r"(?:vit|deit)\.")  # of models with a head
_PATCHES = "embeddings.patch_embeddings.projection.weight"
_QUERY = "encoder.layer.0.attention.attention.query.weight"
_POOLER = "pooler.dense"
_MISSING: Mapping[str, str] = {
    r"(embeddings\.distillation_token|distillation_classifier\..*)": (
        "a distillation token, whose head is averaged with the other; take the model without"
    ),
    r"embeddings\.register_tokens": "register tokens",
    r".*\.(layer_scale|lambda_)[12].*": "the names of DINOv2 or BEiT; timm has some of these models",
    r".*relative_position.*": "relative positions",
}
_ACTIVATIONS = {"gelu": "gelu_exact", "gelu_new": "gelu", "gelu_fast": "gelu", "gelu_pytorch_tanh": "gelu"}


class _Config(TypedDict, total=False):
    """What config.json says of the model."""

    model_type: Literal["vit", "deit", "vit_msn"]
    hidden_act: Literal["gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh"]
    layer_norm_eps: checks.PositiveFloat
    num_attention_heads: checks.Width
    id2label: Any


class HuggingFace(Family):
    """``ViTForImageClassification``, and ``ViTModel`` without a head."""

    title = "Hugging Face ViT (vit.encoder.layer.0.attention.attention.query.weight)"
    setting_names: Mapping[str, str] = {
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "intermediate_size": "mlp_size",
        "image_size": "image_size_px",
        "patch_size": "patch_size_px",
        "num_labels": "num_classes",
        "hidden_act": "activation",
        "layer_norm_eps": "layer_norm_epsilon",
    }
    setting_values: Mapping[str, Mapping[str, Any]] = {"hidden_act": _ACTIVATIONS}
    unused: Mapping[str, str] = {rf"(?:{_PREFIX.pattern})?embeddings\.mask_token": "mask of pre-training"}

    def has_names(self, names: Collection[str]) -> bool:
        return {_PATCHES, _QUERY} <= {_short(name) for name in names}

    def read_settings(self, parameters: StoredCheckpoint) -> Settings:
        shapes = {_short(name): shape for name, shape in parameters.shapes.items()}
        _shapes.refuse(shapes, _MISSING, "a plain ViT")
        model = _sizes(shapes)
        asked = _shapes.asked(model)
        config = _json.read("config.json", parameters.description.get("config", {}), _Config)
        assumed = {
            "activation": _ACTIVATIONS[config.get("hidden_act", "gelu")],
            "layer_norm_epsilon": config.get("layer_norm_eps", 1e-12),
        }
        if "num_attention_heads" in config:
            assumed["num_heads"] = config["num_attention_heads"]
        else:
            asked["num_heads"] = Question("attention heads, which config.json would say", "12")
        preprocessor = parameters.description.get("preprocessor", {})
        said = _json.read("preprocessor_config.json", preprocessor, _preparation.Preprocessor)
        data = _preparation.of_hugging_face(said, model["image_size_px"])
        if names := _preparation.class_names(config.get("id2label", {})):
            data["class_names"] = names
        return Settings(model, asked, assumed, data)

    def make_moves(self, parameters: StoredCheckpoint, model: VisionModelConfig) -> Sequence[Move]:
        prefix = next((match[0] for name in parameters.arrays if (match := _PREFIX.match(name))), "")
        found = [
            *_torch.patch_embedding(f"{prefix}embeddings.patch_embeddings.projection"),
            Move("class_token", (f"{prefix}embeddings.cls_token",)),
            Move("position_embedding", (f"{prefix}embeddings.position_embeddings",)),
        ]
        for number in range(model.num_layers):
            found += _block(f"{prefix}encoder.layer.{number}", f"block_{number}", parameters, model)
        found += _torch.norm(f"{prefix}layernorm", "encoder_norm")
        if model.representation_size is not None:
            found += _torch.linear(f"{prefix}{_POOLER}", "pre_logits")
        return found + (_torch.linear("classifier", "head") if "classifier.weight" in parameters.arrays else [])


def _short(name: str) -> str:
    """A name as a model without a head has it."""
    match = _PREFIX.match(name)
    return name if match is None else name[match.end() :]


def _sizes(shapes: Shapes) -> dict[str, Any]:
    hidden, channels, height, width = shape_of(shapes, _PATCHES, 4)
    if height != width or channels != 3:
        raise checks.error(_PATCHES, "square patches of three channels", [channels, height, width])
    shape_of(shapes, "embeddings.cls_token", 3)
    positions = "embeddings.position_embeddings"
    side, _ = grid_side(positions, shape_of(shapes, positions, 3)[1], class_token=True)
    # The pooler is the tanh layer before a head. The classifier of transformers does not see it: then it is left over.
    pooled = f"{_POOLER}.weight" in shapes and "classifier.weight" not in shapes
    return {
        "num_layers": number_of_blocks(shapes, r"encoder\.layer\.(\d{1,5})\."),
        "hidden_size": hidden,
        "mlp_size": shape_of(shapes, "encoder.layer.0.intermediate.dense.weight", 2)[0],
        "patch_size_px": height,
        "image_size_px": side * height,
        "classifier": "token",
        "representation_size": shape_of(shapes, f"{_POOLER}.weight", 2)[0] if pooled else None,
        **({"num_classes": shape_of(shapes, "classifier.weight", 2)[0]} if "classifier.weight" in shapes else {}),
        "moe.layers": "none",
    }


def _block(name: str, ours: str, stored: StoredCheckpoint, model: VisionModelConfig) -> list[Move]:
    attention = f"{ours}/attention"
    return [
        *_torch.norm(f"{name}.layernorm_before", f"{ours}/attention_norm"),
        *(
            move
            for part in ("query", "key", "value")
            for move in _torch.head_projections(f"{name}.attention.attention.{part}", attention, stored, model, (part,))
        ),
        *_torch.output_projection(f"{name}.attention.output.dense", f"{attention}/output", model),
        *_torch.norm(f"{name}.layernorm_after", f"{ours}/mlp_norm"),
        *_torch.linear(f"{name}.intermediate.dense", f"{ours}/mlp/hidden"),
        *_torch.linear(f"{name}.output.dense", f"{ours}/mlp/output"),
    ]
