"""Settings and parameters of ViTs in their variants, which no other test computes with."""

import dataclasses

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from tests.interop import in_memory
from tests.interop.test_golden_checkpoints import checkpoint
from vmoe_inform.interop import families, formats
from vmoe_inform.interop.families import _positions
from vmoe_inform.interop.stored import of_arrays

OLDER = {
    "MultiHeadDotProductAttention_0": "MultiHeadDotProductAttention_1",
    "LayerNorm_1": "LayerNorm_2",
    "MlpBlock_0": "MlpBlock_3",
}
IMAGENET = {"pixel_mean": (0.485, 0.456, 0.406), "pixel_std": (0.229, 0.224, 0.225)}


def arrays_of(name):
    return {key: array.read() for key, array in checkpoint(name).arrays.items()}


def changed(name, changes, **description):
    """A checkpoint with other arrays; None takes one away."""
    kept = {key: array for key, array in (arrays_of(name) | changes).items() if array is not None}
    return of_arrays(kept, **{**checkpoint(name).description, **description})


def settings_of(stored):
    return families.recognise(stored).settings(stored)


def older_name(name):
    for new, old in OLDER.items():
        name = name.replace(f"/{new}/", f"/{old}/")
    return name


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for path in ours:
        np.testing.assert_array_equal(np.asarray(ours[path], np.float32), np.asarray(theirs[path], np.float32))


def test_settings_are_read_off_names_and_shapes():
    found = settings_of(checkpoint("augreg_tiny"))
    assert found.model == {
        "num_layers": 2,
        "hidden_size": 32,
        "mlp_size": 48,
        "num_heads": 4,
        "patch_size_px": 4,
        "image_size_px": 16,
        "classifier": "token",
        "representation_size": None,
        "num_classes": 10,
        "moe.layers": "none",
        "activation": "gelu",
        "layer_norm_epsilon": 1e-6,
    }
    assert (found.asked, found.assumed) == ({}, {})


@pytest.mark.parametrize(
    ("name", "data"),
    [
        (
            "augreg_tiny",
            {
                "pixel_mean": 0.5,
                "pixel_std": 0.5,
                "evaluation_crop": 1.0,
                "evaluation_resize": "stretch",
                "evaluation_interpolation": "bilinear_aliased",
            },
        ),
        (
            "big_vision_tiny",
            {
                "pixel_mean": 0.5,
                "pixel_std": 0.5,
                "evaluation_crop": 0.875,
                "evaluation_resize": "shorter_side_rounded",
                "evaluation_interpolation": "area",
            },
        ),
        (
            "timm_token",
            {
                "pixel_mean": 0.5,
                "pixel_std": 0.5,
                "evaluation_crop": 0.9,
                "evaluation_resize": "shorter_side",
                "evaluation_interpolation": "bicubic",
            },
        ),
        (
            "timm_deit3",
            {
                **IMAGENET,
                "evaluation_crop": 1.0,
                "evaluation_resize": "shorter_side",
                "evaluation_interpolation": "bicubic",
            },
        ),
        (
            "hugging_face",
            {
                "pixel_mean": 0.5,
                "pixel_std": 0.5,
                "evaluation_crop": 1.0,
                "evaluation_resize": "stretch",
                "evaluation_interpolation": "bilinear",
            },
        ),
    ],
)
def test_each_family_says_how_images_are_prepared(name, data):
    assert settings_of(checkpoint(name)).data == data


def test_names_of_before_linen_and_bfloat16(tmp_path):
    """As the files of AugReg have them: modules numbered in one row, and two bytes without a meaning."""
    stored = checkpoint("augreg_tiny")
    model = in_memory.model_config(stored)
    halves = {older_name(key): array.astype(ml_dtypes.bfloat16) for key, array in arrays_of("augreg_tiny").items()}
    np.savez(tmp_path / "vit.npz", **{key: array.view("V2") for key, array in halves.items()})
    older = formats.open_checkpoint(tmp_path / "vit.npz")
    assert set(older.arrays) != set(stored.arrays)
    assert in_memory.model_config(older) == model
    expected = {
        path: np.asarray(jnp.asarray(array, jnp.bfloat16))
        for path, array in in_memory.parameters(stored, model).items()
    }
    assert_same(in_memory.parameters(older, model), expected)


