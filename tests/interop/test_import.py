"""A checkpoint of another program becomes a run: settings, arrays, folder, and the commands that do it."""

import functools
import http.server
import json
import pathlib
import shutil
import threading
import types
from collections.abc import Iterator

import flax.traverse_util
import jax
import numpy as np
import pytest

from tests import processes
from tests.interop import checkpoint_files as files
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
    references,
    run_config,
    settings,
    table,
    write_run,
)
from vmoe_inform.interop.checkpoint_import import CheckpointImport
from vmoe_inform.runs import run as runs
from vmoe_inform.runs.checkpoints import Checkpoints

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "checkpoints"
TINY = GOLDEN / "vmoe_tiny" / "ckpt"
GIVEN = {"num_selected_experts": "2", "tokens_per_group": "68"}
FLAGS = tuple(f"--model.{key}={value}" for key, value in GIVEN.items())


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return {name: array.read() for name, array in formats.open_checkpoint(TINY).arrays.items()}


@pytest.fixture(scope="module")
def found() -> CheckpointImport:
    return checkpoint_import.prepare(str(TINY), given=GIVEN)


def written(folder: pathlib.Path, arrays: dict[str, np.ndarray | None]) -> str:
    """The prefix of a checkpoint of these arrays."""
    kept = {name: array for name, array in arrays.items() if array is not None}
    return str(files.save_shards(folder / "changed", kept))


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


# -------------------------------------------------------------------------------------------------------- comparison


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


# -------------------------------------------------------------------------------------------------------- references


def test_published_names_bring_their_settings(arrays, tmp_path):
    name = "vmoe_s32_last2_ilsvrc2012_randaug_light1_ft_ilsvrc2012"
    path = files.save_shards(tmp_path / name, arrays)
    known = checkpoint_import.prepare(str(path))
    assert known.values["moe.num_selected_experts"].origin == "published config"
    assert known.model.moe.capacity_factor_evaluation == 1.5
    assert references.locate(str(path), print) == str(path)
    assert checkpoint_import.prepare(f"{path}.index", given={"capacity_factor": 2}).model.moe.group_size_sequences == 8
    with pytest.raises(checks.InputError, match="eee_s32_last2_ilsvrc2012: an ensemble"):
        references.locate("eee_s32_last2_ilsvrc2012", print)


@pytest.mark.parametrize("given", ["vmoe_s32_last2_ilsvrc2012_randaug_light", "gs://vmoe_checkpoints/vmoe_b16"])
def test_a_name_that_is_not_published_is_one_line(given, tmp_path, monkeypatch):
    with pytest.raises(checks.InputError, match="the name of a published V-MoE"):
        references.locate(given, print)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vmoe_s32_last2_ilsvrc2012_randaug_light.index").touch()
    assert references.locate("vmoe_s32_last2_ilsvrc2012_randaug_light", print).endswith("light")  # a file that is there


