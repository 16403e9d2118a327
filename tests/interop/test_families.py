"""What families say of checkpoints: settings, and where each of our parameters is from."""

import json
import pathlib

import numpy as np
import pytest

from vmoe_inform.interop import families, settings, stored, vmoe

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "vmoe_top2_dropping.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return dict(np.load(GOLDEN))


@pytest.fixture(scope="module")
def arrays(golden) -> dict[str, np.ndarray]:
    return {name.removeprefix("param/"): array for name, array in golden.items() if name.startswith("param/")}


@pytest.fixture(scope="module")
def model(golden):
    return vmoe.model_config(json.loads(str(golden["config.json"])))


@pytest.mark.parametrize("prefix", ["", "params/"])
def test_vmoe_is_known_by_its_names_and_sizes(prefix, arrays, model):
    checkpoint = stored.of_arrays({prefix + name: array for name, array in arrays.items()})
    family = families.recognise(checkpoint)
    assert family is families.FAMILIES["vmoe"]
    found = family.settings(checkpoint)
    said = {
        "num_layers": model.num_layers,
        "hidden_size": model.hidden_size,
        "mlp_size": model.mlp_size,
        "num_heads": model.num_heads,
        "patch_size_px": model.patch_size_px,
        "image_size_px": model.image_size_px,
        "classifier": model.classifier,
        "representation_size": model.representation_size,
        "num_classes": model.num_classes,
        "moe.layers": model.moe_layers,
        "moe.num_experts": model.moe.num_experts,
    }
    assert found.model == said
    assert set(found.asked) == {"moe.num_selected_experts", "moe.group_size_sequences"}


def test_each_of_vmoes_arrays_has_its_place(arrays, model):
    checkpoint = stored.of_arrays(arrays)
    family = families.recognise(checkpoint)
    moves = family.moves(checkpoint, model)
    assert {move.ours: move.theirs for move in moves} == {vmoe.our_name(name): (name,) for name in arrays}


def test_vmoes_own_settings_are_read_by_its_names(arrays, model):
    checkpoint = stored.of_arrays(arrays)
    family = families.recognise(checkpoint)
    found = family.settings(checkpoint)
    known = found.model
    assert family.our_setting("tokens_per_group", 3 * model.num_tokens, known) == ("moe.group_size_sequences", 3)
    assert family.our_setting("num_selected_experts", 2, known) == ("moe.num_selected_experts", 2)
    assert family.our_setting("moe.batch_priority", True, known) == ("moe.batch_priority", True)
    assert family.our_setting("capacity_multiple_of", None, known) == ("moe.capacity_multiple_of", 1)
    unrounded = settings.given_values(family, found, {"capacity_multiple_of": "None"})  # as it is typed
    assert unrounded == {"moe.capacity_multiple_of": 1}
    with pytest.raises(ValueError, match=f"tokens_per_group: expected a multiple of the {model.num_tokens} tokens"):
        family.our_setting("tokens_per_group", model.num_tokens + 1, known)


@pytest.mark.parametrize("root", ["", "params/", "target/", "optimizer/target/params/"])
def test_parameters_lie_inside_a_state_of_training(root, arrays, model):
    state = {"opt_state/0/mu/cls": np.zeros(3), "optimizer/state/step": np.zeros(()), "rngs/dropout": np.zeros(2)}
    unknown = {root + "made/up": np.zeros(2), "other": np.zeros(2)}
    checkpoint = stored.of_arrays({**{root + name: array for name, array in arrays.items()}, **state, **unknown})
    family = families.recognise(checkpoint)
    assert family is families.FAMILIES["vmoe"]
    assert family.ignored(checkpoint) == dict.fromkeys(state, "state of training")
    moved = {move.ours: move.theirs for move in family.moves(checkpoint, model)}
    assert moved == {vmoe.our_name(name): (root + name,) for name in arrays}


def test_positions_may_be_computed(arrays, model):
    checkpoint = stored.of_arrays({name: array for name, array in arrays.items() if "posembed" not in name})
    family = families.FAMILIES["vmoe"]
    found = family.settings(checkpoint)
    assert "image_size_px" in found.asked
    with pytest.raises(ValueError, match=r"tokens_per_group: expected also --model\.image_size_px"):
        family.our_setting("tokens_per_group", 34, found.model)
    assert settings.given_values(family, found, {"tokens_per_group": "34", "image_size": "32"}) == {
        "image_size_px": 32,
        "moe.group_size_sequences": 2,
    }
    (move,) = [move for move in family.moves(checkpoint, model) if move.ours == "position_embedding"]
    assert move.convert().shape == (1, model.num_tokens, model.hidden_size)
    assert not np.any(move.convert()[:, 0])  # the class token's


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embedding/kernel": np.zeros((4, 5, 3, 8))}, "embedding/kernel: expected square patches"),
        ({"embedding/kernel": np.zeros(3)}, "embedding/kernel: expected 4 axes"),
        (
            {"Encoder/posembed_input/pos_embedding": np.zeros((1, 12, 8))},
            "expected positions of a square of patches; received 11",
        ),
        ({"Encoder/encoderblock_7/LayerNorm_0/scale": np.zeros(8)}, r"expected blocks 0 to \d"),
        ({"Encoder/encoderblock_1/Moe/Router/dense/kernel": np.zeros((2, 8, 2))}, "ensembles of E3"),
        ({"Encoder/encoderblock_1/Moe/Router/dense/kernel": None}, "expected an array Encoder"),
        ({"Encoder/encoderblock_1/Moe/Router/mu": np.zeros((8, 2, 2))}, "Router/mu: expected .*; received 'Soft MoE"),
        (
            {"Encoder/encoderblock_0/SelfAttention/query_ln/scale": np.zeros(4)},
            "received 'normalised queries and keys'",
        ),
    ],
)
def test_other_models_are_refused_with_the_reason(changes, message, arrays):
    kept = {name: array for name, array in (arrays | changes).items() if array is not None}
    checkpoint = stored.of_arrays(kept)
    with pytest.raises(ValueError, match=message):
        families.FAMILIES["vmoe"].settings(checkpoint)


def test_unknown_names_list_the_families():
    with pytest.raises(ValueError, match=r"expected arrays named as in one of: .*google-research/vmoe.*received"):
        families.recognise(stored.of_arrays({"layer.0.weight": np.zeros(2)}))
