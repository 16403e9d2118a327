"""Readers give what was written, and refuse what is damaged or hostile in one line and little memory."""

import json
import pathlib
import pickle
import resource
import struct
import tracemalloc
import zipfile

import ml_dtypes
import msgpack
import numpy as np
import pytest

from tests.interop import checkpoint_files as files
from vmoe_inform import checks, storage
from vmoe_inform.interop import formats

_MOST_BYTES = 6_000_000  # that the refusal of a file of at most one million bytes may take

ARRAYS = {
    "b/kernel": np.arange(24, dtype=np.float32).reshape(4, 3, 2),
    "b/bias": np.arange(3, dtype=np.float32),
    "a": np.array(7, np.int64),
    "c/half": np.arange(6, dtype=np.float32).reshape(1, 6).astype(ml_dtypes.bfloat16),
    "empty": np.zeros((0, 3), np.float32),
}


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    checkpoint = formats.open_checkpoint(path)
    read = {name: array.read() for name, array in checkpoint.arrays.items()}
    assert {name: (array.shape, array.dtype) for name, array in checkpoint.arrays.items()} == {
        name: (array.shape, array.dtype) for name, array in read.items()
    }
    return read


def save(name: str, folder: pathlib.Path) -> pathlib.Path:
    """The arrays in a format."""
    if name == "npz":
        np.savez(folder / "arrays.npz", **ARRAYS)
        return folder / "arrays.npz"
    if name == "npz, compressed":
        np.savez_compressed(folder / "arrays.npz", **ARRAYS)
        return folder / "arrays.npz"
    if name == "safetensors":
        return files.save_safetensors(folder / "model.safetensors", ARRAYS)
    if name == "vmoe, older":
        return files.save_shards(folder / "ckpt_7", ARRAYS, version=None)
    return files.save_shards(folder / "ckpt_7", ARRAYS, in_parts=name == "vmoe, in parts")


