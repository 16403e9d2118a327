"""The commands that import a checkpoint, and that check it."""

import pathlib
import shutil

import numpy as np
import pytest

from tests.interop.checkpoint_files import FLAGS, TINY, written
from vmoe_inform import checks
from vmoe_inform.interop import (
    write_run,
)
from vmoe_inform.runs import run as runs


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
        ((), "--from: expected a checkpoint; received nothing"),
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
