"""What is read where a checkpoint is damaged, or of an older version."""

import functools
import json
import os
import pathlib
import shutil
import time
import zipfile

import chex
import jax
import numpy as np
import pytest

from tests.runs.states_by_hand import make_data, make_state, restore, write
from vmoe_inform import checks
from vmoe_inform.runs import integrity
from vmoe_inform.runs import run as runs
from vmoe_inform.runs.checkpoints import Checkpoints
from vmoe_inform.runs.folder import read_config
from vmoe_inform.runs.reading import CheckpointReader
from vmoe_inform.training import program

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "checkpoint_of_23f955b.zip"

# Orbax leaves reads and writes that are under way when one fails to themselves: they find no event loop at their end.
ORBAX_LEAVES_WORK = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def _largest(folder: pathlib.Path) -> pathlib.Path:
    return max(folder.glob("state/**/d/*"), key=lambda path: path.stat().st_size)


def _cut(folder):
    path = _largest(folder)
    path.write_bytes(path.read_bytes()[:-1])


def _flip(folder):
    path = _largest(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _link(folder):
    path = _largest(folder)
    elsewhere = folder.parent.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def _link_folder(folder):
    elsewhere = folder.parent.parent / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)


def _pipe(folder):
    path = _largest(folder)
    path.unlink()
    os.mkfifo(path)


def _pipe_for_checksums(folder):
    (folder / integrity.CHECKSUM_FILE).unlink()
    os.mkfifo(folder / integrity.CHECKSUM_FILE)


def _folder_for_a_file(folder):
    path = _largest(folder)
    path.unlink()
    path.mkdir()


def _rename(folder):
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("1"), folder)


