"""Checkpoints of a state made by hand: nothing is compiled, so that every kind of damage can be tried."""

import contextlib
import errno
import functools
import gc
import json
import logging
import os
import pathlib
import resource
import shutil
import subprocess
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator

import chex
import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from orbax.checkpoint._src.path import async_path

from vmoe_inform import checks, storage
from vmoe_inform.runs import integrity, saved_trees
from vmoe_inform.runs import run as runs
from vmoe_inform.runs.checkpoints import Checkpoints, SavingError
from vmoe_inform.runs.folder import read_config
from vmoe_inform.runs.lock import LOCK_FILE, RemovedError, RunLock
from vmoe_inform.runs.reading import CheckpointReader
from vmoe_inform.runs.state import TrainState
from vmoe_inform.sharding.mesh import make_mesh
from vmoe_inform.sharding.rules import tree_shardings
from vmoe_inform.training import program

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "checkpoint_of_23f955b.zip"

# Orbax leaves reads and writes that are under way when one fails to themselves: they find no event loop at their end.
ORBAX_LEAVES_WORK = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def _state(step: int, *, width: int = 4, replica: int = 1, expert: int = 1) -> TrainState:
    """A state whose arrays say which step they are of, on a mesh of these sizes."""
    params = {
        "block_1": {"moe": {"experts": {"hidden": {"kernel": np.arange(16.0 * width).reshape(8, 2, width) + step}}}},
        "head": {"kernel": np.full((width, 3), step, np.float32)},
    }
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    state = TrainState(
        step=jnp.int32(step),
        seed=jnp.uint32(7),
        params=params,
        opt_state=optax.adam(1e-3).init(params),
        routing={"block_1": {"moe": {"router": {"adjacency": jnp.eye(8) * step}}}},
        ema_params=jax.tree.map(lambda leaf: leaf / 2, params),
    )
    mesh = make_mesh(replica, expert, jax.devices()[: replica * expert])
    return jax.device_put(state, tree_shardings(state, mesh))


def _shapes(state: TrainState) -> TrainState:
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), state)


def _data(position: int = 0):
    iterator = iter(grain.MapDataset.range(100).to_iter_dataset())
    for _ in range(position):
        next(iterator)
    return iterator


def _write(workdir: pathlib.Path, *steps: int, **sizes: int) -> None:
    with Checkpoints(workdir, keep=5) as of_run:
        for step in steps:
            of_run.save(_state(step, **sizes), _data(position=step))


def _restore(workdir: pathlib.Path, **sizes: int) -> tuple[TrainState, int]:
    """The newest state, and the next record."""
    data = _data()
    with Checkpoints(workdir, keep=5) as of_run:
        return of_run.restore(_shapes(_state(0, **sizes)), data), next(data)


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> pathlib.Path:
    """A run with the checkpoints 1 and 2."""
    workdir = tmp_path_factory.mktemp("run")
    _write(workdir, 1, 2)
    return workdir


@pytest.fixture
def damaged(two, tmp_path) -> pathlib.Path:
    """A copy of it, for damage to the second."""
    return pathlib.Path(shutil.copytree(two, tmp_path / "run"))


# ------------------------------------------------------------------------------------------------------- other devices


@pytest.mark.parametrize(
    ("before", "after"), [((8, 1), (1, 1)), ((2, 4), (4, 2)), ((1, 1), (1, 8))], ids=["8 to 1", "2x4 to 4x2", "1 to 8"]
)
def test_restored_onto_another_mesh(tmp_path, before, after):
    _write(tmp_path, 3, replica=before[0], expert=before[1])
    state, record = _restore(tmp_path, replica=after[0], expert=after[1])
    wanted = _state(3, replica=after[0], expert=after[1])
    chex.assert_trees_all_equal(state, wanted)
    assert jax.tree.map(lambda a: a.sharding, state) == jax.tree.map(lambda a: a.sharding, wanted)
    assert record == 3


def test_another_model_is_refused_with_the_paths(two):
    with pytest.raises(ValueError, match=r"checkpoint 2 is of another model.*head/kernel: expected \(5, 3\); .*\(4, 3"):
        _restore(two, width=5)


@pytest.mark.parametrize(
    "name", ["a|b", "a b", "a%20b#c", "$a$ {x}", "狗", "a\nb", "a:b", "~x", "-x", "'q\" <b>", "x" * 200]
)
def test_a_folder_of_any_name(tmp_path, name):
    _write(tmp_path / name, 1)
    chex.assert_trees_all_equal(_restore(tmp_path / name)[0], _state(1))


