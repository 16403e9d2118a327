import json
import pathlib

import numpy as np
import pytest

from vmoe_inform.interop import check_golden, vmoe

FILES = sorted((pathlib.Path(__file__).parents[1] / "golden").glob("*.npz"))


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


def test_names_of_all_parts_of_the_original():
    assert vmoe.our_name("Encoder/encoderblock_11/SelfAttention/out/kernel") == "block_11/attention/output/kernel"
    assert vmoe.our_name("Encoder/encoderblock_3/Moe/Router/dense/kernel") == "block_3/moe/router/linear/kernel"
    assert vmoe.our_name("MapHead/MultiHeadDotProductAttention/out/bias") == "map_pooling/attention/out/bias"
    assert vmoe.our_name("pre_logits/bias") == "pre_logits/bias"
    with pytest.raises(ValueError, match="received 'Decoder/kernel'"):
        vmoe.our_name("Decoder/kernel")
