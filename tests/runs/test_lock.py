"""One training at a time in a folder, without a lock that outlives its holder."""

import errno
import fcntl
import json
import os
import subprocess
import sys

import pytest

from tests import processes as commands
from tests import tiny
from tests.sharding.test_processes import free_address
from vmoe_inform import config as config_lib
from vmoe_inform.runs import lock as run_lock
from vmoe_inform.runs.lock import LOCK_FILE, RemovedError, RunLock
from vmoe_inform.training import loop

HOLDS = """
import pathlib, sys, time
from vmoe_inform.runs.lock import RunLock
with RunLock(pathlib.Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(3600)
"""


@pytest.fixture
def no_patience(monkeypatch):
    monkeypatch.setattr(run_lock, "_PATIENCE_SECONDS_HERE", 0.0)
    monkeypatch.setattr(run_lock, "_PATIENCE_SECONDS_ELSEWHERE", 0.0)


def _content(folder):
    """Bytes of every file by its path."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_lock_ends_with_the_process_that_holds_it(tmp_path, no_patience):
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(command, cwd=commands.ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "locked\n"
            with pytest.raises(ValueError, match=rf"in use by process {process.pid} on "), RunLock(tmp_path):
                pass
        finally:
            process.kill()
    with RunLock(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_bytes())["process"] == os.getpid()


def test_a_lock_that_is_about_to_end_is_waited_for(tmp_path, monkeypatch, caplog):
    """Such as that of another machine which is gone: its file system's server does not know it yet."""
    first = RunLock(tmp_path)
    first.__enter__()
    written = json.loads((tmp_path / LOCK_FILE).read_bytes())
    (tmp_path / LOCK_FILE).write_text(json.dumps(written | {"machine": "another", "host": "node7"}))
    monkeypatch.setattr(run_lock.time, "sleep", lambda seconds: first.__exit__())
    with RunLock(tmp_path) as second:
        second.check()
    assert "on 'node7'" in caplog.text
    assert "waiting up to 120 s" in caplog.text


def test_training_in_a_folder_in_use_is_refused_and_the_folder_is_as_it_was(tmp_path, no_patience):
    config = config_lib.parse(tiny.config_dict())
    with RunLock(tmp_path):
        (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st')  # as its owner is just writing it
        before = _content(tmp_path)
        with pytest.raises(ValueError, match=r"workdir: expected a folder in which no other training runs; received"):
            loop.train(config, tmp_path)
        assert _content(tmp_path) == before


def test_all_processes_of_a_run_learn_that_its_folder_is_in_use(tmp_path, tmp_path_factory):
    address = free_address()
    flags = (f"--workdir={tmp_path}", "--config=configs/digits.py", f"--coordinator_address={address}")
    command_lines = [(*flags, "--num_processes=2", f"--process_id={number}") for number in range(2)]
    with (
        RunLock(tmp_path),
        commands.Forks("train", tmp_path_factory.mktemp("said"), imports=("training.loop",)) as forks,
    ):
        before = _content(tmp_path)
        ended = forks.run_together(*command_lines)
        assert [code for code, _, _ in ended] == [2, 2], ended
        assert _content(tmp_path) == before
    for _, _, errors in ended:
        (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert f"in use by process {os.getpid()} on " in line


def test_a_file_system_without_locks(tmp_path, monkeypatch, caplog):
    """Said in one line; whoever came first finds out that another has come."""

    def no_lock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "fcntl", no_lock)
    with RunLock(tmp_path) as first:
        assert "this file system has no locks" in caplog.text
        first.check()
        with RunLock(tmp_path) as second:
            second.check()
            with pytest.raises(RemovedError, match="removed or replaced"):
                first.check()


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_folder_that_is_removed(tmp_path, how):
    folder = tmp_path / "run"
    folder.mkdir()
    with RunLock(folder) as lock:
        lock.check()
        folder.rename(tmp_path / "elsewhere")
        if how == "replaced":
            folder.mkdir()
            with RunLock(folder) as other:
                other.check()
        else:
            with pytest.raises(RemovedError, match=r"workdir: expected '.*run' to stay"):
                lock.check()
            folder.mkdir()
        with pytest.raises(RemovedError):
            lock.check()


def test_a_pipe_in_place_of_the_lock_is_not_waited_for(tmp_path):
    with RunLock(tmp_path) as lock:
        (tmp_path / LOCK_FILE).unlink()
        os.mkfifo(tmp_path / LOCK_FILE)
        with pytest.raises(RemovedError):
            lock.check()


def test_a_full_disk_does_not_keep_a_run_from_its_lock(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with RunLock(tmp_path) as lock:
        lock.check()


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_what_is_no_file_is_one_line(tmp_path, kind):
    path = tmp_path / LOCK_FILE
    (tmp_path / "target").write_text("mine")
    {"link": lambda: path.symlink_to(tmp_path / "target"), "fifo": lambda: os.mkfifo(path), "folder": path.mkdir}[
        kind
    ]()
    with (
        pytest.raises(ValueError, match=r"train.lock: expected a file; received a "),
        RunLock(tmp_path),
    ):
        pass
    assert (tmp_path / "target").read_text() == "mine"


@pytest.mark.parametrize("content", [b"\xff\x00", b"[" * 4000, b"[1]", b'{"host": {"a": "b\\nc"}}', b"{}" * 3000])
def test_whatever_the_file_says_the_refusal_is_one_line(tmp_path, no_patience, content):
    with RunLock(tmp_path):
        (tmp_path / LOCK_FILE).write_bytes(content)
        with pytest.raises(ValueError, match="in use by process") as caught, RunLock(tmp_path):
            pass
    assert "\n" not in str(caught.value)