@pytest.mark.parametrize("name", ["[x]", "a*", "a?b", "a\\b", "gs:/x", "\udcff"])
def test_a_name_that_orbax_would_interpret_is_refused_and_a_link_is_not(tmp_path, name):
    with pytest.raises(ValueError, match=r"^workdir: expected a path .* \(or a link to it\); received"):
        _write(tmp_path / name, 1)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / name)
    _write(tmp_path / "link", 1)
    chex.assert_trees_all_equal(_restore(tmp_path / "link")[0], _state(1))


@pytest.mark.parametrize("name", ["a#b", "a;b/c"])
def test_an_address_that_the_library_would_cut_off_is_refused(name):
    with pytest.raises(ValueError, match="workdir: expected an address without # and ;"):
        saved_trees.check_path(storage.path("workdir", f"gs://test/{name}"))


# -------------------------------------------------------------------------------------------------------------- damage


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

    state, record = _restore(damaged)
    chex.assert_trees_all_equal(state, _state(1))
    assert record == 1
    (warning,) = {line for line in warnings if "taking" in line}
    assert "checkpoint 2 in" in warning
    assert warning.endswith("taking checkpoint 1 instead")
    assert sorted(os.listdir(folder)) == ["1", "damaged_2"]  # nothing is deleted
    _write(damaged, 2)  # training comes to it once more
    chex.assert_trees_all_equal(_restore(damaged)[0], _state(2))


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
    state, record = _restore(damaged)
    chex.assert_trees_all_equal(state, _state(1))
    assert record == 1
    assert sorted(os.listdir(damaged / "checkpoints")) == ["1", "damaged_9"]


def test_nothing_intact_is_an_error(damaged):
    for step in ("1", "2"):
        _flip(damaged / "checkpoints" / step)
    with pytest.raises(ValueError, match=r"checkpoint 2 in .*: expected whole files"):
        _restore(damaged)
    assert sorted(os.listdir(damaged / "checkpoints")) == ["1", "2"]


@ORBAX_LEAVES_WORK
def test_without_checksums_there_is_a_warning(damaged, warnings):
    """Damage is found then only where the storage notices it, and falls back all the same."""
    (damaged / "checkpoints" / "2" / integrity.CHECKSUM_FILE).unlink()
    chex.assert_trees_all_equal(_restore(damaged)[0], _state(2))
    assert any("checkpoint 2" in line and "cannot be verified" in line for line in warnings)
    for path in damaged.glob("checkpoints/2/state/d/*"):
        path.write_bytes(path.read_bytes()[:10])
    chex.assert_trees_all_equal(_restore(damaged)[0], _state(1))
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
    data = _data()
    with Checkpoints(tmp_path, keep=1) as of_run:
        state = of_run.restore(built.state_shapes, data)
    assert int(state.step) == 2
    assert next(data) == 32  # two batches of 16
    chex.assert_trees_all_equal(state.ema_params, loaded.variables["params"])


# -------------------------------------------------------------------------------------------------------------- saving


def _unfinished(workdir: pathlib.Path, step: int) -> pathlib.Path:
    """A folder as a save of this step makes it first."""
    folder = workdir / "checkpoints" / f"{step}.orbax-checkpoint-tmp"
    folder.mkdir(parents=True)
    (folder / "file").touch()
    return folder


def test_what_is_closed_does_not_remove_what_the_next_one_writes(damaged, monkeypatch):
    """Orbax tidies in a thread: on a machine under load, that began when the next checkpoint was being written."""
    may_look, of_before = threading.Event(), set(threading.enumerate())
    is_of_orbax = lambda thread: type(thread).__module__.startswith("orbax")

    async def look(path):
        if is_of_orbax(threading.current_thread()):
            may_look.wait()
        return path.exists()

    monkeypatch.setattr(async_path, "exists", look)
    left = _unfinished(damaged, 3)
    with Checkpoints(damaged, keep=5):
        pass
    written = _unfinished(damaged, 4)
    may_look.set()
    for thread in filter(is_of_orbax, set(threading.enumerate()) - of_before):
        thread.join()
    assert written.exists()
    assert not left.exists()


def test_a_save_touches_no_other_unfinished_folder(tmp_path):
    """Writes of a save that failed make their folder anew, which then goes while its files are read."""
    with Checkpoints(tmp_path, keep=5) as of_run:
        other = _unfinished(tmp_path, 7)
        for step in (1, 2):
            of_run.save(_state(step), _data(position=step))
    assert [path.name for path in other.iterdir()] == ["file"]
    chex.assert_trees_all_equal(_restore(tmp_path)[0], _state(2))
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["1", "2"]


def _save_and_wait(of_run: Checkpoints, step: int) -> None:
    of_run.save(_state(step), _data())
    of_run.wait()


