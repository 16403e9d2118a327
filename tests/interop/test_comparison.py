"""Logits of an imported model next to those of the program that wrote its checkpoint."""

import numpy as np
import pytest

from tests.interop.checkpoint_files import GIVEN, GOLDEN, TINY, written
from vmoe_inform import checks
from vmoe_inform.interop import (
    check_checkpoint,
    checkpoint_import,
    comparison,
    families,
    formats,
    plan,
    settings,
)


def test_the_golden_checkpoint_agrees_and_a_change_does_not(arrays, tmp_path):
    images, logits, recorded = check_checkpoint.read_expected(TINY.with_name("expected.npz"))
    said: list[str] = []
    assert comparison.error_of(str(TINY), images, logits, recorded, {}, said.append) < comparison.TOLERANCE
    assert said == []
    changed = written(tmp_path, arrays | {"head/bias": arrays["head/bias"] + 0.01})
    error = comparison.error_of(changed, images, logits, {**recorded, "colour": 1}, {}, said.append)
    assert error > comparison.TOLERANCE
    assert len(said) == 1
    assert "colour" in said[0]


def test_without_a_head_what_it_would_see_is_compared(arrays, tmp_path):
    path = written(tmp_path, {name: None if name.startswith("head/") else array for name, array in arrays.items()})
    found = checkpoint_import.prepare(path, given={**GIVEN, "num_classes": 32}, allow_missing=["head"])
    params = comparison.variables_of(found, has_head=False)["params"]
    assert np.array_equal(params["head"]["kernel"], np.eye(32))
    assert not np.any(params["head"]["bias"])
    assert np.array_equal(params["class_token"], arrays["cls"])
    said: list[str] = []
    with pytest.raises(checks.InputError, match=r"--expected: logits: expected shape \[4, 32\]; received \[4, 10\]"):
        comparison.error_of(path, np.zeros((4, 16, 16, 3)), np.zeros((4, 10)), GIVEN, {}, said.append)
    assert said == ["the checkpoint has no head: what it would see is compared with the logits"]


def test_tokens_of_a_group_are_counted_on_the_images_where_positions_are_computed(arrays, tmp_path):
    path = written(tmp_path, {name: None if "posembed" in name else array for name, array in arrays.items()})
    for recorded, given in ((GIVEN, {}), ({}, GIVEN)):
        with pytest.raises(checks.InputError, match=r"--expected: logits: expected shape \[4, 10\]"):
            comparison.error_of(path, np.zeros((4, 16, 16, 3)), np.zeros((4, 9)), recorded, given, print)


@pytest.mark.parametrize(
    ("images", "logits", "message"),
    [
        ((8, 3, 16, 16), (8, 10), r"--expected: images: expected shape \[B, 16, 16, 3\]; received \[8, 3, 16, 16\]"),
        ((6, 16, 16, 3), (6, 10), "--expected: images: expected a multiple of the 4 images of a group; received 6"),
        ((8, 16, 16, 3), (8, 9), r"--expected: logits: expected shape \[8, 10\]; received \[8, 9\]"),
    ],
)
def test_logits_of_other_images_or_classes_are_one_line(images, logits, message):
    with pytest.raises(checks.InputError, match=message):
        comparison.error_of(str(TINY), np.zeros(images), np.zeros(logits), {}, GIVEN, print)


@pytest.mark.parametrize("name", ["augreg_tiny", "big_vision_tiny", "hugging_face"])
def test_dense_checkpoints_need_no_setting(name):
    (path,) = [path for path in (GOLDEN / name).iterdir() if path.name in ("vit.npz", "model.safetensors")]
    dense = checkpoint_import.prepare(str(path))
    assert dense.plan.problems == []
    assert {row.action for row in dense.plan.rows} & {plan.STARTS_ANEW, "MISSING", "UNKNOWN"} == set()
    assert plan.read_params(dense.plan).keys() == plan.flatten(dense.plan.shapes["params"]).keys()
    stored = formats.open_checkpoint(path)
    family = families.recognise(stored)
    said = settings.given_values(family, family.settings(stored), {"pool": "tok"} if name == "big_vision_tiny" else {})
    assert said == ({"classifier": "token"} if name == "big_vision_tiny" else {})


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"images": np.zeros((1, 2, 2, 3))}, "--expected: logits: expected an array of floats with 2 axes"),
        ({"images": np.zeros((2, 2)), "logits": np.zeros((1, 2))}, "--expected: images: expected .* 4 axes"),
        ({"images": np.zeros((1, 2, 2, 3)), "logits": np.zeros((1, 2), int)}, "logits: expected an array of floats"),
        (
            {"images": np.zeros((1, 2, 2, 3)), "logits": np.zeros((1, 2)), "config": "[1]"},
            "config: expected a JSON object",
        ),
        (
            {"images": np.zeros((1, 2, 2, 3)), "logits": np.zeros((1, 2)), "config": "{"},
            "config: expected a JSON object",
        ),
    ],
)
def test_bad_files_of_logits_are_one_line(entries, message, tmp_path):
    np.savez(tmp_path / "expected.npz", **entries)
    with pytest.raises(checks.InputError, match=message):
        check_checkpoint.read_expected(tmp_path / "expected.npz")
    with pytest.raises(FileNotFoundError, match=r"--expected: expected an npz file; received .* which is not there"):
        check_checkpoint.read_expected(tmp_path / "other.npz")