def test_older_files_of_big_vision():
    """Attention pooling without a module of its own, and positions inside the encoder."""
    stored = checkpoint("big_vision_map")
    model = in_memory.model_config(stored)
    renamed = {
        key.replace("MAPHead_0/", "").replace("params/pos_", "params/Transformer/pos_"): array
        for key, array in arrays_of("big_vision_map").items()
    }
    older = of_arrays(renamed)
    assert in_memory.model_config(older) == model
    assert_same(in_memory.parameters(older, model), in_memory.parameters(stored, model))


VMOE = {
    "params/": "",
    "MAPHead_0/MultiHeadDotProductAttention_0": "MapHead/MultiHeadDotProductAttention",
    "MAPHead_0/LayerNorm_0": "MapHead/LayerNorm",
    "MAPHead_0": "MapHead",
    "MultiHeadDotProductAttention_0": "SelfAttention",
    "MlpBlock_0": "Mlp",
    "Transformer/": "Encoder/",
    "pos_embedding": "Encoder/posembed_input/pos_embedding",
}


def vmoe_name(name):
    for theirs, of_vmoe in VMOE.items():
        name = name.replace(theirs, of_vmoe)
    return name


@pytest.mark.parametrize("name", ["big_vision_tiny", "big_vision_map", "big_vision_token", "big_vision_computed"])
def test_dense_models_of_vmoe_have_the_arrays_of_big_vision(name):
    """Pools and computed positions. The class token has a position in V-MoE: zeros are the same as none."""
    stored = checkpoint(name)
    arrays = {vmoe_name(key): array for key, array in arrays_of(name).items() if not key.startswith("opt/")}
    if "cls" in arrays:
        positions = "Encoder/posembed_input/pos_embedding"
        arrays[positions] = _positions.with_class_token(arrays[positions])
    given = {"image_size_px": 16} if name == "big_vision_computed" else {}
    renamed, model = of_arrays(arrays), in_memory.model_config(stored, given)
    assert families.recognise(renamed) is families.FAMILIES["vmoe"]
    assert in_memory.model_config(renamed, given) == model
    assert_same(in_memory.parameters(renamed, model), in_memory.parameters(stored, model))


@pytest.mark.parametrize("root", ["module.", "backbone."])
def test_parameters_of_pytorch_lie_inside_another_module(root):
    stored = checkpoint("timm_token")
    inside = of_arrays({root + key: array for key, array in arrays_of("timm_token").items()}, **stored.description)
    model = in_memory.model_config(inside)
    assert model == in_memory.model_config(stored)
    assert_same(in_memory.parameters(inside, model), in_memory.parameters(stored, model))


def test_of_two_towers_that_of_images_is_read():
    """As SigLIP has them in big_vision: no head, and arrays of the loss."""
    arrays = {key.replace("params/", "params/img/"): array for key, array in arrays_of("big_vision_map").items()}
    texts = {"params/txt/Embed_0/embedding": np.zeros((3, 8)), "params/t": np.zeros(1), "params/b": np.zeros(1)}
    kept = {key: array for key, array in arrays.items() if "/head/" not in key and not key.startswith("opt/")}
    stored = of_arrays({**kept, **texts})
    family = families.recognise(stored)
    assert list(family.settings(stored).asked) == ["num_classes"]
    assert family.ignored(stored) == dict.fromkeys(texts, "of the tower of texts")
    assert {
        name
        for move in family.moves(stored, in_memory.model_config(stored, {"num_classes": 7}))
        for name in move.theirs
    } == (kept.keys())


def test_a_position_of_the_class_token_is_taken_where_there_is_one():
    arrays = arrays_of("big_vision_token")
    own = np.concatenate([np.full((1, 1, 24), 0.25, np.float32), arrays["params/pos_embedding"]], axis=1)
    stored = of_arrays({**arrays, "params/pos_embedding": own})
    model = in_memory.model_config(stored)
    np.testing.assert_array_equal(in_memory.parameters(stored, model)["position_embedding"], own)


def test_a_name_that_is_of_no_parameter_is_left_over():
    stored = changed("augreg_tiny", {"Transformer/encoderblock_0/Gate/kernel": np.zeros(3)})
    moves = families.recognise(stored).moves(stored, in_memory.model_config(stored))
    assert "Transformer/encoderblock_0/Gate/kernel" not in {name for move in moves for name in move.theirs}


