"""google-research/vmoe: ``PREFIX.index`` says which chunk of which array is in which ``PREFIX.data-00000-of-00003``.

All files are MessagePack. Besides flax's extension type of arrays, that program has its own: slices (5, 6), shapes (4)
and the entries of an index (8). The index has a version, or none if it is older. Both number the arrays by their order:
a version's is that of sorted names, the older one that of the file.
"""

import functools
import math
import re
from collections.abc import Mapping

import msgpack
import numpy as np

from vmoe_inform import checks, storage
from vmoe_inform.interop.formats import _vmoe_index, message_pack
from vmoe_inform.interop.formats._vmoe_index import Index, Slices
from vmoe_inform.interop.formats.base import Format, damaged, fetch_all, only, opened
from vmoe_inform.interop.stored import StoredArray, StoredCheckpoint
from vmoe_inform.storage import inputs

_EXPECTED_SHARD = "a shard of google-research/vmoe as its index describes it"
_MOST_INDEX_BYTES = 1 << 28  # 256 MiB; that of 10,000 arrays has 2
_CHUNKS = "__msgpack_array_chunk_a87ca2__"  # the first key of a shard
_SHARD = re.compile(r"(.+)\.data-\d{5}-of-\d{5}")
_TENSORFLOW = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"  # the end of TensorFlow's .index


class VMoeShards(Format):
    """An index and shards with a common prefix."""

    title = "google-research/vmoe (.index and .data-*)"

    def find(self, path: storage.Path) -> storage.Path | None:
        if inputs.is_folder(path):
            return only(path, "*.index")
        if shard := _SHARD.fullmatch(path.name):  # one of several
            path = path.with_name(shard[1])
        if inputs.is_file(path):
            return path if path.suffix == ".index" else None
        index = path.with_name(path.name + ".index")
        return index if inputs.is_file(index) else None

    def open(self, path: storage.Path) -> StoredCheckpoint:
        index = read_index(path)
        shards = [_shard(path, number, index.num_shards) for number in range(index.num_shards)]
        _check_shards(path, shards, index)
        locations = _Locations(shards, index)
        arrays = {
            name: StoredArray(entry.shape, entry.dtype, functools.partial(locations.read, number))
            for number, (name, entry) in enumerate(index.entries.items())
        }
        return StoredCheckpoint(str(path), "vmoe", arrays, {"version": index.version})


def read_index(path: storage.Path) -> Index:
    """What an index file says. Raises ValueError, in one line, if it is none."""
    with opened(path) as (file, size):
        if size > _MOST_INDEX_BYTES:
            raise damaged(path, f"an index of at most {_MOST_INDEX_BYTES:,} bytes", f"{size:,} bytes")
        data = file.read()
    if data.endswith(_TENSORFLOW):
        raise checks.error(str(path), "an index of google-research/vmoe", "one of TensorFlow's checkpoints")
    try:
        return _vmoe_index.read(data)
    except message_pack.ERRORS as problem:
        words = problem if str(problem) else "a file that ends too early"
        raise damaged(path, "an index of google-research/vmoe as it was written", words) from None


def _shard(index: storage.Path, number: int, count: int) -> storage.Path:
    return index.with_name(f"{index.name.removesuffix('.index')}.data-{number:05d}-of-{count:05d}")


def _check_shards(path: storage.Path, shards: list[storage.Path], index: Index) -> None:
    """All shards are there, and none is asked for more than it has."""
    fetch_all(path, shards)
    claimed = [0] * len(shards)
    for entry in index.entries.values():
        for slices, number in zip(entry.slices, entry.shards, strict=True):
            claimed[number] += _volume(slices) * entry.dtype.itemsize
    for shard, num_bytes in zip(shards, claimed, strict=True):
        size = inputs.size(inputs.local(shard))
        if num_bytes > size:
            raise damaged(
                shard, f"the {num_bytes:,} bytes of arrays that its index claims", f"a file of {size:,} bytes"
            )