KINDS = ["npz", "npz, compressed", "safetensors", "vmoe", "vmoe, older", "vmoe, in parts"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_written_is_read_bit_for_bit(kind, tmp_path):
    found = read(save(kind, tmp_path))
    assert {name: (array.dtype, array.shape) for name, array in found.items()} == {
        name: (array.dtype, array.shape) for name, array in ARRAYS.items()
    }
    assert all(found[name].tobytes() == array.tobytes() for name, array in ARRAYS.items())


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_or_link_is_as_good_as_its_file(kind, tmp_path):
    (tmp_path / "inside").mkdir()
    path = save(kind, tmp_path / "inside")
    assert formats.open_checkpoint(tmp_path / "inside").shapes == formats.open_checkpoint(path).shapes
    if kind.startswith("vmoe"):
        assert formats.open_checkpoint(f"{path}.index").shapes == formats.open_checkpoint(path).shapes
    else:
        (tmp_path / "link").symlink_to(path)
        assert formats.open_checkpoint(tmp_path / "link").shapes == formats.open_checkpoint(path).shapes


@pytest.mark.parametrize("kind", ["npz", "safetensors", "vmoe"])
def test_a_checkpoint_of_a_bucket(kind, tmp_path, bucket_folder, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    path = save(kind, tmp_path / "here")
    for file in path.parent.iterdir():
        storage.write_bytes(bucket_folder / file.name, file.read_bytes())
    for given in (bucket_folder, bucket_folder / path.name):
        found = read(str(given))
        assert {name: array.tobytes() for name, array in found.items()} == {
            name: array.tobytes() for name, array in ARRAYS.items()
        }
    storage.write_bytes(bucket_folder / "other" / "model.pt", pickle.dumps([1]))
    for given, words in (("other", "a pickle, which runs code"), ("missing", "which is not there")):
        with pytest.raises((ValueError, FileNotFoundError), match=f"--from: expected .*gs://.*{words}"):
            formats.open_checkpoint(str(bucket_folder / given))


def test_safetensors_bring_their_description_and_may_be_several(tmp_path):
    (tmp_path / "config.json").write_text('{"num_attention_heads": 6}')
    (tmp_path / "preprocessor_config.json").write_text('{"resample": 2}')
    first, second = (dict(list(ARRAYS.items())[part]) for part in (slice(2), slice(2, None)))
    files.save_safetensors(tmp_path / "one.safetensors", first, {"__metadata__": {"format": "pt"}})
    files.save_safetensors(tmp_path / "two.safetensors", second)
    where = dict.fromkeys(first, "one.safetensors") | dict.fromkeys(second, "two.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    checkpoint = formats.open_checkpoint(tmp_path)
    assert checkpoint.shapes == {name: array.shape for name, array in ARRAYS.items()}
    assert checkpoint.description == {
        "metadata": {"format": "pt"},
        "config": {"num_attention_heads": 6},
        "preprocessor": {"resample": 2},
    }
    assert checkpoint.arrays["a"].read() == 7


def test_an_array_of_an_older_index_is_known_by_its_place_in_the_file(tmp_path):
    """``b`` before ``a``: sorted names would exchange them."""
    arrays = {"params/b": np.zeros(4, np.float32), "params/a": np.ones(4, np.float32)}
    found = read(files.save_shards(tmp_path / "old", arrays, version=None))
    assert found["params/b"].sum() == 0
    assert found["params/a"].sum() == 4


# --------------------------------------------------------------------------------------------------------- bad input


def refusal(path: pathlib.Path) -> str:
    """What is said of a file that is refused, by opening it or by reading its arrays; in one line, in little memory."""
    tracemalloc.start()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with pytest.raises((checks.InputError, FileNotFoundError)) as caught:
            read(path)
        assert tracemalloc.get_traced_memory()[1] < _MOST_BYTES
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64_000  # kB: what Python does not count
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1500
    assert "expected" in message
    assert "received" in message
    return message


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_refused(kind, share, tmp_path):
    save(kind, tmp_path)
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])
        assert path.name.split(".")[0] in refusal(tmp_path / "ckpt_7" if kind.startswith("vmoe") else path)
        path.write_bytes(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bytes_never_end_in_anything_but_arrays_or_one_line(kind, tmp_path):
    save(kind, tmp_path)
    random = np.random.default_rng(0)
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for position in random.integers(len(whole), size=12):
            changed = bytearray(whole)
            changed[position] ^= int(random.integers(1, 256))
            path.write_bytes(bytes(changed))
            try:
                read(tmp_path / "ckpt_7" if kind.startswith("vmoe") else path)
            except (checks.InputError, FileNotFoundError) as problem:
                assert "\n" not in str(problem)  # noqa: PT017 - most flips are in values, which are read as they are
        path.write_bytes(whole)


def test_an_index_that_claims_terabytes_is_refused(tmp_path):
    entry = files.pack_entry([10 << 20, 1 << 18], "float32", [[(0, 10 << 20), (0, 1 << 18)]], [0])
    files.write_shards(tmp_path / "big", {"shard_count": 1, "index": {"a": entry}, "version": "20220622"}, [{}])
    assert "expected the 10,995,116,277,760 bytes of arrays that its index claims" in refusal(tmp_path / "big")


def test_missing_shards_are_named(tmp_path):
    files.save_shards(tmp_path / "ckpt", ARRAYS)
    (tmp_path / "ckpt.data-00001-of-00002").unlink()
    assert "none called ckpt.data-00001-of-00002" in refusal(tmp_path / "ckpt")


def bombs() -> dict[str, bytes]:
    """MessagePack that claims much in few bytes."""
    array, table, ext = b"\xdd\x00\x0f\xff\xff", b"\xdf\x00\x0f\xff\xff", b"\xc9\x7f\xff\xff\xff\x08"
    key, index = b"\xa1a", b"\x82\xa5index"
    return {
        "nested arrays": array * 2000 + bytes(1 << 20),
        "nested maps": (table + key) * 2000,
        "an index of nested arrays": index + array * 2000 + bytes(1 << 20),
        "an index of nested maps": index + (table + key) * 5000,
        "an index of a long extension": index + ext,
        "bomb in an entry": index + msgpack.packb(msgpack.ExtType(8, array * 2000 + bytes(1 << 20))),
        "another version": msgpack.packb({"shard_count": 1, "index": {}, "version": "20990101"}),
        "shards without end": msgpack.packb({"shard_count": 2**60, "index": {}, "version": None}),
        "no shard": msgpack.packb({"shard_count": 0, "index": {}}),
        "text": msgpack.packb("text"),
        "another key": msgpack.packb({"shard_count": 1, "index": {}, "code": "import os"}),
        "objects": msgpack.packb({"shard_count": 1, "index": {"a": files.pack_entry([1], "object", [[(0, 1)]], [0])}}),
        "a chunk outside": msgpack.packb(
            {"shard_count": 1, "index": {"a": files.pack_entry([2], "float32", [[(1, 3)]], [0])}}
        ),
        "a shard that is none": msgpack.packb(
            {"shard_count": 1, "index": {"a": files.pack_entry([2], "float32", [[(0, 2)]], [1])}}
        ),
        "too few chunks": msgpack.packb({"shard_count": 1, "index": {"a": files.pack_entry([2], "float32", [], [])}}),
        "TensorFlow's": bytes(100) + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb",
    }


@pytest.mark.parametrize("name", bombs())
def test_hostile_indices_are_refused(name, tmp_path):
    (tmp_path / "bomb.index").write_bytes(bombs()[name])
    (tmp_path / "bomb.data-00000-of-00001").write_bytes(bytes(100))
    assert "bomb.index" in refusal(tmp_path / "bomb")


def shard(*chunks: object, number: str = "0") -> dict[str, object]:
    return {files.CHUNKS: True, number: list(chunks)}


VALUES = files.pack_array(np.ones(2, np.float32))
HALF, OTHER_HALF = (msgpack.ExtType(6, files.pack_slices([one])) for one in ((0, 2), (2, 4)))


@pytest.mark.parametrize(
    "content",
    [
        shard([[VALUES], HALF]),
        shard([[VALUES], HALF], [[VALUES], HALF]),
        shard([[VALUES], HALF], [[VALUES, VALUES], OTHER_HALF]),
        shard([[VALUES], HALF], [[files.pack_array(np.ones(2, np.float64))], OTHER_HALF]),
        shard([[VALUES], HALF], [[VALUES], msgpack.ExtType(6, files.pack_slices([(3, 5)]))]),
        shard([[VALUES], HALF], [[VALUES], msgpack.ExtType(5, b"")]),
        shard([[VALUES], HALF], [[msgpack.ExtType(1, msgpack.packb(([2], "object", b"12345678")))], OTHER_HALF]),
        shard([[VALUES], HALF], [[msgpack.ExtType(1, msgpack.packb(([9], "float32", b"12345678")))], OTHER_HALF]),
        shard([[VALUES], HALF], [[VALUES]]),
        shard([[VALUES], HALF], [[VALUES], OTHER_HALF], number="1"),
        shard([[VALUES], HALF], [[VALUES], OTHER_HALF], number="x"),
        {},
        [1, 2],
    ],
    ids=map(str, range(13)),
)
def test_shards_other_than_their_index_says_are_refused(content, tmp_path):
    slices = [[(0, 2)], [(2, 4)]]
    index = {"shard_count": 1, "index": {"a": files.pack_entry([4], "float32", slices, [0, 0])}, "version": "20220622"}
    whole = shard([[VALUES], HALF], [[VALUES], OTHER_HALF])
    files.write_shards(tmp_path / "ckpt", index, [whole])
    assert read(tmp_path / "ckpt")["a"].tolist() == [1, 1, 1, 1]
    padding = bytes(16)  # so that it is not refused for its size
    (tmp_path / "ckpt.data-00000-of-00001").write_bytes(msgpack.packb(content) + padding)
    assert "ckpt.data-00000-of-00001" in refusal(tmp_path / "ckpt")


def test_a_shard_of_nested_arrays_is_refused(tmp_path):
    files.save_shards(tmp_path / "ckpt", ARRAYS)
    for number in range(files.SHARDS):
        path = tmp_path / f"ckpt.data-0000{number}-of-00002"
        path.write_bytes(b"\x81\xa10" + b"\xdd\x00\x0f\xff\xff" * 2000 + bytes(1 << 20))
    assert "ckpt.data-0000" in refusal(tmp_path / "ckpt")


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, "where those before end at"),  # overlaps
        ({"b": {"dtype": "F32", "shape": [2], "data_offsets": [12, 20]}}, "where those before end at"),  # a gap
        ({"b": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [8, 8 + (4 << 40)]}}, "bytes in 16"),
        ({"b": {"dtype": "F32", "shape": [3], "data_offsets": [8, 16]}}, "for F32 of shape"),
        ({"b": {"dtype": "F32", "shape": [-2], "data_offsets": [8, 16]}}, "shape"),
        ({"b": {"dtype": "F32", "shape": [True, 2], "data_offsets": [8, 16]}}, "shape"),
        ({"b": {"dtype": "OBJECT", "shape": [2], "data_offsets": [8, 16]}}, "dtype"),
        ({"b": {"dtype": ["F32"], "shape": [2], "data_offsets": [8, 16]}}, "dtype"),
        ({"b": {"dtype": "F32", "shape": [2] + [1] * 40, "data_offsets": [8, 16]}}, "expected at most 32 axes"),
        ({"b": {"dtype": "F32", "shape": [0, 2**63], "data_offsets": [8, 8]}}, "bytes in"),
        ({"c": {"dtype": "F32", "shape": [0, 2**63], "data_offsets": [16, 16]}}, "axes of at most 281,474,976,710,656"),
        ({"b": {"dtype": "F32", "shape": [2], "data_offsets": [16, 8]}}, "data_offsets"),
        ({"b": {"dtype": "F32", "shape": [2]}}, "expected dtype, shape and data_offsets"),
        ({"b": []}, "expected dtype, shape and data_offsets"),
        ({"__metadata__": {"format": 3}}, "__metadata__"),
    ],
)
def test_hostile_safetensors_are_refused(header, words, tmp_path):
    arrays = {"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)}
    assert words in refusal(files.save_safetensors(tmp_path / "model.safetensors", arrays, header))


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 3) + b"[1]",
        struct.pack("<Q", 30) + b"{" + b'"a":' * 7 + b" ",
        struct.pack("<Q", 100_000) + b"[" * 100_000,
        struct.pack("<Q", 2) + b"{}extra",
    ],
    ids=["length", "no object", "no JSON", "deep", "more bytes"],
)
def test_hostile_headers_of_safetensors_are_refused(content, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(content)
    assert "model.safetensors" in refusal(tmp_path / "model.safetensors")


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "sub/one.safetensors", "one.bin"])
def test_an_index_of_safetensors_names_files_of_its_folder_only(name, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    assert "in its own folder" in refusal(tmp_path)


class _Hostile:
    def __reduce__(self):
        return (pathlib.Path.touch, (pathlib.Path("executed"),))


@pytest.mark.parametrize("name", ["model.pth", "model.npz", "pytorch_model.bin", "model"])
@pytest.mark.parametrize("protocol", [2, 4, "zip", "npz of objects"])
def test_pickles_are_refused_and_not_run(name, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    if protocol == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(_Hostile()))
    elif protocol == "npz of objects":
        with path.open("wb") as file:
            np.savez(file, a=np.array([_Hostile()], object))
    else:
        path.write_bytes(pickle.dumps(_Hostile(), protocol=protocol))
    words = "of type '|O'" if protocol == "npz of objects" else "a pickle, which runs code when it is read"
    assert words in refusal(path)
    assert not (tmp_path / "executed").exists()


def test_an_index_of_safetensors_whose_files_are_missing_is_one_line(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "1.safetensors"}}))
    assert "none called 1.safetensors" in refusal(tmp_path)