def test_a_save_that_fails_removes_nothing_of_another_run(tmp_path, monkeypatch):
    """As of a process out of reach, whose bucket another has taken over."""

    def save(*_: object, **__: object) -> None:
        raise OSError("no connection")

    with RunLock(tmp_path) as lock, Checkpoints(tmp_path, keep=1, lock=lock) as of_run:
        (others := tmp_path / "checkpoints" / "7.orbax-checkpoint-tmp").mkdir()
        (tmp_path / LOCK_FILE).write_text('{"training": "another"}')
        monkeypatch.setattr(of_run._manager, "save", save)
        with pytest.raises(RemovedError, match="to stay while training runs"):
            of_run.save(_state(1), None)
    assert others.exists()


@contextlib.contextmanager
def _file_size_limit(folder: pathlib.Path) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def _full_disk(folder: pathlib.Path) -> Iterator[None]:
    filler = folder / "filler"
    with pytest.raises(OSError, match="No space left"):
        _fill(filler)
    yield
    filler.unlink()


def _fill(path: pathlib.Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.fixture
def small_disk(tmp_path) -> Iterator[tuple[pathlib.Path, Callable[..., contextlib.AbstractContextManager[None]]]]:
    """A folder, and what makes writing there fail: a disk of 1 MB that is filled up, where this process may mount one,
    or else a limit on the size of files. Both end in an error of write()."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        yield folder, _file_size_limit
        return
    yield folder, _full_disk
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@ORBAX_LEAVES_WORK
@pytest.mark.parametrize("fault", ["limit", "disk"])
def test_a_save_that_fails_in_the_background(fault, small_disk, tmp_path, caplog):
    folder, no_space = small_disk if fault == "disk" else (tmp_path, _file_size_limit)
    _write(folder, 1)
    with Checkpoints(folder, keep=5) as of_run:
        with (
            no_space(folder),
            pytest.raises(SavingError, match=r"expected to be written; received .*before it are as they were: \[1"),
        ):
            _save_and_wait(of_run, 2)
        of_run.check()
        assert of_run.latest_step() == 1
        of_run.save(_state(3), _data(position=3))
    chex.assert_trees_all_equal(_restore(folder)[0], _state(3))
    assert sorted(os.listdir(folder / "checkpoints")) == ["1", "3"]
    gc.collect()  # asyncio says then what nobody asked its tasks for
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


def test_a_trace_that_only_runs_through_orbax_is_none_for_the_user(tmp_path, caplog):
    """As asyncio logs it, which says nothing of orbax in its message; whatever else has failed is logged."""
    with Checkpoints(tmp_path, keep=1):
        for file in ("/site-packages/orbax/path.py", "/site-packages/other.py"):
            try:
                exec(compile("raise OSError(27, 'File too large')", file, "exec"))
            except OSError:
                logging.getLogger("asyncio").error("Future exception was never retrieved", exc_info=True)
    (record,) = (record for record in caplog.records if record.name == "asyncio")
    assert "other.py" in record.exc_text


@pytest.fixture
def unwritable():
    """A function that makes a folder unwritable for this process, also if it is root's."""
    user = os.geteuid()
    folder = pathlib.Path(tempfile.mkdtemp())

    def deny(path: pathlib.Path) -> None:
        path.chmod(0o555)
        if user == 0:
            os.seteuid(65534)

    yield folder, deny
    os.seteuid(user)
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


def test_a_folder_that_becomes_unwritable(unwritable):
    folder, deny = unwritable
    folder.chmod(0o755)
    _write(folder, 1)
    with Checkpoints(folder, keep=5) as of_run:
        deny(folder / "checkpoints")
        with pytest.raises(SavingError, match="Permission denied"):
            _save_and_wait(of_run, 2)
        assert of_run.latest_step() == 1


def test_an_unwritable_workdir_is_found_at_once(unwritable, tmp_path):
    folder, deny = unwritable
    deny(folder)
    for workdir in (folder / "run", folder):
        with pytest.raises(
            ValueError, match=r"workdir: expected a folder that can be written to \(Permission denied\)"
        ):
            storage.check_writable(workdir)


def test_a_full_disk_is_found_at_once_and_is_no_bad_input(tmp_path, monkeypatch):
    def full(**_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(OSError, match=r"workdir: expected a folder that can be written to \(No space left on device\)"):
        storage.check_writable(tmp_path)


def test_a_workdir_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"workdir: expected a folder that can be written to \(Not a directory\)"):
        storage.check_writable(tmp_path / "file" / "run")


def test_checksums_cover_every_file_of_the_state(two):
    names = {
        path.relative_to(two / "checkpoints/2").as_posix()
        for path in (two / "checkpoints/2").rglob("*")
        if path.is_file()
    }
    listed = set(json.loads((two / "checkpoints/2" / integrity.CHECKSUM_FILE).read_text())["sha256"])
    assert names - listed == {integrity.CHECKSUM_FILE, "_CHECKPOINT_METADATA", "commit_success.txt"}
