"""Saves that fail, saves beside others, and folders that cannot be written to."""

import contextlib
import errno
import gc
import logging
import os
import pathlib
import resource
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator

import chex
import pytest
from orbax.checkpoint._src.path import async_path

from tests.runs.states_by_hand import make_data, make_state, restore, write
from vmoe_inform import storage
from vmoe_inform.runs.checkpoints import Checkpoints, SavingError
from vmoe_inform.runs.lock import LOCK_FILE, RemovedError, RunLock

# Orbax leaves reads and writes that are under way when one fails to themselves: they find no event loop at their end.
ORBAX_LEAVES_WORK = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


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
            of_run.save(make_state(step), make_data(position=step))
    assert [path.name for path in other.iterdir()] == ["file"]
    chex.assert_trees_all_equal(restore(tmp_path)[0], make_state(2))
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["1", "2"]


def _save_and_wait(of_run: Checkpoints, step: int) -> None:
    of_run.save(make_state(step), make_data())
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
            of_run.save(make_state(1), None)
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
    write(folder, 1)
    with Checkpoints(folder, keep=5) as of_run:
        with (
            no_space(folder),
            pytest.raises(SavingError, match=r"expected to be written; received .*before it are as they were: \[1"),
        ):
            _save_and_wait(of_run, 2)
        of_run.check()
        assert of_run.latest_step() == 1
        of_run.save(make_state(3), make_data(position=3))
    chex.assert_trees_all_equal(restore(folder)[0], make_state(3))
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
    write(folder, 1)
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
