"""NumPy's npz, as google-research/vision_transformer and google-research/big_vision publish checkpoints.

NumPy writes bfloat16 as two bytes without a meaning, ``V2``. Pickled objects are refused.
"""

import functools
import math

import numpy as np

from vmoe_inform import checks, storage
from vmoe_inform.interop.formats.base import BFLOAT16, Format, damaged, first_bytes, only, opened
from vmoe_inform.interop.stored import StoredArray, StoredCheckpoint
from vmoe_inform.storage import inputs, strict

_EXPECTED = "an npz file of plain arrays"
# Parameters hardly shrink. A file of zeros shrinks to a thousandth, and would fill the memory.
_MOST_RATIO, _MOST_SMALL_BYTES = 16, 1 << 26


class Npz(Format):
    """A zip archive of arrays by name."""

    title = "NumPy (.npz)"

    def find(self, path: storage.Path) -> storage.Path | None:
        if inputs.is_folder(path):
            return only(path, "*.npz", but_not=_holds_logits)
        is_archive = first_bytes(path, 4) in (b"PK\x03\x04", b"PK\x05\x06")
        return path if inputs.is_file(path) and (path.suffix == ".npz" or is_archive) else None

    def open(self, path: storage.Path) -> StoredCheckpoint:
        headers, size = _headers(path)
        claimed = sum(math.prod(shape) * dtype.itemsize for shape, dtype in headers.values())
        if claimed > _MOST_RATIO * size + _MOST_SMALL_BYTES:
            raise damaged(path, _EXPECTED, f"arrays of {claimed:,} bytes, compressed to {size:,}")
        arrays = {
            name: StoredArray(shape, _meant(dtype), functools.partial(_read, path, name))
            for name, (shape, dtype) in headers.items()
        }
        return StoredCheckpoint(str(path), "npz", arrays)


def _headers(path: storage.Path) -> tuple[dict[str, tuple[tuple[int, ...], np.dtype]], int]:
    """Shape and type of each array by name, and the size of the file in bytes."""
    with opened(path) as (file, size):
        try:
            return strict.npz_headers(file, size), size
        except ValueError as problem:
            raise damaged(path, _EXPECTED, problem) from None


def _holds_logits(path: storage.Path) -> bool:
    """Whether a file holds what a model computes, which check_checkpoint compares with, in place of its parameters."""
    try:
        return {"images", "logits"} <= _headers(path)[0].keys()
    except checks.InputError:
        return False


def _meant(dtype: np.dtype) -> np.dtype:
    return BFLOAT16 if dtype.kind == "V" else dtype


def _read(path: storage.Path, name: str) -> np.ndarray:
    with opened(path) as (file, size):
        try:
            array = strict.read_npz_array(file, size, name)
        except ValueError as problem:
            raise damaged(path, _EXPECTED, problem) from None
    return array.view(_meant(array.dtype))
