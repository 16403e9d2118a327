"""Writes small checkpoints in the formats that are read, whole or damaged, as their programs write them."""

import json
import pathlib
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import msgpack
import numpy as np

# The small V-MoE whose checkpoint its own program wrote, and what no array of it says
GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "checkpoints"
TINY = GOLDEN / "vmoe_tiny" / "ckpt"
GIVEN = {"num_selected_experts": "2", "tokens_per_group": "68"}
FLAGS = tuple(f"--model.{key}={value}" for key, value in GIVEN.items())

CHUNKS = "__msgpack_array_chunk_a87ca2__"
SHARDS = 2


def save_safetensors(
    path: pathlib.Path, arrays: Mapping[str, np.ndarray], header: Mapping[str, Any] | None = None, extra: bytes = b""
) -> pathlib.Path:
    """Writes a file; ``header`` replaces entries of the header."""
    kinds = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64"}
    entries, data = {}, b""
    for name, array in arrays.items():
        offsets = [len(data), len(data) + array.nbytes]
        entries[name] = {"dtype": kinds[array.dtype.name], "shape": list(array.shape), "data_offsets": offsets}
        data += array.tobytes()
    text = json.dumps({**entries, **(header or {})}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data + extra)
    return path


def pack_array(array: np.ndarray) -> msgpack.ExtType:
    return msgpack.ExtType(1, msgpack.packb((array.shape, array.dtype.name, array.tobytes())))


def pack_slices(slices: Sequence[tuple[int, int]]) -> bytes:
    return msgpack.packb([msgpack.packb((start, stop, None)) for start, stop in slices])


def pack_entry(shape: Sequence[int], dtype: str, slices: Sequence[Any], shards: Sequence[int]) -> msgpack.ExtType:
    packed = msgpack.packb((list(shape), dtype, False, {}))
    return msgpack.ExtType(8, msgpack.packb((packed, [pack_slices(one) for one in slices], list(shards))))


def halves(shape: Sequence[int]) -> list[list[tuple[int, int]]]:
    """An array cut in two along its first axis; one of one row, or without axes, stays whole."""
    whole = [(0, size) for size in shape]
    if not shape or shape[0] < 2:
        return [whole]
    middle = shape[0] // 2
    return [[(0, middle), *whole[1:]], [(middle, shape[0]), *whole[1:]]]


def save_shards(
    prefix: pathlib.Path, arrays: Mapping[str, np.ndarray], version: str | None = "20220622", in_parts: bool = False
) -> pathlib.Path:
    """Writes an index and two shards; returns the prefix.

    Args:
      prefix: of the files.
      arrays: by name with ``/``, numbered in this order if there is no version, and by sorted names otherwise.
      version: of the index.
      in_parts: whether chunks are cut once more, as those beyond 2**30 bytes are.
    """
    names = sorted(arrays, key=lambda name: name.split("/")) if version else list(arrays)
    shards: list[dict[str, Any]] = [{CHUNKS: True} for _ in range(SHARDS)]
    tree: dict[str, Any] = {}
    for number, name in enumerate(names):
        array = arrays[name]
        cuts = halves(array.shape)
        owners = [(number + part) % SHARDS for part in range(len(cuts))]
        for slices, owner in zip(cuts, owners, strict=True):
            values = array[tuple(slice(*one) for one in slices)].flatten()
            parts = np.array_split(values, 2) if in_parts else [values]
            packed = msgpack.ExtType(6, pack_slices(slices))
            shards[owner].setdefault(str(number), []).append([[pack_array(part) for part in parts], packed])
        *levels, last = name.split("/")
        level = tree
        for key in levels:
            level = level.setdefault(key, {})
        level[last] = pack_entry(array.shape, array.dtype.name, cuts, owners)
    index = {"shard_count": SHARDS, "index": tree} | ({"version": version} if version else {})
    write_shards(prefix, index, shards)
    return prefix


def write_shards(prefix: pathlib.Path, index: Any, shards: Sequence[Any]) -> None:
    prefix.with_name(prefix.name + ".index").write_bytes(msgpack.packb(index))
    for number, content in enumerate(shards):
        path = prefix.with_name(f"{prefix.name}.data-{number:05d}-of-{len(shards):05d}")
        path.write_bytes(msgpack.packb(content))


def written(folder: pathlib.Path, arrays: Mapping[str, np.ndarray | None]) -> str:
    """The prefix of a checkpoint of these arrays, but for those that are None."""
    kept = {name: array for name, array in arrays.items() if array is not None}
    return str(save_shards(folder / "changed", kept))
