"""The index of google-research/vmoe: shape and type of each array, and which of its chunks is in which shard."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import msgpack
import numpy as np

from vmoe_inform.interop.formats import message_pack

Slices: TypeAlias = tuple[tuple[int, int], ...]  # start and stop of a chunk along each axis

SLICES = 6  # extension types
_ENTRY = 8
_VERSIONS = (None, "20220622")
_MOST_LEVELS = 64
_MOST_SHARDS = 99_999  # of five digits


@dataclasses.dataclass(frozen=True)
class Entry:
    """An array: its shape and type, and for each of its chunks where it belongs and the number of its shard."""

    shape: tuple[int, ...]
    dtype: np.dtype
    slices: tuple[Slices, ...]
    shards: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Index:
    """All arrays by name, in the order of their numbers."""

    version: str | None
    num_shards: int
    entries: Mapping[str, Entry]


def read(data: bytes) -> Index:
    """Reads an index.

    Args:
      data: the file.

    Raises:
      ValueError, msgpack.UnpackException: it is none.
    """
    unpacker = message_pack.reader_of(data)
    version, num_shards, entries = None, None, None
    for _ in range(unpacker.read_map_header()):
        key = message_pack.of_type(unpacker, str)
        if key == "version":
            version = unpacker.unpack()
        elif key == "shard_count":
            num_shards = message_pack.size(unpacker)
        elif key == "index":
            entries = list(_walk(data, unpacker, ()))
        else:
            raise ValueError(f"the key {key!r}")
    if version not in _VERSIONS:
        raise ValueError(f"version {version!r}, which is none of {', '.join(map(str, _VERSIONS))}")
    if num_shards is None or entries is None:
        raise ValueError("no shard_count or no index")
    if not 0 < num_shards <= _MOST_SHARDS:
        raise ValueError(f"{num_shards:,} shards")
    if version is not None:
        entries.sort(key=lambda item: item[0])
    named = {"/".join(names): entry for names, entry in entries}
    if len(named) < len(entries):
        raise ValueError("a name twice")
    for name, entry in named.items():
        _check(name, entry, num_shards)
    return Index(version, num_shards, named)


def _walk(data: bytes, unpacker: msgpack.Unpacker, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Entry]]:
    """The entries of a tree of maps with their names, in the order of the file; what is None has no number."""
    if len(names) > _MOST_LEVELS:
        raise ValueError(f"more than {_MOST_LEVELS} levels")
    if not message_pack.is_map(data, unpacker):
        if message_pack.is_none(data, unpacker):
            unpacker.skip()
        else:
            yield names, _read_entry(message_pack.extension(unpacker, _ENTRY))
        return
    for _ in range(unpacker.read_map_header()):
        yield from _walk(data, unpacker, (*names, message_pack.of_type(unpacker, str)))


def _read_entry(data: bytes) -> Entry:
    unpacker = message_pack.entries(message_pack.reader_of(data), 3)
    inner = message_pack.entries(message_pack.reader_of(message_pack.of_type(unpacker, bytes)), 4)
    shape, dtype = tuple(message_pack.sizes(inner)), message_pack.dtype(message_pack.of_type(inner, str))
    slices = [read_slices(message_pack.of_type(unpacker, bytes)) for _ in range(unpacker.read_array_header())]
    shards = [message_pack.size(unpacker) for _ in range(unpacker.read_array_header())]
    return Entry(shape, dtype, tuple(slices), tuple(shards))


def read_slices(data: bytes) -> Slices:
    """Reads where a chunk belongs: for each axis start, stop and step, which is always None."""
    unpacker = message_pack.reader_of(data)
    slices = []
    for _ in range(unpacker.read_array_header()):
        one = message_pack.entries(message_pack.reader_of(message_pack.of_type(unpacker, bytes)), 3)
        start, stop, step = message_pack.size(one), message_pack.size(one), one.unpack()
        if stop < start or step not in (None, 1):
            raise ValueError(f"the slice {start}:{stop}:{step}")
        slices.append((start, stop))
    return tuple(slices)


def _check(name: str, entry: Entry, num_shards: int) -> None:
    """An array's chunks lie inside it, have as many values as it, and are in shards that there are."""
    if len(entry.slices) != len(entry.shards) or any(shard >= num_shards for shard in entry.shards):
        raise ValueError(f"{name}: {len(entry.slices)} chunks in the shards {list(entry.shards[:5])} of {num_shards}")
    for slices in entry.slices:
        if len(slices) != len(entry.shape) or any(
            stop > size for (_, stop), size in zip(slices, entry.shape, strict=True)
        ):
            raise ValueError(f"{name}: a chunk {slices} of shape {entry.shape}")
    values = sum(math.prod(stop - start for start, stop in slices) for slices in entry.slices)
    if values != math.prod(entry.shape):
        raise ValueError(f"{name}: chunks of {values:,} values for shape {entry.shape}")