def test_a_shard_stands_for_its_checkpoint(tmp_path):
    files.save_shards(tmp_path / "ckpt", ARRAYS)
    assert formats.open_checkpoint(tmp_path / "ckpt.data-00001-of-00002").shapes.keys() == ARRAYS.keys()


@pytest.mark.parametrize("kind", ["npz", "safetensors", "vmoe"])
def test_logits_in_the_folder_of_a_checkpoint_are_none(kind, tmp_path):
    save(kind, tmp_path)
    np.savez(tmp_path / "expected.npz", images=np.zeros((1, 2, 2, 3)), logits=np.zeros((1, 2)))
    assert formats.open_checkpoint(tmp_path).shapes.keys() == ARRAYS.keys()


def test_a_folder_of_pickles_says_so(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps([1]))
    assert "pytorch_model.bin, a pickle, which runs code" in refusal(tmp_path)


def test_an_npz_of_zeros_that_would_fill_the_memory_is_refused(tmp_path):
    header = b"\x93NUMPY\x01\x00v\x00" + b"{'descr':'|u1','fortran_order':False,'shape':(1073741824,)}".ljust(118)
    with zipfile.ZipFile(tmp_path / "zeros.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header)
    content = (tmp_path / "zeros.npz").read_bytes()
    whole = content.replace(struct.pack("<I", 128), struct.pack("<I", 128 + (1 << 30)))  # with values, a MB of file
    (tmp_path / "zeros.npz").write_bytes(whole)
    assert "arrays of 1,073,741,824 bytes, compressed to" in refusal(tmp_path / "zeros.npz")


def test_an_npz_bomb_is_refused(tmp_path):
    header = b"\x93NUMPY\x01\x00v\x00" + b"{'descr':'|u1','fortran_order':False,'shape':(5000000000,)}".ljust(118)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header)
    content = (tmp_path / "bomb.npz").read_bytes()
    claimed = content.replace(struct.pack("<I", 128), struct.pack("<I", 2**32 - 2))
    (tmp_path / "bomb.npz").write_bytes(claimed)
    assert "bomb.npz" in refusal(tmp_path / "bomb.npz")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.h5", b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        ("one.npy", b"\x93NUMPY\x01\x00", "one array"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        ("flax_model.msgpack", b"\x81\xa6params", "a file of Flax"),
        ("notes.txt", b"text", "expected one checkpoint, as NumPy"),
    ],
)
def test_other_files_are_refused_with_a_reason(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert words in refusal(tmp_path / name)


def test_folders_with_several_or_none_and_runs_are_refused(tmp_path):
    assert "expected one checkpoint" in refusal(tmp_path)
    save("npz", tmp_path)
    save("safetensors", tmp_path)
    assert "a folder with npz, safetensors" in refusal(tmp_path)
    np.savez(tmp_path / "second.npz", **ARRAYS)
    assert "expected one of the files *.npz" in refusal(tmp_path)
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.json").write_text("{}")
    assert "a run's folder, which needs no import" in refusal(run)
    assert "which is not there" in refusal(tmp_path / "missing")