def test_computed_positions_have_a_form_in_closed_terms():
    found = _positions.sine_cosine_positions(3, 8)
    assert (found.shape, found.dtype) == ((1, 9, 8), np.float32)
    row, column = 2, 1  # frequencies 1 and 1e-4
    expected = [np.sin(1), np.sin(1e-4), np.cos(1), np.cos(1e-4), np.sin(2), np.sin(2e-4), np.cos(2), np.cos(2e-4)]
    np.testing.assert_allclose(found[0, 3 * row + column], expected, rtol=1e-6)
    with pytest.raises(ValueError, match=r"model.hidden_size: expected a multiple of 4 .*; received 10"):
        _positions.sine_cosine_positions(3, 10)


@pytest.mark.parametrize(
    ("name", "given", "ours"),
    [
        ("augreg_tiny", ("mlp_dim", 48), ("mlp_size", 48)),
        ("big_vision_token", ("pool_type", "tok"), ("classifier", "token")),
        ("big_vision_token", ("rep_size", 20), ("representation_size", 20)),
        ("big_vision_computed", ("rep_size", True), ("representation_size", 24)),
        ("big_vision_tiny", ("rep_size", False), ("representation_size", None)),
        ("timm_gap", ("global_pool", "avg"), ("classifier", "gap")),
        ("timm_map", ("act_layer", "gelu_tanh"), ("activation", "gelu")),
        ("hugging_face", ("hidden_act", "gelu"), ("activation", "gelu_exact")),
        ("hugging_face", ("layer_norm_eps", 1e-12), ("layer_norm_epsilon", 1e-12)),
    ],
)
def test_settings_have_the_programs_names_and_words(name, given, ours):
    stored = checkpoint(name)
    family = families.recognise(stored)
    assert family.our_setting(*given, family.settings(stored).model) == ours


