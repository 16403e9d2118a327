"""A bucket: requests that fail for a moment change nothing, and of two that write at once one does."""

import errno
import os
import subprocess
import sys
import threading

import pytest

from tests import bucket_server as bucket_server_lib
from tests import processes as commands
from vmoe_inform import checks, storage
from vmoe_inform.storage import _bucket_lock, _objects, locks

HOLDS = """
import sys, time
from vmoe_inform import storage
from vmoe_inform.storage import locks
locks.lock_at(storage.path("lock", sys.argv[1])).take(wait=False)
print("locked", flush=True)
time.sleep(3600)
"""


@pytest.mark.parametrize("fault", bucket_server_lib.KINDS)
def test_a_request_that_fails_is_repeated(bucket_server, bucket_folder, fault):
    path = bucket_folder / "file.json"
    for at in ("POST", "GET .*file.json"):
        bucket_server.fail(fault, at=at)
        storage.write_json(path, {"at": at})
        assert storage.read_json(path) == {"at": at}


def test_what_stays_broken_is_one_line(bucket_server, bucket_folder, monkeypatch, caplog):
    monkeypatch.setattr(_objects, "RETRY_SECONDS", 0.3)
    monkeypatch.setattr(_objects, "_SILENT_SECONDS", 0.0)
    monkeypatch.setattr(_objects, "_SAID_EVERY_SECONDS", 0.0)
    storage.write_text(bucket_folder / "file", "old")
    with bucket_server.out_of_order():
        for use in (storage.read_bytes, storage.exists, lambda path: storage.write_text(path, "new")):
            with pytest.raises(OSError, match=str(bucket_folder / "file")) as found:
                use(bucket_folder / "file")
            assert "\n" not in str(found.value)
    assert "the bucket does not answer; asking again" in caplog.text
    assert storage.read_bytes(bucket_folder / "file") in (b"old", b"new")  # one answer or another was only lost


def test_a_full_disk_of_this_machine_is_named(bucket_folder):
    def write():
        with storage.replacing(bucket_folder / "file") as file:
            file.write(b"x")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=r"No space left on device, where gs://.*/file is kept .*\$TMPDIR"):
        write()
    assert not storage.exists(bucket_folder / "file")


