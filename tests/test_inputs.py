"""Files that users name: the disk and a bucket answer alike, and a fetched copy is whole or not there."""

import errno
import os
import re
import threading
import types

import pytest

from tests.bucket_server import BUCKET
from vmoe_inform import checks, storage
from vmoe_inform.storage import _fetched, _objects, inputs

FILES = {"a/x.txt": b"first", "a/y.txt": b"", "a/deep/z.txt": b"third", "b.txt": b"fourth"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vmoe_inform" / "buckets"


@pytest.fixture(params=["disk", "bucket"])
def folder(request, tmp_path):
    folder = tmp_path / "data" if request.param == "disk" else request.getfixturevalue("bucket_folder")
    for name, content in FILES.items():
        storage.write_bytes(folder / name, content)
    return folder


@pytest.fixture
def in_bucket(bucket_folder):
    storage.write_bytes(bucket_folder / "file", bytes(range(100)))
    return bucket_folder / "file"


def test_what_is_there(folder):
    assert sorted(inputs.entries(folder)) == [("a", True, False), ("b.txt", False, True)]
    listed = [sorted(entry.name for entry in found) for found in inputs.entries_of_each([folder / "a", folder])]
    assert listed == [["deep", "x.txt", "y.txt"], ["a", "b.txt"]]
    assert (inputs.is_folder(folder / "a"), inputs.is_file(folder / "a")) == (True, False)
    assert (inputs.is_folder(folder / "b.txt"), inputs.is_file(folder / "b.txt")) == (False, True)
    assert inputs.size(folder / "b.txt") == 6
    for use in (inputs.entries, inputs.read_bytes, inputs.size):
        with pytest.raises(FileNotFoundError, match="missing"):
            use(folder / "missing")


def test_files_are_read_and_fetched(folder):
    assert inputs.read_bytes(folder / "a" / "x.txt") == b"first"
    assert [inputs.first_bytes(folder / "a" / name, 3) for name in ("x.txt", "y.txt")] == [b"fir", b""]
    local = inputs.local_each([folder / name for name in FILES])
    assert [path.read_bytes() for path in local] == list(FILES.values())
    assert (inputs.local_folder(folder) / "a" / "deep" / "z.txt").read_bytes() == b"third"


def test_a_setting_that_names_nothing(folder):
    missing = str(folder / "missing")
    with pytest.raises(FileNotFoundError, match=r"data\.directory: expected a folder with x; received '.*missing'"):
        inputs.existing_folder("data.directory", missing, "a folder with x")
    with pytest.raises(FileNotFoundError, match=r"--config: expected a file; received '.*', where no file is"):
        inputs.existing_file("--config", missing, "a file")


def test_links_are_followed(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    (tmp_path / "broken").symlink_to("nothing")
    assert sorted(inputs.entries(tmp_path)) == [("broken", False, False), ("data", True, False), ("link", True, False)]


def test_a_copy_is_fetched_once_and_again_when_the_object_is_replaced(bucket_server, in_bucket, caplog):
    caplog.set_level("INFO")
    first = inputs.local(in_bucket)
    assert "100 bytes, into " in caplog.text
    before = len(bucket_server.requests)
    assert inputs.local(in_bucket) == first
    assert len(bucket_server.requests) == before + 1  # which generation there is
    storage.write_bytes(in_bucket, bytes(100))  # of the same size
    assert inputs.local(in_bucket).read_bytes() == bytes(100)
    first.write_bytes(b"half")
    assert inputs.local(in_bucket).read_bytes() == bytes(100)


@pytest.mark.parametrize("fault", ["dropped", "lost", "cut"])
def test_a_connection_that_is_lost_gives_no_short_file(bucket_server, in_bucket, monkeypatch, fault):
    monkeypatch.setattr(_fetched, "_BLOCK_BYTES", 40)
    for use in (inputs.read_bytes, lambda path: inputs.local(path).read_bytes()):
        bucket_server.fail(fault, at="GET .*alt=media")
        assert use(in_bucket) == bytes(range(100))


def test_what_was_fetched_before_the_connection_was_lost_is_continued(bucket_server, in_bucket, cache, monkeypatch):
    monkeypatch.setattr(_fetched, "_BLOCK_BYTES", 40)
    part = _objects.read_part
    asked = []

    def lost_at_40(path, found, start, end):
        asked.append(start)
        if start == 40 and asked.count(40) == 1:
            raise OSError(5, "lost", str(path))
        return part(path, found, start, end)

    monkeypatch.setattr(_objects, "read_part", lost_at_40)
    with pytest.raises(storage.OutOfReachError, match=r"lost: 'gs://.*/file'"):
        inputs.local(in_bucket)
    assert not _fetched.place_of(in_bucket).exists()
    assert inputs.local(in_bucket).read_bytes() == bytes(range(100))
    assert asked == [0, 40, 40, 80]
    assert not list(cache.rglob("*.part"))


@pytest.fixture
def at_40(monkeypatch):
    """Calls a function, once, when the bytes from 40 on are about to be fetched."""
    monkeypatch.setattr(_fetched, "_BLOCK_BYTES", 40)
    acts, part = [], _objects.read_part

    def read_part(path, found, start, end):
        if start == 40 and acts:
            acts.pop()()
        return part(path, found, start, end)

    monkeypatch.setattr(_objects, "read_part", read_part)
    return acts.append


def test_an_object_that_is_replaced_while_it_is_fetched_is_fetched_again(in_bucket, at_40):
    at_40(lambda: storage.write_bytes(in_bucket, b"new"))
    assert inputs.local(in_bucket).read_bytes() == b"new"


def test_an_object_that_is_deleted_while_it_is_fetched_is_named(in_bucket, at_40):
    at_40(lambda: storage.remove(in_bucket))
    with pytest.raises(FileNotFoundError, match=str(in_bucket)):
        inputs.local(in_bucket)


def test_what_nobody_waits_for_any_more_is_not_fetched(in_bucket, cache, at_40):
    found, abandoned = _objects.find(in_bucket), threading.Event()
    at_40(abandoned.set)
    _fetched.fetch(in_bucket, found, abandoned)
    assert [part.read_bytes() for part in cache.rglob("*.part")] == [bytes(range(80))]
    with _fetched._locked(in_bucket, threading.Event()):
        _fetched.fetch(in_bucket, found, abandoned)  # nor waits for whoever holds the lock
    assert not _fetched.is_here(in_bucket, found)


def test_an_error_ends_what_else_is_fetched(in_bucket, monkeypatch):
    begun, ended = threading.Event(), threading.Event()

    def fetch(path, _, abandoned):
        if path.name == "second":
            assert begun.wait(10)
            raise OSError(errno.EIO, "lost")
        begun.set()
        if abandoned.wait(10):
            ended.set()

    monkeypatch.setattr(_fetched, "fetch", fetch)
    storage.write_bytes(in_bucket.with_name("second"), b"2")
    with pytest.raises(storage.OutOfReachError, match="lost"):
        inputs.local_each([in_bucket, in_bucket.with_name("second")])
    assert ended.is_set()


def test_a_part_with_other_bytes_is_no_copy(in_bucket):
    part = _fetched._part(in_bucket, _objects.find(in_bucket))
    part.parent.mkdir(parents=True)
    part.write_bytes(b"\xff" * 50)
    with pytest.raises(storage.DamagedFileError, match="expected 100 bytes with CRC-32C"):
        inputs.local(in_bucket)
    assert inputs.local(in_bucket).read_bytes() == bytes(range(100))


def test_what_does_not_fit_is_said_before_it_is_fetched(in_bucket, monkeypatch):
    monkeypatch.setattr(_fetched.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=99))
    with pytest.raises(OSError, match=r"100 bytes do not fit into .*, where 99 are free; \$XDG_CACHE_HOME moves it"):
        inputs.local(in_bucket)


@pytest.mark.parametrize("name", ["../../x", "a/../x", "y" * 256])
def test_a_name_cannot_leave_the_cache(bucket_folder, name):
    with pytest.raises(checks.InputError, match="expected a name of parts that a disk can have"):
        _fetched.place_of(bucket_folder / name)


def test_whoever_does_not_hold_the_lock_waits(in_bucket):
    found = _objects.find(in_bucket)
    part = _fetched._part(in_bucket, found)
    part.parent.mkdir(parents=True)
    with _fetched._locked(in_bucket, threading.Event()):
        waiting = threading.Thread(target=_fetched.fetch, args=(in_bucket, found, threading.Event()))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        assert not _fetched.is_here(in_bucket, found)
    waiting.join()
    assert _fetched.is_here(in_bucket, found)


def test_a_full_disk_is_named(in_bucket, monkeypatch):
    def no_space(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_fetched.os, "fsync", no_space)
    with pytest.raises(OSError, match=r"No space left on device: '.*\.part'"):
        inputs.local(in_bucket)


def test_copies_of_what_was_deleted_are_in_no_folder(in_bucket):
    storage.write_bytes(in_bucket.parent / "1.0" / "old", b"old")
    folder = inputs.local_folder(in_bucket.parent)
    storage.remove(in_bucket.parent / "1.0")
    inputs.local_folder(in_bucket.parent, without=re.compile("file"))
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_names_that_no_path_has_are_not_below_a_folder(bucket_folder):
    """Joined to the folder, they would name a file of this machine, or an object of another bucket."""
    _objects._bucket(bucket_folder).blob(f"{_objects.name_of(bucket_folder)}//x/{BUCKET}/other").upload_from_string(b"")
    other = storage.path("other", f"gs://{BUCKET}/other")
    storage.write_bytes(other, b"other's")
    assert inputs.local_folder(bucket_folder) == _fetched.place_of(bucket_folder)
    storage.remove(bucket_folder)
    assert storage.read_bytes(other) == b"other's"


def test_an_object_that_comes_unpacked_is_refused(in_bucket):
    blob = _objects._bucket(in_bucket).get_blob(_objects.name_of(in_bucket))
    blob.content_encoding = "gzip"
    blob.patch()
    with pytest.raises(checks.InputError, match=r"/file: expected an object without Content-Encoding .* 'gzip'"):
        inputs.local(in_bucket)


def test_no_permission_any_more_is_no_damaged_record(bucket_server, in_bucket):
    bucket_server.fail("403", at="GET .*alt=media")
    with pytest.raises(storage.OutOfReachError, match=str(in_bucket)):
        inputs.read_bytes(in_bucket)


def test_a_bucket_out_of_reach_is_no_damaged_record(bucket_server, in_bucket, monkeypatch):
    monkeypatch.setattr(_objects, "RETRY_SECONDS", 0.2)
    with bucket_server.out_of_order(), pytest.raises(storage.OutOfReachError, match=str(in_bucket)):
        inputs.read_bytes(in_bucket)
    assert not issubclass(storage.OutOfReachError, OSError)