@pytest.mark.parametrize(
    ("name", "config", "names"),
    [
        ("timm_token", {"label_names": ["b", "a"]}, ("b", "a")),
        ("timm_token", {"label_names": {"1": "a", "0": "b"}}, ("b", "a")),
        ("hugging_face", {"id2label": {"0": "b", "1": "a"}}, ("b", "a")),
        ("hugging_face", {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, None),
        ("hugging_face", {}, None),
    ],
)
def test_names_of_classes_are_in_the_order_of_the_logits(name, config, names):
    assert settings_of(changed(name, {}, config=config)).data.get("class_names") == names


def test_the_scale_of_pixels_is_asked_for_without_a_config():
    alone = dataclasses.replace(checkpoint("timm_token"), description={})
    assert list(settings_of(alone).asked_data) == ["pixel_mean", "pixel_std"]
    assert settings_of(checkpoint("timm_token")).asked_data == {}
    assert "pixel_mean" not in settings_of(alone).data


def test_without_a_head_the_classes_are_asked_for():
    stored = changed("timm_token", {"head.weight": None, "head.bias": None})
    assert list(settings_of(stored).asked) == ["num_classes"]
    assert "num_classes" not in settings_of(stored).model


def test_of_a_file_alone_the_heads_are_asked_for():
    stored = dataclasses.replace(checkpoint("timm_token"), description={})
    assert list(settings_of(stored).asked) == ["num_heads"]
    assert settings_of(stored).assumed == {"activation": "gelu_exact", "layer_norm_epsilon": 1e-6}


def test_arguments_of_the_model_decide():
    config = {"architecture": "vit_base_patch16_224", "model_args": {"num_heads": 6, "act_layer": "gelu_tanh"}}
    found = settings_of(changed("timm_token", {}, config=config)).assumed
    assert (found["num_heads"], found["activation"]) == (6, "gelu")


def test_the_pooler_of_a_model_without_classifier_is_the_layer_before_the_head():
    arrays = {
        key.removeprefix("vit."): array for key, array in arrays_of("hugging_face").items() if "classifier" not in key
    }
    pooler = {"pooler.dense.weight": np.arange(24 * 24.0).reshape(24, 24), "pooler.dense.bias": np.arange(24.0)}
    stored = of_arrays(arrays | pooler, **checkpoint("hugging_face").description)
    model = in_memory.model_config(stored, {"num_classes": 5})
    assert (model.representation_size, model.num_classes) == (24, 5)
    found = in_memory.parameters(stored, model)
    np.testing.assert_array_equal(found["pre_logits/kernel"], pooler["pooler.dense.weight"].T)


def test_the_pooler_of_a_model_with_classifier_is_left_over():
    """transformers' classifier sees the class token itself."""
    pooler = {"vit.pooler.dense.weight": np.ones((24, 24)), "vit.pooler.dense.bias": np.ones(24)}
    stored = changed("hugging_face", pooler)
    model = in_memory.model_config(stored)
    assert model == in_memory.model_config(checkpoint("hugging_face"))
    moves = families.recognise(stored).moves(stored, model)
    assert not pooler.keys() & {name for move in moves for name in move.theirs}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("augreg_tiny", {"conv_root/kernel": np.zeros(1)}, r"expected patches .*; received 'a ResNet before them"),
        ("augreg_tiny", {"embedding/kernel": np.zeros((4, 2, 3, 32))}, "embedding/kernel: expected square patches"),
        ("augreg_tiny", {"Transformer/encoderblock_7/LayerNorm_0/scale": np.zeros(8)}, "expected blocks 0 to 2"),
        (
            "augreg_tiny",
            {"Transformer/posembed_input/pos_embedding": np.zeros((1, 12, 32))},
            "pos_embedding: expected positions of a square of patches and a class token; received 12",
        ),
        ("timm_token", {"dist_token": np.zeros(1)}, "dist_token: expected .*; received 'a distillation token"),
        ("timm_token", {"reg_token": np.zeros(1)}, "received 'register tokens'"),
        ("timm_token", {"norm_pre.weight": np.zeros(1)}, "received 'a LayerNorm before the blocks"),
        ("timm_token", {"fc_norm.bias": np.zeros(1)}, "received 'a LayerNorm after pooling'"),
        ("timm_token", {"patch_embed.backbone.stem.weight": np.zeros(1)}, "received 'a convolutional stem'"),
        ("timm_token", {"blocks.1.attn.q_norm.weight": np.zeros(1)}, "received 'normalised queries"),
        ("timm_token", {"blocks.1.mlp.w12.weight": np.zeros(1)}, "received 'gated MLPs"),
        ("timm_token", {"blocks.0.mlp.fc2.weight": np.zeros((24, 24))}, "fc1.weight: .*received 'gated MLPs"),
        ("timm_token", {"blocks.0.attn.q_bias": np.zeros(24)}, "received 'the names of BEiT or EVA'"),
        ("timm_token", {"blocks.0.attn.relative_position_index": np.zeros(1)}, "received 'relative or rotary"),
        ("timm_token", {"pos_embed": None}, "expected an array pos_embed, learned positions; received nothing"),
        ("timm_token", {"attn_pool.latent": np.zeros(1)}, "attn_pool: expected a class token or attention pooling"),
        ("timm_token", {"blocks.0.mlp.fc1.weight": None}, "expected an array blocks.0.mlp.fc1.weight"),
        ("hugging_face", {"vit.embeddings.distillation_token": np.zeros(1)}, "received 'a distillation token"),
        ("hugging_face", {"vit.embeddings.register_tokens": np.zeros(1)}, "received 'register tokens'"),
        ("hugging_face", {"vit.encoder.layer.0.layer_scale1.lambda1": np.zeros(1)}, "the names of DINOv2"),
        ("hugging_face", {"vit.embeddings.cls_token": None}, "expected an array embeddings.cls_token"),
    ],
)
def test_other_models_are_refused_with_the_reason(name, changes, message):
    with pytest.raises(ValueError, match=message):
        settings_of(changed(name, changes))