class _Bucket(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def bucket(tmp_path, monkeypatch) -> Iterator[pathlib.Path]:
    """A folder that is served as the public bucket."""
    folder = tmp_path / "served" / "vmoe_checkpoints"
    folder.mkdir(parents=True)
    handler = lambda *arguments: _Bucket(*arguments, directory=str(folder.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(references, "_SERVER", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield folder
        server.shutdown()


@pytest.mark.parametrize("address", ["", "gs://vmoe_checkpoints/"])
def test_published_files_are_fetched_once(address, bucket, arrays):
    name = "vmoe_s32_last2_ilsvrc2012_randaug_medium"
    files.save_shards(bucket / name, arrays)
    said: list[str] = []
    path = references.locate(address + name, said.append)
    assert checkpoint_import.prepare(path).plan.problems == []
    assert [line for line in said if line.startswith("fetching")] == [
        f"fetching {name}.data-0000{number}-of-00002" for number in range(2)
    ]
    shutil.rmtree(bucket)
    assert references.locate(name, said.append) == path
    assert len([line for line in said if line.startswith("fetching")]) == 2


def test_files_that_cannot_be_fetched_are_one_line_that_says_where_they_are(bucket, tmp_path):
    name = "vmoe_b16_imagenet21k_randaug_strong"
    with pytest.raises(checks.InputError, match=f"gsutil -m cp 'gs://vmoe_checkpoints/{name}") as caught:
        references.locate(name, lambda _: None)
    assert "HTTPError (File not found)" in str(caught.value)
    (bucket / f"{name}.index").write_bytes(b"\x82")
    with pytest.raises(checks.InputError, match="expected an index of google-research/vmoe as it was written"):
        references.locate(name, lambda _: None)
    assert sorted(path.name for path in (tmp_path / "cache/vmoe_inform/checkpoints").iterdir()) == [f"{name}.index"]


# ----------------------------------------------------------------------------------------------------------- commands


@pytest.fixture(scope="module")
def commands(tmp_path_factory) -> Iterator[processes.Forks]:
    imports = ("interop.write_run", "interop.comparison", "interop.table", "interop.run_config", "interop.references")
    with processes.Forks("import_checkpoint", tmp_path_factory.mktemp("commands"), imports=imports) as forks:
        yield forks


def test_the_command_prints_both_tables_and_writes_the_run(commands, tmp_path):
    printed = commands.succeed(f"--from={TINY}", f"--workdir={tmp_path / 'run'}", *FLAGS, "--config=digits")
    lines = printed.splitlines()
    assert sum(line.endswith("as it is") for line in lines) == 76
    assert any(line.split()[:2] == ["moe.layers", "(1,"] and line.endswith("(arrays)") for line in lines)
    row = next(line for line in lines if line.startswith("embedding/kernel"))
    assert " ".join(row.split()) == "embedding/kernel patch_embedding/kernel 4 x 4 x 3 x 32 as it is"
    assert lines[-2].startswith("classes: not known")
    assert lines[-1] == f"{tmp_path / 'run'}: written. Next: vmoe-evaluate --workdir={tmp_path / 'run'}"
    assert runs.find(tmp_path / "run").config.data.source == "digits"


def test_a_dry_run_writes_nothing(commands, tmp_path):
    printed = commands.succeed(f"--from={TINY}", *FLAGS, "--dry_run")
    assert "as it is" in printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--from: expected a checkpoint; received None"),
        ((f"--from={TINY}",), "--workdir: expected a folder for the run"),
        ((f"--from={TINY}", "--dry_run"), "--model: expected what the checkpoint does not say"),
        ((f"--from={TINY}", "--dry_run", *FLAGS, FLAGS[0]), "--model.num_selected_experts: expected this flag once"),
        ((f"--from={TINY}", "--dry_run", "--model.num_heads"), "--model.num_heads: expected a value"),
        ((f"--from={TINY}", "--dry_run", *FLAGS, "--data.crops=1"), "--data.crops: expected a field of config.data"),
        ((f"--from={TINY}", "--dry_run", "--data.crop"), "--data.crop: expected a value, as --data.crop=VALUE"),
        ((f"--from={TINY}", "--dry_run", "--model=3"), "--model"),
        (("--from=missing", "--dry_run"), "--from: expected a checkpoint"),
        ((f"--from={TINY}", "--dry_run", *FLAGS, "--classes=missing.txt"), "missing.txt"),
        ((f"--from={TINY}", "--dry_run", *FLAGS, "--config.seed=3"), "--config: expected a config file"),
    ],
)
def test_bad_command_lines_are_one_line(arguments, message, commands):
    code, _, errors = commands.run(*arguments)
    assert code == 2
    assert message in errors
    assert errors.startswith("error: ")
    assert len(errors.splitlines()) == 1


def test_what_is_wrong_is_in_the_table_too(commands, arrays, tmp_path):
    path = written(tmp_path, arrays | {"made/up": np.zeros(3)})
    code, printed, errors = commands.run(f"--from={path}", f"--workdir={tmp_path / 'run'}", *FLAGS)
    assert code == 2
    assert any(line.split() == ["made/up", "-", "3", "UNKNOWN"] for line in printed.splitlines())
    assert "made/up [3]: unknown" in errors
    assert not (tmp_path / "run").exists()


def test_the_check_says_how_far_apart_logits_are(commands, tmp_path):
    check, recorded = "interop.check_checkpoint", dict(np.load(TINY.with_name("expected.npz")))
    np.savez(tmp_path / "bare.npz", images=recorded["images"], logits=recorded["logits"])
    printed = commands.succeed(f"--from={TINY}", f"--expected={tmp_path / 'bare.npz'}", *FLAGS, module=check)
    assert printed.startswith("largest relative difference of the logits: ")
    assert printed.endswith("agrees\n")
    code, _, errors = commands.run(f"--from={TINY}", f"--expected={tmp_path / 'bare.npz'}", module=check)
    assert code == 2
    assert "--model.moe.num_selected_experts=VALUE" in errors
    np.savez(tmp_path / "other.npz", **(recorded | {"logits": recorded["logits"] + 0.1}))
    code, printed, _ = commands.run(f"--from={TINY}", f"--expected={tmp_path / 'other.npz'}", module=check)
    assert (code, printed.splitlines()[-1]) == (1, "DOES NOT AGREE")


def test_a_shard_that_is_damaged_is_said_before_the_table(commands, tmp_path):
    for path in TINY.parent.glob("ckpt.*"):
        shutil.copy(path, tmp_path)
    shard = tmp_path / "ckpt.data-00001-of-00003"
    shard.write_bytes(shard.read_bytes()[:-100])
    code, printed, errors = commands.run(f"--from={tmp_path}", f"--workdir={tmp_path / 'new' / 'run'}", *FLAGS)
    assert (code, len(errors.splitlines()), "theirs" in printed) == (2, 1, False)
    assert f"{shard.name}: expected a shard" in errors
    assert not (tmp_path / "new").exists()


def test_a_folder_that_did_not_exist_is_gone_after_a_failure(tmp_path):
    def fail(workdir):
        with write_run.new_folder(workdir):
            (workdir / "checkpoints").mkdir()
            raise OSError("full")

    there = tmp_path / "there"
    there.mkdir()
    for workdir in (there, tmp_path / "new" / "run"):
        with pytest.raises(OSError, match="full"):
            fail(workdir)
    assert [path.relative_to(tmp_path) for path in sorted(tmp_path.rglob("*"))] == [
        pathlib.Path("there"),
        pathlib.Path("there/checkpoints"),
    ]
    with pytest.raises(checks.InputError, match="a folder without a run"), write_run.new_folder(there):
        pass
    assert there.exists()


def test_a_folder_that_no_checkpoint_can_be_written_to_is_refused(tmp_path):
    with pytest.raises(checks.InputError, match="workdir: expected a path in UTF-8 without"):
        write_run.check_folder(tmp_path / "a[1]")
    assert not list(tmp_path.iterdir())


def test_the_page_lists_every_published_name():
    page = (processes.ROOT / "docs" / "interop.md").read_text()
    known = {name for name, reference in references.REFERENCES.items() if not reference.refused}
    assert {name for name in known if f"| `{name}` |" in page} == known
