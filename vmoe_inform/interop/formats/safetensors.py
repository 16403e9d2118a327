"""safetensors, as timm and Hugging Face publish checkpoints: a JSON header with offsets, then the values.

A model in several files has an index, ``model.safetensors.index.json``. Files of JSON in the same folder are part of
the checkpoint's description: ``config`` and ``preprocessor``. So is the header's ``__metadata__``, as ``metadata``.
"""

import functools
import math
import pathlib
import struct
from collections.abc import Mapping
from typing import IO, Any

import ml_dtypes
import numpy as np

from vmoe_inform import checks, storage
from vmoe_inform.interop.formats.base import BFLOAT16, Format, damaged, fetch_all, first_bytes, only, opened
from vmoe_inform.interop.stored import StoredArray, StoredCheckpoint
from vmoe_inform.storage import inputs, strict

_EXPECTED = "a safetensors file as it was written"
_INDEX = ".safetensors.index.json"
_BESIDES = {"config": "config.json", "preprocessor": "preprocessor_config.json"}
_MOST_HEADER_BYTES = 100_000_000  # as the format says
_LENGTH_BYTES = 8
DTYPES: Mapping[str, np.dtype] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": BFLOAT16,
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


class Safetensors(Format):
    """One file, or several with an index."""

    title = "safetensors"

    def find(self, path: storage.Path) -> storage.Path | None:
        if inputs.is_folder(path):
            return only(path, f"*{_INDEX}") or only(path, "*.safetensors")
        if not inputs.is_file(path):
            return None
        named = path.suffix == ".safetensors" or path.name.endswith(_INDEX)
        return path if named or first_bytes(path, _LENGTH_BYTES + 1)[_LENGTH_BYTES:] == b"{" else None

    def open(self, path: storage.Path) -> StoredCheckpoint:
        arrays: dict[str, StoredArray] = {}
        metadata: dict[str, str] = {}
        for file in _files(path) if path.name.endswith(_INDEX) else [path]:
            found, said = _open_file(file)
            if twice := sorted(found.keys() & arrays.keys()):
                raise damaged(path, "each array in one file", f"{twice[0]} in several")
            arrays |= found
            metadata |= said
        description: dict[str, Any] = {"metadata": metadata}
        for key, name in _BESIDES.items():
            if inputs.is_file(config := path.with_name(name)):
                description[key] = storage.read_json(inputs.local(config).resolve(), dict[str, Any])
        return StoredCheckpoint(str(path), "safetensors", arrays, description)


def _files(index: storage.Path) -> list[storage.Path]:
    """The files that an index names, which are in its folder."""
    listed = storage.read_json(inputs.local(index).resolve(), dict[str, Any]).get("weight_map")
    if checks.misfit(listed, dict[str, str]) is not None:
        raise damaged(index, "a weight_map of arrays to files", listed)
    names = sorted(set(listed.values()))
    for name in names:
        if not name.endswith(".safetensors") or pathlib.PurePath(name).name != name:
            raise damaged(index, "names of .safetensors files in its own folder", name)
    files = [index.with_name(name) for name in names]
    fetch_all(index, files)
    return files


def _open_file(path: storage.Path) -> tuple[dict[str, StoredArray], dict[str, str]]:
    with opened(path) as (file, size):
        try:
            header, start = _read_header(file, size)
            metadata = header.pop("__metadata__", {})
            if (problem := checks.misfit(metadata, dict[str, str])) is not None:
                raise ValueError(f"__metadata__: {problem}")
            spans = {name: _span(name, entry) for name, entry in header.items()}
            _check_spans({name: span for name, (_, _, span) in spans.items()}, size - start)
        except ValueError as problem:
            raise damaged(path, _EXPECTED, problem) from None
    arrays = {
        name: StoredArray(shape, dtype, functools.partial(_read, path, shape, dtype, start + span[0]))
        for name, (shape, dtype, span) in spans.items()
    }
    return arrays, metadata


def _read_header(file: IO[bytes], size: int) -> tuple[dict[str, Any], int]:
    """The header, and where the values start."""
    prefix = file.read(_LENGTH_BYTES)
    if len(prefix) < _LENGTH_BYTES:
        raise ValueError(f"{len(prefix)} bytes")
    (length,) = struct.unpack("<Q", prefix)
    if length > min(_MOST_HEADER_BYTES, size - _LENGTH_BYTES):
        raise ValueError(f"a header of {length:,} bytes in a file of {size:,}")
    header = strict.parse_json(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("a header that is no JSON object")
    return header, _LENGTH_BYTES + length


def _span(name: str, entry: Any) -> tuple[tuple[int, ...], np.dtype, tuple[int, int]]:
    """Shape and type of an array, and where its values begin and end, from the first value on."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name}: expected dtype, shape and data_offsets, not {entry}")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if entry["dtype"] not in list(DTYPES):
        raise ValueError(f"{name}: dtype {entry['dtype']!r}")
    if not _are_sizes(shape):
        raise ValueError(f"{name}: shape {shape}")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"{name}: data_offsets {offsets}")
    dtype = DTYPES[entry["dtype"]]
    if offsets[1] - offsets[0] != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name}: data_offsets {offsets} for {entry['dtype']} of shape {shape}")
    return tuple(shape), dtype, (offsets[0], offsets[1])


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


def _check_spans(spans: Mapping[str, tuple[int, int]], num_bytes: int) -> None:
    """Values follow each other without gaps or overlaps, from the header to the end of the file."""
    end = 0
    for name, (first, last) in sorted(spans.items(), key=lambda item: item[1]):
        if first != end:
            raise ValueError(f"{name}: values that begin at byte {first:,}, where those before end at {end:,}")
        end = last
    if end != num_bytes:
        raise ValueError(f"values of {end:,} bytes in {num_bytes:,}")


def _read(path: storage.Path, shape: tuple[int, ...], dtype: np.dtype, start: int) -> np.ndarray:
    with opened(path) as (file, _):
        file.seek(start)
        array = np.empty(shape, dtype)
        if file.readinto(array.reshape(-1).view(np.uint8)) != array.nbytes:  # type: ignore[attr-defined]
            raise damaged(path, _EXPECTED, "a file that became shorter")
        return array