def test_lists_have_pages(bucket_server, bucket_folder):
    """As large ones do; the server's have few entries."""
    for number in range(10):
        storage.write_text(bucket_folder / str(number) / "file", "")
    assert storage.numbered_folders(bucket_folder) == list(range(10))
    before = len(bucket_server.requests)
    assert len(list(storage.regular_files(bucket_folder))) == 10
    assert len(bucket_server.requests) - before == -(-10 // bucket_server.page)


def test_marks_that_consoles_leave_are_no_files(bucket_folder):
    """They come first in a list, and more of them than one short page has."""
    deepest = bucket_folder.joinpath(*map(str, range(10)))
    for folder in [deepest, *deepest.parents][:11]:
        _objects._bucket(folder).blob(f"{_objects.name_of(folder)}/").upload_from_string(b"")
    assert not storage.is_folder(bucket_folder)
    storage.write_text(deepest / "file", "x")
    assert storage.is_folder(bucket_folder)
    assert storage.exists(bucket_folder)
    assert len(list(storage.regular_files(bucket_folder))) == 1


def test_a_file_that_others_replace_is_read_whole(bucket_folder, monkeypatch):
    """As a report reads the log of a run that trains."""
    path, find, others = bucket_folder / "log", _objects.find, ["newer", "newest"]
    storage.write_text(path, "old")

    def find_just_before_it_is_replaced(path):
        found = find(path)
        if others:
            storage.write_text(path, others.pop(0))
        return found

    monkeypatch.setattr(_objects, "find", find_just_before_it_is_replaced)
    assert storage.read_bytes(path) == b"newest"


def test_a_large_file_is_read_in_blocks_of_one_generation(bucket_folder, monkeypatch):
    monkeypatch.setattr(_objects, "_WHOLE_BYTES", 10)
    monkeypatch.setattr(_objects, "_BLOCK_BYTES", 100)
    path = bucket_folder / "file"
    storage.write_bytes(path, bytes(range(256)))
    assert storage.sha256(path) == "40aff2e9d2d8922e47afd4648e6967497158785fbd1da870e7110266bf944880"

    def read_while_it_changes():
        with storage.opened(path, most_bytes=1000) as (file, _):
            assert file.read(2) == b"\0\1"
            storage.write_bytes(path, bytes(256))
            file.read()

    with pytest.raises(_objects.ChangedError, match="412"):
        read_while_it_changes()


@pytest.mark.parametrize("fault", ["lost", "503"])
@pytest.mark.parametrize("at", ["/compose", "POST /upload.*part", "DELETE"])
def test_a_log_has_every_line_once(bucket_server, bucket_folder, fault, at):
    log = storage.log(bucket_folder / "log")
    for number in range(3):
        if number == 2:
            bucket_server.fail(fault, at=at)
        log.add(b"%d\n" % number)
        log.flush()
    assert storage.read_bytes(bucket_folder / "log") == b"0\n1\n2\n"
    assert list(storage.regular_files(bucket_folder)) == ["log"]


def test_a_log_that_cannot_be_written_keeps_its_lines(bucket_server, bucket_folder, monkeypatch):
    monkeypatch.setattr(_objects, "RETRY_SECONDS", 0.2)
    log = storage.log(bucket_folder / "log")
    with bucket_server.out_of_order():
        log.add(b"1\n")
        with pytest.raises(OSError, match=str(bucket_folder)):
            log.flush()
    assert log.waiting == 2
    log.add(b"2\n")
    log.flush()
    assert storage.read_bytes(bucket_folder / "log") == b"1\n2\n"


def test_a_log_has_every_line_once_after_a_request_that_was_given_up(bucket_server, bucket_folder, monkeypatch):
    """It was carried out; only its answers were lost, for as long as they were waited for."""
    log = storage.log(bucket_folder / "log", header=b"head\n")
    monkeypatch.setattr(_objects, "RETRY_SECONDS", 0.0)  # a random delay of 0 to 0.4 s is always too long
    for number, at in enumerate(["POST /upload", "/compose"]):
        bucket_server.fail("lost", at=at)
        log.add(b"%d\n" % number)
        with pytest.raises(OSError, match="log"):
            log.flush()
        log.add(b"more\n")
        log.flush()
        assert log.waiting == 0
    assert storage.read_bytes(bucket_folder / "log") == b"head\n0\nmore\n1\nmore\n"


def test_parts_of_a_process_that_was_killed_are_no_lines(bucket_folder):
    storage.write_text(bucket_folder / ".log.part.00", "2\n")
    storage.write_text(bucket_folder / "log", "1\n")
    log = storage.log(bucket_folder / "log")
    log.add(b"2\n")
    log.flush()
    assert storage.read_bytes(bucket_folder / "log") == b"1\n2\n"
    assert list(storage.regular_files(bucket_folder)) == ["log"]


def test_of_many_that_try_one_holds_the_lock(bucket_folder):
    held = []

    def try_it():
        lock = locks.lock_at(bucket_folder / "lock")
        try:
            lock.take(wait=False)
            held.append(lock)
        except BlockingIOError:
            pass

    threads = [threading.Thread(target=try_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1
    held[0].close()


def test_a_lock_whose_answer_was_lost_is_held(bucket_server, bucket_folder):
    lock = locks.lock_at(bucket_folder / "lock")
    bucket_server.fail("lost", at="POST /upload")
    assert lock.take(wait=False)
    bucket_server.fail("lost", at="POST /upload")
    lock.write(b"mine")
    assert lock.current(100) == b"mine"
    lock.close()
    assert not storage.exists(bucket_folder / "lock")


def test_a_lock_whose_holder_is_silent_for_a_lease_is_taken(bucket_folder, monkeypatch):
    monkeypatch.setattr(_bucket_lock.BucketLock, "lease_seconds", 0.3)
    first, second = (locks.lock_at(bucket_folder / "lock") for _ in range(2))
    first.take(wait=False)
    with pytest.raises(BlockingIOError):
        second.take(wait=False)
    assert second.take(wait=True)
    second.write(b"second")
    assert first.current(100) == b"second"  # before its next sign of life
    with pytest.raises(OSError, match="lock"):
        first.write(b"first")
    assert first.current(100) == b"second"
    first.close()
    assert second.current(100) == b"second" == storage.read_bytes(bucket_folder / "lock")
    second.close()


def test_a_holder_that_gives_signs_of_life_keeps_its_lock(bucket_folder, monkeypatch):
    monkeypatch.setattr(_bucket_lock.BucketLock, "lease_seconds", 1.0)
    monkeypatch.setattr(_bucket_lock, "_BEAT_SECONDS", 0.1)
    first, second = (locks.lock_at(bucket_folder / "lock") for _ in range(2))
    first.take(wait=False)
    for _ in range(6):
        with pytest.raises(BlockingIOError):
            second.take(wait=False)
        threading.Event().wait(0.25)
    first.close()


def test_the_lock_of_a_killed_process_of_this_machine_is_free_at_once(bucket_folder):
    command = [sys.executable, "-c", HOLDS, str(bucket_folder / "lock")]
    with subprocess.Popen(command, cwd=commands.ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        lock = locks.lock_at(bucket_folder / "lock")
        with pytest.raises(BlockingIOError):
            lock.take(wait=False)
        process.kill()
        process.wait()
        assert lock.take(wait=False)
        lock.close()


def test_a_process_that_proc_hides_has_not_ended(monkeypatch):
    """As of another user, where /proc is mounted with hidepid."""

    def hidden(process):
        raise FileNotFoundError(process)

    monkeypatch.setattr(_bucket_lock, "_start_of", hidden)
    with subprocess.Popen(["true"]) as ended:
        pass
    holders = [f"{_bucket_lock._processes()} {process} 1" for process in (os.getpid(), ended.pid)]
    assert [_bucket_lock._has_ended(holder) for holder in holders] == [False, True]


@pytest.mark.parametrize(
    "given",
    [
        "s3://bucket/run",
        "gs://bucket",
        "gs:/bucket/run",
        "gs://bucket/run/../x",
        *(f"gs://{name}/run" for name in ("ab", "Bucket", "a" * 64, "_ab", "ab-", "a..b", "10.0.0.1", "a b")),
    ],
)
def test_an_address_that_is_none_is_refused(given):
    with pytest.raises(checks.InputError, match=r"workdir: .*, or gs://BUCKET/NAME \(BUCKET: 3 to 63 .*; received"):
        storage.path("workdir", given)


@pytest.mark.parametrize("name", ["abc", "a_b-1", "a" * 63, "data.example.com", "1.2.3", "google-public"])
def test_names_of_buckets(name):
    assert str(storage.path("workdir", f"gs://{name}/run")) == f"gs://{name}/run"


def test_a_bucket_that_is_not_there(bucket_server):
    for look in (storage.exists, storage.numbered_folders):
        with pytest.raises(FileNotFoundError, match="there is no bucket no-such-bucket: 'gs://no-such-bucket/run"):
            look(storage.path("workdir", "gs://no-such-bucket/run"))
    with pytest.raises(checks.InputError, match=r"workdir: expected a folder of a bucket .* \(.*404"):
        storage.check_writable(storage.path("workdir", "gs://no-such-bucket/run"))
