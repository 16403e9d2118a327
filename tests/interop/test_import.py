"""A checkpoint of another program becomes a run: settings, arrays and the folder."""

import functools
import json
import pathlib
import shutil
import types

import flax.traverse_util
import jax
import numpy as np
import pytest

from tests.interop import checkpoint_files as files
from tests.interop.checkpoint_files import GIVEN, GOLDEN, TINY, written
from vmoe_inform import checks, tasks
from vmoe_inform import config as config_lib
from vmoe_inform.config import files as config_files
from vmoe_inform.data.images import label_sets
from vmoe_inform.data.skipped import SkippedRecords
from vmoe_inform.interop import (
    check_checkpoint,
    checkpoint_import,
    comparison,
    exported,
    families,
    formats,
    plan,
    precedence,
    run_config,
    settings,
    table,
    write_run,
)
from vmoe_inform.runs import run as runs
from vmoe_inform.runs.checkpoints import Checkpoints

# ------------------------------------------------------------------------------------------------------------- settings


def test_settings_say_where_they_are_from(found):
    values = {field: (one.value, one.origin) for field, one in found.values.items()}
    assert values["moe.layers"] == ((1, 3), "arrays")
    assert values["num_heads"] == (4, "arrays")
    assert values["moe.num_selected_experts"] == (2, "given")
    assert values["moe.group_size_sequences"] == (4, "given")
    assert values["moe.capacity_factor_evaluation"] == (4.0, "assumed")
    assert found.model.moe.capacity_factor_evaluation == 4.0
    assert found.model.dtype == "float32"
    with pytest.raises(checks.InputError, match=r"model\.num_heads"):
        checkpoint_import.prepare(str(TINY), given={**GIVEN, "num_heads": "3"})


def resolved(given: dict[str, str]) -> dict[str, precedence.Value]:
    """The settings of the tiny V-MoE with what a user says."""
    stored = formats.open_checkpoint(TINY)
    family = families.recognise(stored)
    said = family.settings(stored)
    fields = settings.given_values(family, said, given)
    return precedence.of_model(said, given=fields, set_fields={}, published={}, config={})


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"moe.num_selected_experts": "1"}, "moe.num_selected_experts", 1),
        ({"group_size_sequences": "2"}, "moe.group_size_sequences", 2),
        ({"group_size": "34"}, "moe.group_size_sequences", 2),
        ({"batch_priority": "True"}, "moe.batch_priority", True),
        ({"capacity_factor": "1.5"}, "moe.capacity_factor_evaluation", 1.5),
        ({"renormalize": "true"}, "router.options.top_experts.renormalize", True),
        ({"router.inform": "similarity"}, "router.inform", "similarity"),
    ],
)
def test_a_setting_may_have_any_of_its_names(given, field, value):
    others = {} if "moe" in field and "num_selected" in field else {"num_selected_experts": "2"}
    others |= {} if field.endswith("sequences") else {"tokens_per_group": "68"}
    found = resolved({**others, **given})[field]
    assert (found.value, found.origin) == (value, "given")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {},
            r"--model.moe.num_selected_experts=VALUE, K.*--model.moe.group_size_sequences=VALUE.*received none of them",
        ),
        ({"num_selected_experts": "2"}, "what the checkpoint does not say: --model.moe.group_size_sequences=VALUE"),
        ({}, "Example: --model.moe.num_selected_experts=2 --model.moe.group_size_sequences=8$"),
        ({**GIVEN, "colour": "red"}, "--model.colour: expected a field of config.model"),
        ({**GIVEN, "num_haeds": "4"}, "did you mean 'num_heads'"),
        ({**GIVEN, "weight": "1"}, "--model.weight: expected one of router.options"),
        ({**GIVEN, "batch_priority": "maybe"}, "--model.batch_priority: expected true or false"),
        ({**GIVEN, "group_size_sequences": "2"}, "moe.group_size_sequences = 2, as another flag says; received 4"),
        ({**GIVEN, "tokens_per_group": "16"}, "a multiple of the 17 tokens of an image; received 16"),
    ],
)
def test_bad_settings_are_one_line(given, message):
    with pytest.raises(checks.InputError, match=message) as caught:
        resolved(given)
    assert "\n" not in str(caught.value)