@pytest.mark.parametrize(
    ("name", "description", "message"),
    [
        ("timm_token", {"config": {"model_args": 3}}, "model_args: expected an object; received 3"),
        ("timm_token", {"config": {"model_args": {"num_heads": "3"}}}, "num_heads: expected .*; received '3'"),
        ("timm_token", {"config": {"model_args": {"act_layer": "quick_gelu"}}}, "act_layer: expected one of 'gelu'"),
        ("timm_token", {"config": {"global_pool": "avg"}}, "global_pool: expected that of the arrays, 'token'"),
        ("timm_token", {"config": {"pretrained_cfg": {"crop_mode": "border"}}}, "crop_mode: expected one of 'center'"),
        (
            "timm_token",
            {"config": {"pretrained_cfg": {"crop_pct": 0}}},
            "config.json: pretrained_cfg: crop_pct: expected float > 0 and <= 1; received 0",
        ),
        ("timm_token", {"config": {"pretrained_cfg": {"mean": [0.5, 0.5]}}}, "mean: expected float or"),
        ("timm_token", {"config": {"pretrained_cfg": {"interpolation": "random"}}}, "expected one of 'bilinear'"),
        ("hugging_face", {"config": {"model_type": "vit_mae"}}, "model_type: expected one of 'vit', 'deit'"),
        ("hugging_face", {"config": {"hidden_act": "quick_gelu"}}, "hidden_act: expected one of 'gelu'"),
        ("hugging_face", {"config": {"id2label": {"0": "a", "2": "b"}}}, "names of the classes: expected a list"),
        ("timm_token", {"config": {"label_names": "ab"}}, "names of the classes: expected a list"),
        ("hugging_face", {"preprocessor": {"size": 224}}, "size, crop_size: expected images of 16 px"),
        ("hugging_face", {"preprocessor": {"resample": 1}}, "resample: expected one of 2, 3, 'bilinear'"),
        ("hugging_face", {"preprocessor": {"do_rescale": False}}, "do_rescale: expected true"),
        ("hugging_face", {"preprocessor": {"do_resize": False}}, "do_resize: expected true"),
        ("hugging_face", {"preprocessor": {"size": {"shortest_edge": 16}}}, "do_center_crop: expected true with"),
        (
            "hugging_face",
            {"preprocessor": {"size": 19, "do_center_crop": True, "crop_size": 16}},
            "size: expected 16 plus an even number; received 19",
        ),
        ("hugging_face", {"config": {"num_attention_heads": "three"}}, "num_attention_heads: expected .*'three'"),
        ("hugging_face", {"config": {"layer_norm_eps": [1]}}, r"config.json: layer_norm_eps: expected float .*\[1\]"),
        ("hugging_face", {"preprocessor": {"image_mean": "grey"}}, "image_mean: expected float or .*'grey'"),
        ("timm_token", {"config": {"architecture": 5}}, "config.json: architecture: expected string; received 5"),
        ("timm_token", {"config": {"architecture": "vit_base_patch16_rpn_224"}}, "norms after layers"),
        ("hugging_face", {"preprocessor": {"rescale_factor": 1 / 127.5}}, "rescale_factor: expected 1/255"),
        # Values that are no text
        ("timm_token", {"config": {"model_args": {"act_layer": ["gelu"]}}}, "act_layer: expected one of 'gelu'"),
        ("timm_token", {"config": {"global_pool": ["token"]}}, "global_pool: expected one of 'token'"),
        ("timm_token", {"config": {"pretrained_cfg": {"crop_mode": {}}}}, "crop_mode: expected one of 'center'"),
        ("hugging_face", {"config": {"hidden_act": ["gelu"]}}, "hidden_act: expected one of 'gelu'"),
        ("hugging_face", {"preprocessor": {"size": [16, 16]}}, "size, crop_size: expected images of 16 px"),
        ("hugging_face", {"preprocessor": {"size": {"height": [16], "width": [16]}}}, "size, crop_size: expected"),
        ("hugging_face", {"preprocessor": {"do_center_crop": True, "crop_size": [16]}}, "size, crop_size: expected"),
        ("hugging_face", {"preprocessor": {"resample": [2]}}, "resample: expected one of 2, 3"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(name, description, message):
    with pytest.raises(ValueError, match=message):
        settings_of(changed(name, {}, **description))


@pytest.mark.parametrize(
    ("preprocessor", "crop", "resize"),
    [
        ({"size": {"height": 16, "width": 16}}, 1.0, "stretch"),
        (
            {"size": {"shortest_edge": 20}, "do_center_crop": True, "crop_size": {"height": 16, "width": 16}},
            0.8,
            "shorter_side_floor",
        ),
        ({"size": 20, "do_center_crop": True, "crop_size": 16}, 0.8, "stretch"),
        ({"size": {"height": 16, "width": 16}, "do_center_crop": False, "crop_size": 9}, 1.0, "stretch"),
    ],
)
def test_sizes_of_hugging_face(preprocessor, crop, resize):
    found = settings_of(changed("hugging_face", {}, preprocessor=preprocessor)).data
    assert (found["evaluation_crop"], found["evaluation_resize"]) == (crop, resize)


def test_pixels_that_are_not_normalised_stay_in_their_range():
    found = settings_of(changed("hugging_face", {}, preprocessor={"do_normalize": False, "image_mean": [0.1] * 3})).data
    assert (found["pixel_mean"], found["pixel_std"]) == (0.0, 1.0)