def _volume(slices: Slices) -> int:
    return math.prod(stop - start for start, stop in slices)


class _Locations:
    """Where in the shards the chunks of each array are; a shard is looked through when it is first needed."""

    def __init__(self, shards: list[storage.Path], index: Index):
        self._shards, self._entries = shards, list(index.entries.values())
        self._found: dict[int, Mapping[int, list[int]]] = {}

    def read(self, number: int) -> np.ndarray:
        """The array of this number, put together from its chunks."""
        entry = self._entries[number]
        array, is_filled = np.empty(entry.shape, entry.dtype), np.zeros(entry.shape, bool)
        for shard in sorted(set(entry.shards)):
            path = self._shards[shard]
            if shard not in self._found:
                self._found[shard] = _look_through(path, len(self._entries))
            wanted = [slices for slices, of in zip(entry.slices, entry.shards, strict=True) if of == shard]
            try:
                self._fill(array, is_filled, wanted, path, self._found[shard].get(number, []))
            except message_pack.ERRORS as problem:
                raise damaged(path, _EXPECTED_SHARD, problem) from None
        if not np.all(is_filled):
            raise damaged(self._shards[0], f"chunks of all {entry.shape} values of array {number}", "fewer")
        return array

    @staticmethod
    def _fill(
        array: np.ndarray, is_filled: np.ndarray, wanted: list[Slices], path: storage.Path, offsets: list[int]
    ) -> None:
        if len(offsets) != len(wanted):
            raise ValueError(f"{len(offsets)} chunks in place of {len(wanted)}")
        for offset in offsets:
            with opened(path) as (file, _):
                file.seek(offset)
                slices, values = _read_chunk(message_pack.reader(file), array.dtype)
            if slices not in wanted:
                raise ValueError(f"a chunk of {slices} in place of one of {wanted}")
            where = tuple(slice(start, stop) for start, stop in slices)
            if np.any(is_filled[where]):
                raise ValueError(f"a chunk of {slices}, where another one is")
            array[where] = values.reshape(array[where].shape)
            is_filled[where] = True


def _look_through(path: storage.Path, num_arrays: int) -> dict[int, list[int]]:
    """Bytes at which the chunks of each array begin, by the array's number. No value is kept."""
    found: dict[int, list[int]] = {}
    with opened(path) as (file, _):
        unpacker = message_pack.reader(file)
        try:
            for _ in range(unpacker.read_map_header()):
                key = message_pack.of_type(unpacker, str)
                if key == _CHUNKS:
                    unpacker.skip()
                    continue
                number = int(key) if key.isdecimal() and len(key) < 10 else -1
                if number in found or not 0 <= number < num_arrays:
                    raise ValueError(f"the array {key!r}, twice or beyond the {num_arrays} of its index")
                found[number] = []
                for _ in range(unpacker.read_array_header()):
                    found[number].append(unpacker.tell())
                    unpacker.skip()
        except message_pack.ERRORS as problem:
            words = problem if str(problem) else "a file that ends too early"
            raise damaged(path, _EXPECTED_SHARD, words) from None
    return found


def _read_chunk(unpacker: msgpack.Unpacker, dtype: np.dtype) -> tuple[Slices, np.ndarray]:
    """A chunk of an array: where it belongs, and its values in one row."""
    message_pack.entries(unpacker, 2)
    parts = []
    for _ in range(unpacker.read_array_header()):
        parts.append(message_pack.array(unpacker).reshape(-1))
        if parts[-1].dtype != dtype:
            raise ValueError(f"values of type {parts[-1].dtype} in place of {dtype}")
    slices = _vmoe_index.read_slices(message_pack.extension(unpacker, _vmoe_index.SLICES))
    values = parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.zeros(0, dtype)
    if values.size != _volume(slices):
        raise ValueError(f"{values.size:,} values for {slices}")
    return slices, values
