"""A run that is started again knows whether it is the same run, also when an older version began it."""

import json
import os
import pathlib
import zipfile

import pytest

from tests import tiny
from vmoe_inform import config as config_lib
from vmoe_inform.config import identity
from vmoe_inform.config.identity import Effect
from vmoe_inform.runs.folder import (
    check_same_run,
    hash_by_older_versions,
    read_config,
    recorded_class_names,
    write_config,
)

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "checkpoint_of_23f955b.zip"


@pytest.fixture
def older(tmp_path) -> pathlib.Path:
    """A run's folder as commit 23f955b wrote it: without 30 settings that there are today."""
    with zipfile.ZipFile(GOLDEN) as archive:
        archive.extract("config.json", tmp_path)
    return tmp_path


def _write(workdir: pathlib.Path, **overrides) -> config_lib.Config:
    config = config_lib.parse(tiny.config_dict(**overrides))
    write_config(workdir, config)
    return config


def test_a_run_of_an_older_version_is_the_same_run(older):
    config = read_config(older)
    assert check_same_run(older, config) == []
    assert hash_by_older_versions(older) == "d1b83fac829c46c4"  # as that version worked it out
    assert identity.config_hash(config) == "6cb7076d3ce3d49b"  # as every version since has worked it out


def test_what_changes_no_mathematics_may_change(tmp_path):
    _write(tmp_path)
    after = config_lib.parse(
        tiny.config_dict(model__remat="full", train__steps=30, checkpoint__keep=1, data__num_workers=2)
    )
    changed = check_same_run(tmp_path, after)
    assert [str(change) for change in changed] == [
        "checkpoint.keep: 3 -> 1",
        "data.num_workers: 0 -> 2",
        "model.remat: 'none' -> 'full'",
        "train.steps: 20 -> 30",
    ]
    with pytest.raises(ValueError, match=r"workdir: expected the settings in .*: train.steps: 20 -> 30$"):
        check_same_run(tmp_path, after, may_change=(Effect.MACHINE,))


def test_what_changes_mathematics_is_listed(tmp_path):
    _write(tmp_path)
    after = config_lib.parse(tiny.config_dict(optimizer__learning_rate=0.5, seed=7, checkpoint__keep=1))
    message = r"config.json, since .*\(there -> received\): optimizer.learning_rate: .* -> 0.5; seed: 0 -> 7$"
    with pytest.raises(ValueError, match=message):
        check_same_run(tmp_path, after)


def _torn(path):
    path.write_bytes(path.read_bytes()[:-100])


def _pipe(path):
    path.unlink()
    os.mkfifo(path)


def _link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


DAMAGE = {
    "torn": (_torn, "as it was written"),
    "no text": (lambda path: path.write_bytes(b"\xff\xfe{"), "as it was written"),
    "list": (lambda path: path.write_text("[1, 2]"), "as it was written"),
    "pipe": (_pipe, "a named pipe"),
    "link": (_link, "a symbolic link"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_config_is_one_line(tmp_path, kind):
    config = _write(tmp_path)
    damage, reason = DAMAGE[kind]
    damage(tmp_path / "config.json")
    message = rf"config.json: expected .*{reason}.*\(restore it: nothing else says what the run is\)$"
    for read in (lambda: check_same_run(tmp_path, config), lambda: read_config(tmp_path)):
        with pytest.raises(ValueError, match=message) as error:
            read()
        assert "\n" not in str(error.value)


def test_a_setting_that_this_version_does_not_know_is_named(tmp_path):
    config = config_lib.to_json(_write(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(config | {"train": config["train"] | {"horizon": 3}}))
    with pytest.raises(ValueError, match=r"config.json: train: expected one of the keys .*; received 'horizon'"):
        read_config(tmp_path)


def test_the_classes_of_a_run_stay(tmp_path):
    config = config_lib.parse(tiny.config_dict())
    assert recorded_class_names(tmp_path) == ()
    digits = config_lib.with_class_names(config, "0123456789")
    write_config(tmp_path, digits)
    assert recorded_class_names(tmp_path) == tuple("0123456789")
    assert check_same_run(tmp_path, config) == []  # which names none: they are those of the run
    assert identity.config_hash(digits) == identity.config_hash(config)  # older versions recorded none
    with pytest.raises(ValueError, match=r"data.class_names: \['0', '1', .* -> \['9', '8', "):
        check_same_run(tmp_path, config_lib.with_class_names(config, "9876543210"))


def test_no_run_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"workdir: expected a run with config.json; received"):
        read_config(tmp_path / "nothing")
    assert check_same_run(tmp_path / "nothing", config_lib.parse(tiny.config_dict())) == []
