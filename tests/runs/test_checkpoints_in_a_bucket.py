"""Checkpoints in a bucket: what a disk's rename does there is done by a mark that is written last."""

import chex
import pytest

from tests.runs.states_by_hand import make_data, make_state, restore, write
from vmoe_inform import storage
from vmoe_inform.runs import integrity, saved_trees
from vmoe_inform.runs.checkpoints import Checkpoints
from vmoe_inform.runs.lock import LOCK_FILE, RemovedError, RunLock
from vmoe_inform.storage import _bucket_lock
from vmoe_inform.storage._bucket_lock import BucketLock

MARK = "commit_success.txt"  # orbax's


def _steps(workdir: storage.Path) -> list[int]:
    return storage.numbered_folders(workdir / "checkpoints")


def _largest(folder: storage.Path) -> storage.Path:
    return max(
        (folder / name for name in storage.regular_files(folder)), key=lambda path: len(storage.read_bytes(path))
    )


def test_the_newest_are_kept_and_come_back(bucket_server, bucket_folder):
    with Checkpoints(bucket_folder, keep=2) as of_run:
        bucket_server.fail("lost", at="POST .*checkpoints%2F2%2F.*manifest.*ifGenerationMatch")  # of tensorstore
        for step, fault in ((1, "503"), (2, "lost"), (3, "dropped")):
            bucket_server.fail(fault, at=rf"POST .*checkpoints/{step}/")
            of_run.save(make_state(step), make_data(position=step))
    bucket_server.fail("503", at="GET .*checkpoints.*3.*alt=media")
    state, record = restore(bucket_folder)
    chex.assert_trees_all_equal(state, make_state(3))
    assert record == 3
    assert _steps(bucket_folder) == [2, 3]


def test_damage_and_what_was_not_completed(bucket_folder, warnings):
    write(bucket_folder, 1, 2, 3)
    folder = bucket_folder / "checkpoints"
    shard = _largest(folder / "2")
    content = storage.read_bytes(shard)
    storage.write_bytes(shard, content[:-1] + bytes([content[-1] ^ 1]))
    storage.remove(folder / "3" / MARK)  # killed right before it
    storage.write_bytes(folder / "4" / "state" / "d" / "part", content)  # killed in the middle
    state, record = restore(bucket_folder)
    chex.assert_trees_all_equal(state, make_state(1))
    assert record == 1
    assert [path.name for path in storage.matching(folder, "*")] == ["1", "damaged_2", "damaged_3"]
    assert any("taking checkpoint 1 instead" in line for line in warnings)
    assert any("not orbax's mark that it was completed; moved to" in line for line in warnings)


@pytest.fixture(params=["disk", "bucket"])
def folder(request, tmp_path):
    """An empty folder of a place."""
    return tmp_path if request.param == "disk" else request.getfixturevalue("bucket_folder")


def test_no_checkpoint_is_completed_where_another_trains_by_now(folder, monkeypatch):
    """Another takes over while the files are written, such as of a process that was stopped for longer than a lease."""
    monkeypatch.setattr(BucketLock, "lease_seconds", 0.0)  # of which none is left
    write_checksums = integrity.write_checksums

    def write_checksums_and_lose_the_lock(checkpoint: storage.Path) -> None:
        write_checksums(checkpoint)
        storage.write_text(folder / LOCK_FILE, '{"training": "another"}')

    with RunLock(folder) as lock, Checkpoints(folder, keep=2, lock=lock) as of_run:
        of_run.save(make_state(1), make_data(position=1))
        of_run.wait()
        monkeypatch.setattr(integrity, "write_checksums", write_checksums_and_lose_the_lock)
        of_run.save(make_state(2), make_data(position=2))
        with pytest.raises(RemovedError, match="to stay while training runs"):
            of_run.wait()
    left = [path.name for path in saved_trees.unfinished(folder / "checkpoints")]
    assert [name.partition(".")[0] for name in left] == ["2"]


def test_nothing_is_completed_under_a_lock_that_cannot_be_asked_for(bucket_server, bucket_folder, monkeypatch):
    monkeypatch.setattr(BucketLock, "lease_seconds", 0.0)
    with RunLock(bucket_folder) as lock:
        monkeypatch.setattr(_bucket_lock, "_REQUEST_SECONDS", 0.01)  # too short to try again
        with bucket_server.out_of_order():
            lock.check()
            with pytest.raises(OSError, match=r"train\.lock"):
                lock.confirm()
        lock.confirm()


def test_a_run_whose_folder_is_replaced_stops(bucket_folder):
    with RunLock(bucket_folder) as lock:
        lock.check()
        storage.remove(bucket_folder)
        with RunLock(bucket_folder) as other:
            other.check()
            assert lock._lock is not None
            with pytest.raises(OSError, match=r"train\.lock"):
                lock._lock.write(b"a sign of life")
        with pytest.raises(RemovedError, match=r"gs://test/.*' to stay while training runs"):
            lock.check()
