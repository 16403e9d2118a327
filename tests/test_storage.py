"""Files of a run: whatever is in their place, reading ends at once, with what was written or with one line."""

import contextlib
import errno
import fcntl
import json
import os
import stat
import struct
import zipfile

import numpy as np
import pytest

from vmoe_inform import checks, storage
from vmoe_inform.storage import locks

ARRAYS = {
    "a": np.arange(6).reshape(2, 3),
    "names/of": np.array(["x", "ÿ"]),
    "none": np.zeros((0, 4)),
    "one": np.array(1),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "folder" / "file"


def npz_of(path, members, kind=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in members:
            archive.writestr(name, content)


def savez(path, **arrays):
    with path.open("wb") as file:
        np.savez(file, **arrays)


def whole_number(value):
    if not isinstance(value, int):
        raise ValueError("no whole number")
    return value


def npy(header: str, content: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + content


IN_ITS_PLACE = {
    "link": lambda path: path.symlink_to(path.parent / "other"),
    "link to nothing": lambda path: path.symlink_to("nowhere"),
    "link to itself": lambda path: path.symlink_to(path),
    "folder": lambda path: path.mkdir(),
    "pipe": lambda path: os.mkfifo(path),
}
JSON = {
    "empty": b"",
    "cut": b'{"a": [1, 2',
    "binary": b"\x00\xff\xfe\x93NUMPY",
    "of another encoding": '{"a": "é"}'.encode("utf-16"),
    "deep": b"[" * 1_000_000 + b"]" * 1_000_000,
    "65 levels": b"[" * 65 + b"]" * 65,
    "not a number": b'{"a": NaN}',
    "infinite": b'{"a": 1e999}',
    "huge": b'{"a": 1' + b"0" * 5000 + b"}",
    "more than 64 bits": b'{"a": 18446744073709551616}',
    "a key twice": b'{"a": 1, "b": 2, "a": 3}',
    # In time of the number of keys: with that of its square this takes hours
    "one of many keys twice": b"{%s}" % b",".join(b'"%d":0' % (key % 299_999) for key in range(300_000)),
    "two values": b"{} {}",
    "of another type": b'{"a": "1"}',
}
NPZ = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_bytes(b"no archive"),
    "one array": lambda path: path.write_bytes(
        npy("{'descr': '<i8', 'fortran_order': False, 'shape': ()}\n", bytes(8))
    ),
    "pickle": lambda path: path.write_bytes(b"cos\nsystem\n(S'false'\ntR."),
    "objects": lambda path: savez(path, a=np.array([{}], object)),
    "records": lambda path: savez(path, a=np.zeros(3, [("x", "i4")])),
    "no array": lambda path: npz_of(path, [("a.txt", b"text")]),
    "another kind of compression": lambda path: npz_of(path, [("a.npy", b"x" * 100)], zipfile.ZIP_LZMA),
    "more than its bytes": lambda path: npz_of(
        path, [("a.npy", npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}\n", bytes(8)))]
    ),
    "negative": lambda path: npz_of(
        path, [("a.npy", npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}\n", bytes(8)))]
    ),
    "deep header": lambda path: npz_of(path, [("a.npy", npy("(" * 9000))]),
    "header of something else": lambda path: npz_of(path, [("a.npy", npy("[1, 2]"))]),
    "no version": lambda path: npz_of(path, [("a.npy", b"\x93NUMPY\x09\x00")]),
    "bomb": lambda path: npz_of(path, [(f"{n}.npy", bytes(1 << 20)) for n in range(8)], zipfile.ZIP_DEFLATED),
}


@pytest.mark.parametrize("kind", IN_ITS_PLACE)
def test_only_files_are_opened(path, kind):
    path.parent.mkdir(parents=True)
    (path.parent / "other").write_text('{"secret": 1}')
    IN_ITS_PLACE[kind](path)
    for read in (storage.read_json, storage.read_arrays):
        with pytest.raises(storage.DamagedFileError, match=f"{path}: expected a file; received a "):
            read(path, within=path.parents[1])
    with pytest.raises(storage.DamagedFileError):
        storage.read_json_lines(path, str)
    with pytest.raises(storage.DamagedFileError):
        storage.appending(path)
    path.rename(path.with_name(".results.lock"))
    with pytest.raises(storage.DamagedFileError), locks.held(path.with_name("results")):
        pass


def test_a_lock_is_waited_for(path):
    with locks.held(path):
        other = locks.lock_at(path.with_name(f".{path.name}.lock"))
        with pytest.raises(BlockingIOError):
            other.take(wait=False)
    with contextlib.closing(other):
        assert other.take(wait=True)


def test_results_are_written_where_the_file_system_has_no_locks(path, monkeypatch, caplog):
    def no_lock(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "fcntl", no_lock)
    monkeypatch.setattr(fcntl, "flock", no_lock)
    with locks.held(path):
        storage.write_json(path, {"a": 1})
    assert storage.read_json(path) == {"a": 1}
    assert "this file system has no locks" in caplog.text


@pytest.mark.parametrize("kind", IN_ITS_PLACE)
def test_writing_replaces_whatever_is_there(path, kind):
    path.parent.mkdir(parents=True)
    (path.parent / "other").write_text("secret")
    IN_ITS_PLACE[kind](path)
    storage.write_json(path, {"a": 1}, within=path.parents[1])
    assert storage.read_json(path) == {"a": 1}
    assert (path.parent / "other").read_text() == "secret"
    assert sorted(os.listdir(path.parent)) == ["damaged_file"] * (kind == "folder") + ["file", "other"]


def test_a_device_is_never_replaced(path):
    path.parent.mkdir(parents=True)
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))  # as /dev/null
    except PermissionError:
        pytest.skip("only root can make a device")
    with pytest.raises(storage.DamagedFileError, match=f"{path}: expected a file; received a device or socket"):
        storage.write_json(path, {})
    assert path.is_char_device()
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("there", ["link", "file", "pipe"])
def test_folders_on_the_way_are_folders_of_the_run(path, tmp_path, there):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("{}")
    path.parents[1].mkdir()
    {
        "link": lambda: path.parent.symlink_to(outside),
        "file": lambda: path.parent.write_text(""),
        "pipe": lambda: os.mkfifo(path.parent),
    }[there]()
    run = path.parents[1]
    for use in (
        lambda: storage.read_json(path, within=run),
        lambda: storage.read_arrays(path.with_name("x.npz"), within=run),
        lambda: storage.matching(path.parent, "*", within=run),
        lambda: storage.write_text(path, "", within=run),
        lambda: storage.appending(path, within=run),
        lambda: storage.make_folder(path.parent, within=run),
        lambda: storage.make_folder(path.parent / "deeper", within=run),
    ):
        with pytest.raises(checks.InputError, match=rf"{path.parent}: expected a folder; received a"):
            use()
    assert os.listdir(outside) == ["file"]
    (tmp_path / "latest").symlink_to(run)  # the run's own folder may be a link
    storage.write_text(tmp_path / "latest" / "new", "x", within=tmp_path / "latest")
    assert (run / "new").read_text() == "x"


@pytest.mark.parametrize("kind", JSON)
def test_json_that_was_not_written_here(path, kind):
    path.parent.mkdir(parents=True)
    path.write_bytes(JSON[kind])
    with pytest.raises(storage.DamagedFileError, match=f"^{path}: expected JSON as it was written; received ") as found:
        storage.read_json(path, dict[str, int])
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 400
    values, problems = storage.read_json_lines(path, whole_number)
    assert values == []
    assert len(problems) == (1 if JSON[kind] else 0)


@pytest.mark.parametrize("kind", NPZ)
def test_arrays_that_were_not_written_here(path, kind, monkeypatch):
    path.parent.mkdir(parents=True)
    NPZ[kind](path)
    monkeypatch.setattr("vmoe_inform.storage.strict._MOST_UNPACKED_BYTES", 1 << 22)
    with pytest.raises(storage.DamagedFileError, match=f"^{path}: expected arrays as they were written; ") as found:
        storage.read_arrays(path)
    assert "\n" not in str(found.value)


def test_every_byte_of_an_archive_may_be_another(path):
    """Each byte changed in turn: what was written, or one line."""
    storage.write_arrays(path, {"a": np.arange(3)})
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            found = storage.read_arrays(path)
        except storage.DamagedFileError:
            continue
        for array in found.values():  # a name or a date
            np.testing.assert_array_equal(array, np.arange(3))
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(storage.DamagedFileError):
            storage.read_arrays(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_come_back(path, compressed):
    storage.write_arrays(path, ARRAYS | {"f": np.asfortranarray(ARRAYS["a"])}, compressed=compressed)
    found = storage.read_arrays(path)
    with np.load(path, allow_pickle=False) as file:  # by others too
        assert file.files == list(found)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    found["a"][0, 0] = 7  # and may be changed
    with pytest.raises(TypeError, match="'a' is an array of object"):
        storage.write_arrays(path, {"a": np.array([None])})
    assert os.listdir(path.parent) == ["file"]


def test_json_comes_back(path):
    value = {"a": [1, 2.5, None, True, "é\u2028"], "b": {"c": -(2**63), "d": 2**64 - 1}}
    storage.write_json(path, value)
    assert storage.read_json(path) == value == json.loads(path.read_text())
    with pytest.raises(ValueError, match="not JSON compliant"):
        storage.write_json(path, {"a": float("nan")})
    assert storage.read_json(path) == value
    with pytest.raises(storage.DamagedFileError, match="at most 10 bytes; received"):
        storage.read_json(path, most_bytes=10)


def test_lines_name_what_is_wrong(path):
    storage.write_text(path, '1\n\n"x"\n2\n[3')
    values, problems = storage.read_json_lines(path, whole_number)
    assert values == [1, 2]
    assert list(problems) == [2, 3, 5]  # a torn line of ours begins with a brace
    storage.write_text(path, '1\n{"step": 2, "lo')
    assert storage.read_json_lines(path, whole_number)[1].keys() == {0}


def test_files_are_for_the_group_to_read_as_the_umask_says(path):
    before = os.umask(0o027)
    try:
        storage.write_text(path, "x")
        storage.write_arrays(path.with_name("a.npz"), ARRAYS)
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o640}


def test_put_aside_twice(path):
    for name in ("damaged_file", "damaged_file_2"):
        storage.write_text(path, "x")
        assert storage.set_aside(path) == path.with_name(name)


def test_what_is_below_a_folder(tmp_path):
    for name in ("3", "12", "12.tmp", "x/3", "007"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "5").write_text("no folder")
    (tmp_path / "x" / "a.svg").write_text("")
    assert storage.numbered_folders(tmp_path) == [3, 7, 12]
    assert storage.numbered_folders(tmp_path / "nowhere") == storage.matching(tmp_path / "nowhere", "*") == []
    assert storage.matching(tmp_path, "x/*.svg") == [tmp_path / "x" / "a.svg"]
    assert sorted(storage.regular_files(tmp_path)) == ["5", "x/a.svg"]
    os.mkfifo(tmp_path / "x" / "3" / "pipe")
    with pytest.raises(storage.DamagedFileError, match=r"x/3/pipe: expected a file or folder; received a named pipe"):
        list(storage.regular_files(tmp_path))
    (tmp_path / "link").symlink_to(tmp_path / "x")
    with pytest.raises(storage.DamagedFileError, match=r"link: expected a folder; received a symbolic link"):
        list(storage.regular_files(tmp_path / "link"))


def test_removing_follows_no_link(tmp_path):
    (tmp_path / "kept" / "inside").mkdir(parents=True)
    (tmp_path / "folder").mkdir()
    for name in ("link", "folder/link"):
        (tmp_path / name).symlink_to(tmp_path / "kept")
    for name in ("link", "folder", "nothing"):
        storage.remove(tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["inside", "kept"]