DAMAGE = {
    "truncated": (_cut, "SHA-256"),
    "flipped bit": (_flip, "SHA-256"),
    "missing file": (lambda folder: _largest(folder).unlink(), "missing"),
    "missing position": (lambda folder: next(folder.glob("data/process*")).unlink(), "missing"),
    "file too many": (lambda folder: (folder / "state" / "more").touch(), "not a file of the checkpoint"),
    "symbolic link": (_link, "a symbolic link"),
    "linked folder": (_link_folder, "a symbolic link"),
    "pipe": (lambda folder: os.mkfifo(folder / "state" / "pipe"), "a named pipe in place of a file"),
    "pipe for a file": (_pipe, "a named pipe in place of a file"),
    "folder for a file": (_folder_for_a_file, "missing"),
    "pipe for the checksums": (_pipe_for_checksums, "a named pipe in place of a file"),
    "another step": (_rename, r"step 1, as if its folder had been renamed"),
    "broken checksums": (lambda folder: (folder / integrity.CHECKSUM_FILE).write_text("{"), "not what was written"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_the_newest_intact_checkpoint_is_taken(damaged, warnings, kind):
    damage, reason = DAMAGE[kind]
    folder = damaged / "checkpoints"
    damage(folder / "2")
    with (
        pytest.raises(ValueError, match=rf"checkpoint 2 in .*: expected whole files .*{reason}"),
        CheckpointReader(damaged) as of_run,
    ):
        of_run.load_arrays(2)
    with CheckpointReader(damaged) as of_run:  # readers touch nothing
        assert of_run.load_arrays()[0] == 1
    assert sorted(os.listdir(folder)) == ["1", "2"]

    state, record = restore(damaged)
    chex.assert_trees_all_equal(state, make_state(1))
    assert record == 1
    (warning,) = {line for line in warnings if "taking" in line}
    assert "checkpoint 2 in" in warning
    assert warning.endswith("taking checkpoint 1 instead")
    assert sorted(os.listdir(folder)) == ["1", "damaged_2"]  # nothing is deleted
    write(damaged, 2)  # training comes to it once more
    chex.assert_trees_all_equal(restore(damaged)[0], make_state(2))


def test_what_orbax_reads_first(damaged):
    """It reads this file of every checkpoint when it opens the folder of all, and would wait for a pipe for ever."""
    path = damaged / "checkpoints" / "1" / "_CHECKPOINT_METADATA"
    path.write_text("[1]")
    with pytest.raises(
        checks.InputError, match=r"checkpoints: expected checkpoints that can be listed; received '.*list"
    ):
        CheckpointReader(damaged)
    path.unlink()
    os.mkfifo(path)
    for opened in (CheckpointReader, functools.partial(Checkpoints, keep=5)):
        with pytest.raises(ValueError, match=r"checkpoint 1 in .*_CHECKPOINT_METADATA: .*move this folder away"):
            opened(damaged)


def test_exchanged_folders(damaged):
    """Each is whole, and would be taken for the other."""
    folder = damaged / "checkpoints"
    for before, after in (("1", "x"), ("2", "1"), ("x", "2")):
        (folder / before).rename(folder / after)
    with CheckpointReader(damaged) as of_run:
        for step in (1, 2):
            assert not of_run.is_of_its_step(step)
            with pytest.raises(
                ValueError, match=rf"checkpoint {step} in .*; received 'step {3 - step}, as if its folder"
            ):
                of_run.load_arrays(step)


def test_a_pipe_is_not_waited_for_where_only_the_step_is_read(damaged, caplog):
    path = damaged / "checkpoints" / "2" / "state" / "manifest.ocdbt"
    path.unlink()
    os.mkfifo(path)
    with CheckpointReader(damaged) as of_run:
        assert of_run.is_of_its_step(1)
        assert not of_run.is_of_its_step(2)
    assert "state/manifest.ocdbt: a named pipe in place of a file" in caplog.text


def test_a_folder_renamed_to_a_later_step_is_not_the_end_of_training(damaged):
    (damaged / "checkpoints" / "2").rename(damaged / "checkpoints" / "9")
    state, record = restore(damaged)
    chex.assert_trees_all_equal(state, make_state(1))
    assert record == 1
    assert sorted(os.listdir(damaged / "checkpoints")) == ["1", "damaged_9"]


def test_nothing_intact_is_an_error(damaged):
    for step in ("1", "2"):
        _flip(damaged / "checkpoints" / step)
    with pytest.raises(ValueError, match=r"checkpoint 2 in .*: expected whole files"):
        restore(damaged)
    assert sorted(os.listdir(damaged / "checkpoints")) == ["1", "2"]


@ORBAX_LEAVES_WORK
def test_without_checksums_there_is_a_warning(damaged, warnings):
    """Damage is found then only where the storage notices it, and falls back all the same."""
    (damaged / "checkpoints" / "2" / integrity.CHECKSUM_FILE).unlink()
    chex.assert_trees_all_equal(restore(damaged)[0], make_state(2))
    assert any("checkpoint 2" in line and "cannot be verified" in line for line in warnings)
    for path in damaged.glob("checkpoints/2/state/d/*"):
        path.write_bytes(path.read_bytes()[:10])
    chex.assert_trees_all_equal(restore(damaged)[0], make_state(1))
    time.sleep(0.5)  # they end in this test


def test_a_checkpoint_of_an_older_version(tmp_path, warnings):
    """Two steps of a tiny run (digits, width 8, Symphony), written at commit 23f955b, before there were checksums.

    The number was read from it with orbax alone.
    """
    with zipfile.ZipFile(GOLDEN) as archive:
        archive.extractall(tmp_path)
    loaded = runs.load(tmp_path)
    assert loaded.step == 2
    total = sum(
        float(np.abs(leaf.astype(np.float64)).sum())
        for leaf in jax.tree.leaves(jax.device_get(loaded.variables["params"]))
    )
    assert total == pytest.approx(579.0830734471757, rel=1e-9)
    assert any("cannot be verified" in line for line in warnings)
    built = program.build(read_config(tmp_path), 4)
    data = make_data()
    with Checkpoints(tmp_path, keep=1) as of_run:
        state = of_run.restore(built.state_shapes, data)
    assert int(state.step) == 2
    assert next(data) == 32  # two batches of 16
    chex.assert_trees_all_equal(state.ema_params, loaded.variables["params"])


def test_checksums_cover_every_file_of_the_state(two):
    names = {
        path.relative_to(two / "checkpoints/2").as_posix()
        for path in (two / "checkpoints/2").rglob("*")
        if path.is_file()
    }
    listed = set(json.loads((two / "checkpoints/2" / integrity.CHECKSUM_FILE).read_text())["sha256"])
    assert names - listed == {integrity.CHECKSUM_FILE, "_CHECKPOINT_METADATA", "commit_success.txt"}