def test_a_config_says_what_arrays_do_not(found):
    config = config_files.load("digits:router=similarity_vmoe")
    config.model.moe.num_selected_experts = 1
    config.model.moe.group_size_sequences = 2
    config.model.moe.batch_priority = True
    mixed = checkpoint_import.prepare(
        str(TINY),
        given={"num_selected_experts": 2},
        config=config,
        set_fields={"model.moe.num_selected_experts": 3, "model.moe.batch_priority": True, "train.steps": 2},
    )
    assert mixed.values["moe.num_selected_experts"] == precedence.Value(2, "given")
    assert mixed.values["moe.batch_priority"].origin == "given"
    assert mixed.values["moe.group_size_sequences"].origin == "--config"
    assert mixed.model.moe.group_size_sequences == 2
    assert mixed.model.moe.batch_priority
    assert mixed.model.router.inform == "similarity"  # re-routed from the start
    assert mixed.model.hidden_size == found.model.hidden_size
    assert run_config.make(mixed, config)[0].train == config_lib.parse(config).train
    with pytest.raises(checks.InputError, match="--config: expected a config of images"):
        checkpoint_import.prepare(str(TINY), config=config_files.load("wordnet"))


# --------------------------------------------------------------------------------------------------------------- arrays


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cls": np.zeros((1, 1, 8))}, r"cls: shape \[1, 1, 8\] in place of \[1, 1, 32\]"),
        ({"head/bias": None}, r"head/bias \[10\]: missing"),
        ({"Encoder/encoderblock_1/Moe/Router/dense/bias": np.zeros(4)}, r"received .*Router/dense/bias \[4\]: unknown"),
        ({"made/up": np.zeros((2, 3))}, r"made/up \[2, 3\]: unknown"),
        ({"head/bias": np.zeros(10, np.int64)}, "head/bias: of type int64, which are no parameters"),
    ],
)
def test_arrays_without_a_counterpart_are_listed(changes, message, arrays, tmp_path):
    wrong = checkpoint_import.prepare(written(tmp_path, arrays | changes), given=GIVEN)
    with pytest.raises(checks.InputError, match=message) as caught:
        wrong.plan.check()
    assert "--allow_missing=NAME" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_long_lists_are_cut(arrays, tmp_path):
    wrong = checkpoint_import.prepare(
        written(tmp_path, arrays | {f"made/up{n}": np.zeros(1) for n in range(30)}), given=GIVEN
    )
    with pytest.raises(checks.InputError, match=r"made/up17.*; and 20 more"):
        wrong.plan.check()
    assert [row.action for row in wrong.plan.rows if row.theirs.startswith("made/")] == ["UNKNOWN"] * 30


@pytest.mark.parametrize("other", ["head/bias", "head", "pre_logits"])
def test_what_may_be_missing_starts_anew_or_is_left_out(other, arrays, tmp_path):
    kept = {name: None if name.startswith(other) else array for name, array in arrays.items()}
    given = GIVEN | ({} if other != "head" else {"num_classes": "10"})
    if other == "pre_logits":  # the model has none, so that the arrays of theirs are left over
        given |= {"representation_size": "None"}
        kept = dict(arrays)
    with pytest.raises(checks.InputError, match=other):
        checkpoint_import.prepare(written(tmp_path, kept), given=given).plan.check()
    allowed = checkpoint_import.prepare(written(tmp_path, kept), given=given, allow_missing=[other])
    allowed.plan.check()
    rows = [row.action for row in allowed.plan.rows if row.ours.startswith(other) or row.theirs.startswith(other)]
    assert set(rows) <= {plan.STARTS_ANEW, plan.LEFT_OUT, "as it is"}
    assert (plan.LEFT_OUT if other == "pre_logits" else plan.STARTS_ANEW) in rows


def test_a_head_for_other_classes_may_start_anew():
    other = checkpoint_import.prepare(str(TINY), given={**GIVEN, "num_classes": "7"}, allow_missing=["head"])
    other.plan.check()
    actions = {(row.theirs, row.ours): row.action for row in other.plan.rows if "head" in row.theirs + row.ours}
    assert actions == {
        ("", "head/bias"): "starts anew",
        ("", "head/kernel"): "starts anew",
        ("head/bias", ""): "left out",
        ("head/kernel", ""): "left out",
    }
    params = plan.complete(other.plan, plan.read_params(other.plan))["params"]
    assert params["head"]["kernel"].shape == (32, 7)
    assert not np.any(params["head"]["kernel"])
    assert np.any(params["pre_logits"]["kernel"])


