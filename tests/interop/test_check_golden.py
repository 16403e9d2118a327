import json
import pathlib

import numpy as np
import pytest

from vmoe_inform.interop import check_golden, vmoe
from vmoe_inform.nn.auxiliary_losses import loss_weights

FILES = sorted((pathlib.Path(__file__).parents[1] / "golden").glob("vmoe_*.npz"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_agrees_with_the_original(path, capsys):
    assert check_golden.main([str(path)]) == 0
    printed = capsys.readouterr().out
    assert "too large" not in printed
    assert printed.count("grad/") == sum(name.startswith("grad/") for name in np.load(path).files)
    assert printed.strip().endswith("agrees")


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return dict(np.load(FILES[0]))


@pytest.mark.parametrize(
    "name",
    [
        "logits",
        "loss",
        "metric/encoderblock_1/gshard_loss",
        "grad/cls",
        "grad/Encoder/encoderblock_0/SelfAttention/key/bias",
    ],
)
def test_a_difference_fails(name, golden, tmp_path, capsys):
    largest = np.max(np.abs(golden["grad/head/kernel"])) if name.endswith("key/bias") else np.max(np.abs(golden[name]))
    changed = golden | {name: (golden[name] + 1e-3 * largest).astype(np.float32)}
    np.savez(tmp_path / "changed.npz", **changed)
    assert check_golden.main([str(tmp_path / "changed.npz")]) == 1
    assert f"{name}   <-- too large" in capsys.readouterr().out


def test_bad_files_are_named(golden, tmp_path, capsys):
    assert check_golden.main([]) == 2
    assert check_golden.main(["missing.npz"]) == 2
    assert "expected an .npz file; received 'missing.npz'" in capsys.readouterr().err
    (tmp_path / "text.npz").write_text("text")
    assert check_golden.main([str(tmp_path / "text.npz")]) == 2

    def saved(**changes: np.ndarray | None) -> str:
        entries = {n: a for n, a in (golden | changes).items() if a is not None}
        np.savez(tmp_path / "bad.npz", **entries)
        return str(tmp_path / "bad.npz")

    settings = json.loads(str(golden["config.json"]))
    assert check_golden.main([saved(**{"config.json": np.asarray(json.dumps(settings | {"colour": 3}))})]) == 2
    assert "colour" in capsys.readouterr().err
    assert check_golden.main([saved(**{"param/cls": None})]) == 2
    assert "missing ['class_token']" in capsys.readouterr().err
    assert check_golden.main([saved(**{"param/cls": np.zeros((1, 1, 3), np.float32)})]) == 2
    assert "class_token: expected shape (1, 1, 32); received (1, 1, 3)" in capsys.readouterr().err
    assert check_golden.main([saved(logits=None)]) == 2


def test_damaged_files_are_named(golden, tmp_path, capsys):
    def code_of(content: bytes) -> int:
        (tmp_path / "damaged.npz").write_bytes(content)
        return check_golden.main([str(tmp_path / "damaged.npz")])

    def assert_named() -> None:
        assert "error: golden file: expected an .npz file of arrays; received" in capsys.readouterr().err

    whole = FILES[0].read_bytes()
    for content in (b"", whole[:3000], whole[:-10]):
        assert code_of(content) == 2
        assert_named()
    np.savez_compressed(tmp_path / "compressed.npz", **golden)
    for content in (
        whole,
        (tmp_path / "compressed.npz").read_bytes(),
    ):  # checksum, inflation
        middle = len(content) // 2
        assert code_of(content[:middle] + bytes(64) + content[middle + 64 :]) == 2
        assert_named()
    np.save(tmp_path / "lone.npy", np.zeros(3))
    assert code_of((tmp_path / "lone.npy").read_bytes()) == 2
    assert_named()


REQUIRED = {
    "num_experts": 4,
    "num_selected_experts": 2,
    "moe_layers": [1],
    "images_per_group": 2,
    "capacity_factor": 1.25,
    "num_layers": 2,
    "hidden_size": 32,
    "mlp_dim": 64,
    "num_heads": 2,
    "patch_size": 8,
    "image_size": 32,
    "num_classes": 10,
}


def test_settings_that_are_left_out_are_those_of_the_original_not_ours():
    model = vmoe.model_config(REQUIRED)
    assert (model.representation_size, model.classifier) == (None, "token")
    assert (model.moe.batch_priority, model.moe.capacity_multiple_of) == (False, 4)
    assert model.moe.capacity_factor == model.moe.capacity_factor_evaluation == 1.25
    assert model.router.options["top_experts"]["renormalize"] is False
    assert model.router.noise_std == 0.0
    assert model.router.losses == ()


@pytest.mark.parametrize("nothing", [None, 0])
def test_capacities_that_are_not_rounded_up_are_multiples_of_one(nothing):
    assert vmoe.model_config(REQUIRED | {"capacity_multiple_of": nothing}).moe.capacity_multiple_of == 1


def test_settings_that_are_given_come_before_those_defaults():
    model = vmoe.model_config(REQUIRED | {"renormalize": True, "representation_size": 48, "gshard_loss_weight": 0.5})
    assert model.router.options["top_experts"]["renormalize"] is True
    assert model.representation_size == 48
    assert loss_weights(model.router) == {"gshard": 0.5}


def test_all_missing_settings_are_named_at_once(golden, tmp_path, capsys):
    settings = json.loads(str(golden["config.json"]))
    for name in ("num_experts", "capacity_factor", "renormalize"):  # the last need not be there
        del settings[name]
    np.savez(tmp_path / "short.npz", **(golden | {"config.json": np.asarray(json.dumps(settings))}))
    assert check_golden.main([str(tmp_path / "short.npz")]) == 2
    assert "config.json: expected also the settings capacity_factor, num_experts; received" in capsys.readouterr().err
    for name in REQUIRED:
        with pytest.raises(ValueError, match=f"expected also the settings {name}; received"):
            vmoe.model_config({key: value for key, value in REQUIRED.items() if key != name})
    with pytest.raises(ValueError, match=r"config\.json: expected an object of settings; received 3"):
        vmoe.model_config(3)


def test_names_of_all_parts_of_the_original():
    assert vmoe.our_name("Encoder/encoderblock_11/SelfAttention/out/kernel") == "block_11/attention/output/kernel"
    assert vmoe.our_name("Encoder/encoderblock_3/Moe/Router/dense/kernel") == "block_3/moe/router/linear/kernel"
    assert vmoe.our_name("MapHead/MultiHeadDotProductAttention/out/bias") == "map_pooling/attention/out/bias"
    assert vmoe.our_name("pre_logits/bias") == "pre_logits/bias"
    with pytest.raises(ValueError, match="received 'Decoder/kernel'"):
        vmoe.our_name("Decoder/kernel")
