"""What every place of files does alike: the disk and a bucket pass the same tests."""

import contextlib
import json
import threading

import numpy as np
import pytest

from vmoe_inform import storage
from vmoe_inform.storage import locks


@pytest.fixture(params=["disk", "bucket"])
def folder(request, tmp_path):
    """An empty folder of a place."""
    return tmp_path if request.param == "disk" else request.getfixturevalue("bucket_folder")


def names(folder):
    return sorted(storage.regular_files(folder))


def test_files_come_back(folder):
    path = folder / "a" / "file.json"
    assert not storage.exists(path)
    with pytest.raises(FileNotFoundError, match=r"file\.json"):
        storage.read_json(path)
    storage.write_json(path, {"a": [1]}, within=folder)
    storage.write_json(path, {"a": [2]}, within=folder)
    storage.write_arrays(folder / "x.npz", {"x": np.arange(3)}, within=folder, compressed=True)
    assert storage.read_json(path, within=folder) == {"a": [2]}
    np.testing.assert_array_equal(storage.read_arrays(folder / "x.npz")["x"], np.arange(3))
    assert storage.exists(path)
    assert storage.exists(path.parent)
    assert storage.is_folder(path.parent)
    assert not storage.is_folder(path)
    assert names(folder) == ["a/file.json", "x.npz"]
    with storage.opened(path, most_bytes=100) as (file, size):
        content = file.read()
        file.seek(size - 2)
        assert file.read() == content[-2:]
    assert json.loads(content) == {"a": [2]}
    with pytest.raises(storage.DamagedFileError, match="at most 5 bytes; received 23"):
        storage.read_bytes(path, most_bytes=5)


def test_what_fails_while_it_is_written_leaves_the_old_file(folder):
    storage.write_text(folder / "file", "old")
    with contextlib.suppress(ZeroDivisionError), storage.replacing(folder / "file") as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert storage.read_bytes(folder / "file") == b"old"
    assert names(folder) == ["file"]


def test_what_is_below_a_folder(folder):
    for name in ("3/state/x", "12/state/x", "12.tmp/x", "007/x", "x/a.svg", "x/b.png", "x/deep/a.svg", "5"):
        storage.write_text(folder / name, name)
    assert storage.numbered_folders(folder) == [3, 7, 12]
    assert storage.numbered_folders(folder / "nowhere") == storage.matching(folder / "nowhere", "*") == []
    assert storage.matching(folder, "x/*.svg") == [folder / "x" / "a.svg"]
    assert storage.matching(folder, "*.tmp") == [folder / "12.tmp"]
    assert storage.matching(folder / "x", "*") == [folder / "x" / name for name in ("a.svg", "b.png", "deep")]
    assert names(folder / "x") == ["a.svg", "b.png", "deep/a.svg"]
    for name in ("damaged_x", "damaged_x_2"):
        storage.write_text(folder / "x" / "new", "")
        assert storage.set_aside(folder / "x") == folder / name
    assert names(folder / "damaged_x") == ["a.svg", "b.png", "deep/a.svg", "new"]
    assert not storage.exists(folder / "x")
    storage.set_aside(folder / "5")
    for name in ("damaged_x", "damaged_x_2", "damaged_5", "nothing", "12.tmp"):
        storage.remove(folder / name)
    assert names(folder) == ["007/x", "12/state/x", "3/state/x"]


def test_a_file_that_grows(folder):
    path = folder / "a" / "log"
    log = storage.log(path, header=b"head\n", within=folder)
    for number in range(3):
        log.add(b"%d\n" % number)
    log.flush()
    assert log.waiting == 0
    other = storage.log(path, header=b"head\n", within=folder)
    other.add(b"3\n")
    other.flush()
    assert storage.read_bytes(path) == b"head\n0\n1\n2\n3\n"
    assert names(folder) == ["a/log"]
    storage.write_text(path, "cut\n", within=folder)  # as a run that resumes does
    third = storage.log(path)
    third.add(b"4\n")
    third.flush()
    assert storage.read_bytes(path) == b"cut\n4\n"


def test_a_lock_is_held_by_one(folder):
    path = folder / "lock"
    with contextlib.closing(locks.lock_at(path)) as first:
        assert first.take(wait=False)
        first.write(b"mine")
        assert first.current(100) == b"mine"
        second = locks.lock_at(path)
        with pytest.raises(BlockingIOError):
            second.take(wait=False)
        assert second.read(100) == b"mine"
        taken = threading.Thread(target=second.take, kwargs={"wait": True})
        taken.start()
        taken.join(0.05)
        assert taken.is_alive()
    taken.join()
    with pytest.raises(BlockingIOError):
        locks.lock_at(path).take(wait=False)
    second.close()
    with locks.held(folder / "results"):
        pass


def test_a_library_that_writes_by_itself(folder):
    with storage.local_folder(folder / "profile") as local:
        (local / "a").mkdir()
        (local / "a" / "trace").write_bytes(b"x")
    assert names(folder) == ["profile/a/trace"]


def test_a_place_that_can_be_written_to(folder):
    storage.check_writable(folder / "new")
    assert names(folder) == []
    assert storage.absolute(folder) == storage.resolved(folder) == folder


def test_what_is_printed_is_added(folder):
    for text in ("first\n", "second\n"):
        with storage.appending(folder / "run" / "log.txt", within=folder) as file:
            print(text, end="", file=file)
            assert file.fileno() > 2
    assert storage.read_bytes(folder / "run" / "log.txt") == b"first\nsecond\n"


@pytest.mark.parametrize("was_there", [False, True])
def test_a_folder_that_was_not_there_is_gone_after_an_error(folder, was_there):
    run = folder / "runs" / "1"
    if was_there:
        storage.write_text(run / "old", "")
    with contextlib.suppress(ZeroDivisionError), storage.gone_on_error(run):
        storage.write_text(run / "new", "")
        raise ZeroDivisionError
    assert storage.exists(folder / "runs") == was_there
    assert storage.exists(run / "old") == was_there
    with storage.gone_on_error(run):
        storage.write_text(run / "new", "")
    assert storage.exists(run / "new")


def test_a_file_that_can_be_written(folder):
    storage.make_folder(folder)
    storage.check_replaceable(folder / "file.json", "--json")
    assert names(folder) == []
    place = "gs://nobody" if str(folder).startswith("gs://") else str(folder / "missing")
    missing = storage.path("x", f"{place}/file.json")
    with pytest.raises(ValueError, match="--json: expected a "):
        storage.check_replaceable(missing, "--json")