@pytest.mark.parametrize("name", ["big_vision_tiny/vit.npz", "hugging_face/model.safetensors"])
def test_what_starts_anew_leaves_out_theirs_by_whatever_name(name):
    """Here ``params/head/kernel`` and ``classifier.weight``."""
    found = checkpoint_import.prepare(str(GOLDEN / name), given={"num_classes": "3"}, allow_missing=["head"])
    assert found.plan.problems == []
    assert [row.action for row in found.plan.rows].count("left out") == 2


def test_values_that_are_not_finite_are_refused(arrays, tmp_path):
    wrong = checkpoint_import.prepare(written(tmp_path, arrays | {"cls": np.full((1, 1, 32), np.nan)}), given=GIVEN)
    with pytest.raises(checks.InputError, match="cls: expected finite values; received 'NaN or infinity'"):
        plan.read_params(wrong.plan)


def test_a_state_of_training_is_left_out(arrays, tmp_path):
    """Older checkpoints hold all of it, numbered in the order of the file."""
    state = {f"params/{name}": array for name, array in arrays.items()}
    state = {"step": np.array(7, np.int32), **state, "opt_state/0/mu/cls": np.ones(3, np.float32)}
    older = checkpoint_import.prepare(str(files.save_shards(tmp_path / "old", state, version=None)), given=GIVEN)
    older.plan.check()
    assert [row.theirs for row in older.plan.rows if row.action == "left out: state of training"] == [
        "step",
        "opt_state/0/mu/cls",
    ]
    read = plan.read_params(older.plan)
    same = plan.read_params(checkpoint_import.prepare(str(TINY), given=GIVEN).plan)
    assert all(read[path].tobytes() == same[path].tobytes() for path in same)


# ------------------------------------------------------------------------------------------------------------ the run


@pytest.fixture(scope="module")
def imported(found, tmp_path_factory) -> pathlib.Path:
    """The folder of a run on the digits, whose classes are not recorded."""
    folder = tmp_path_factory.mktemp("imported") / "run"
    config = config_files.load("digits")
    config.train.batch_size = config.evaluation.batch_size = 16
    config.optimizer.name, config.optimizer.weight_decay = "sgd", 0.0
    write_run.check_folder(folder)
    variables = plan.complete(found.plan, plan.read_params(found.plan))
    run, data = run_config.make(found, config)
    write_run.write(write_run.record_of(found, data), run, variables, folder)
    return folder


def test_the_run_holds_the_arrays_bit_for_bit(imported, arrays):
    run = runs.load(imported)
    assert run.step == 0
    record = json.loads((imported / "import.json").read_text())
    assert record["format"] == "vmoe"
    ours = plan.flatten(run.variables["params"])
    assert len(record["arrays"]) == len(ours) == len(arrays)
    for row in record["arrays"]:
        assert np.asarray(ours[row["ours"]]).tobytes() == arrays[row["theirs"]].tobytes()


def test_an_exported_model_becomes_a_run_again(imported, commands, tmp_path):
    run = runs.load(imported)
    flat = {name: np.asarray(array) for name, array in exported.flatten(run.variables).items()}
    files.save_safetensors(tmp_path / "model.safetensors", flat, {"__metadata__": exported.metadata(0, "test")})
    shutil.copy(imported / "config.json", tmp_path / "config.json")
    printed = commands.succeed(f"--from={tmp_path}", f"--workdir={tmp_path / 'again'}")
    assert "all 76 arrays as this package exported them" in printed
    again = exported.flatten(runs.load(tmp_path / "again").variables)
    assert all(np.asarray(again[name]).tobytes() == array.tobytes() for name, array in flat.items())
    assert json.loads((tmp_path / "again" / "import.json").read_text())["family"] == "vmoe_inform"
    code, _, errors = commands.run(f"--from={tmp_path}", f"--workdir={tmp_path / 'other'}", "--model.num_heads=2")
    assert (code, len(errors.splitlines())) == (2, 1)
    assert "command line: expected no settings of a model that vmoe-export wrote, which has its own; received" in errors
    (tmp_path / "config.json").unlink()
    code, printed, errors = commands.run(f"--from={tmp_path}", "--dry_run")
    assert (code, printed) == (2, "")
    assert "expected the config.json that was exported with the arrays" in errors


def test_an_exported_model_agrees_with_the_program_that_wrote_its_checkpoint(imported, tmp_path, monkeypatch):
    flat = {name: np.asarray(array) for name, array in exported.flatten(runs.load(imported).variables).items()}
    files.save_safetensors(tmp_path / "model.safetensors", flat, {"__metadata__": exported.metadata(0, "test")})
    shutil.copy(imported / "config.json", tmp_path / "config.json")
    images, logits, recorded = check_checkpoint.read_expected(TINY.with_name("expected.npz"))
    said: list[str] = []
    error = functools.partial(comparison.error_of, str(tmp_path), images)
    assert error(logits, recorded, {}, said.append) < comparison.TOLERANCE
    assert said == ["not used of the recorded settings: all, as an exported model has its own"]
    with pytest.raises(checks.InputError, match="--expected: logits"):
        error(logits[:, 1:], {}, {}, said.append)
    with pytest.raises(checks.InputError, match="no settings of a model that vmoe-export wrote"):
        error(logits, {}, GIVEN, said.append)
    text = types.SimpleNamespace(model=types.SimpleNamespace(inputs="tokens"))
    monkeypatch.setattr(exported, "read", lambda stored: (text, {}))
    with pytest.raises(checks.InputError, match=r"--from: expected a model of images; received .*one of tokens"):
        error(logits, {}, {}, said.append)


def test_a_run_is_not_written_over(imported):
    with pytest.raises(checks.InputError, match=r"--workdir: expected a folder without a run; .*has config.json"):
        write_run.check_folder(imported)


def test_training_begins_with_the_first_batch(imported, found):
    config = runs.find(imported).config
    task = tasks.from_config(config).opened()
    data, first = (task.training_batches(SkippedRecords(0.0), 0, 1) for _ in range(2))
    variables = {"params": flax.traverse_util.unflatten_dict(plan.read_params(found.plan), sep="/")}
    shapes = jax.eval_shape(functools.partial(write_run._state, config), variables)
    with Checkpoints(imported, keep=1) as checkpoints:
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes)
        state = checkpoints.restore(wanted, data)
    assert int(state.step) == 0
    assert np.array_equal(next(data)["image"], next(first)["image"])
    data.close()
    first.close()


def test_images_are_prepared_as_the_family_says(found):
    config, _ = run_config.make(found, config_files.load("digits"))
    prepared = (config.data.pixel_mean, config.data.evaluation_crop, config.data.evaluation_resize)
    assert prepared == (0.5, 0.875, "shorter_side_rounded")
    fields = {"data.evaluation_crop": 0.5, "data.pixel_std": 0.25}
    given = {"pixel_std": "0.125"}
    kept, origins = run_config.make(found, config_files.load("digits", fields), set_fields=fields, given=given)
    assert (kept.data.evaluation_crop, kept.data.pixel_std, kept.data.pixel_mean) == (0.5, 0.125, 0.5)
    assert (origins["pixel_std"].origin, origins["pixel_mean"].origin) == ("given", "checkpoint")


def test_imagenets_classes_are_known_and_others_are_given(arrays, tmp_path, found):
    head = {"head/kernel": np.zeros((32, 1000), np.float32), "head/bias": np.zeros(1000, np.float32)}
    nameless = checkpoint_import.prepare(written(tmp_path, arrays | head), given=GIVEN)
    config, data = run_config.make(nameless)
    assert config.data.class_names == label_sets.wordnet_ids()
    assert data["class_names"].origin == precedence.ASSUMED
    assert (config.data.source, config.data.tfds_name) == ("tfds", "imagenet2012")
    assert "(ASSUMED: 1,000 without names" in [*table.lines_of_data(config.data, precedence.ASSUMED)][-1]
    assert run_config.make(nameless, classes="imagenet")[1]["class_names"].origin == precedence.GIVEN
    assert run_config.make(nameless, classes="unknown")[0].data.class_names == ()
    assert run_config.make(found)[0].data.class_names == ()
    (tmp_path / "names.txt").write_text("".join(f"class {n}\n" for n in range(10)))
    assert run_config.make(found, classes=str(tmp_path / "names.txt"))[0].data.class_names[9] == "class 9"
    with pytest.raises(checks.InputError, match="--classes: expected names of the classes once"):
        run_config.make(found, classes="unknown", given={"class_names": "a,b"})
    with pytest.raises(checks.InputError, match="--classes: expected names of 10 classes; received 'imagenet, which"):
        run_config.make(found, classes="imagenet")
    for text in ("a\n" * 10, "a\n", ""):
        (tmp_path / "bad.txt").write_text(text)
        with pytest.raises(checks.InputError, match="--classes: expected the 10 names"):
            run_config.read_class_names(tmp_path / "bad.txt", 10)
    (tmp_path / "bad.txt").write_bytes(b"\xff")
    with pytest.raises(checks.InputError, match="--classes: expected a text in UTF-8"):
        run_config.read_class_names(tmp_path / "bad.txt", 10)
