"""Writes safetensors; :mod:`vmoe_inform.interop.formats.safetensors` reads them."""

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from vmoe_inform import checks, storage
from vmoe_inform.axes import Tree
from vmoe_inform.interop.formats.safetensors import DTYPES

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_ALIGNMENT = 8  # of the first value, in bytes


def write(path: storage.Path, arrays: Mapping[str, Tree], metadata: Mapping[str, str]) -> None:
    """Writes arrays, whole or not at all; one of them is in this host's memory at a time.

    Args:
      path: of the file.
      arrays: NumPy or JAX arrays by name. Those of the largest numbers come first, so that all values are aligned.
      metadata: texts by name.

    Raises:
      ValueError: an array whose type the format does not have.
    """
    ordered = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name in ordered:
        start, end = end, end + arrays[name].size * arrays[name].dtype.itemsize
        shape = list(arrays[name].shape)
        header[name] = {"dtype": _dtype(name, arrays[name]), "shape": shape, "data_offsets": [start, end]}
    content = json.dumps(header, separators=(",", ":")).encode()
    content += b" " * (-len(content) % _ALIGNMENT)
    with storage.replacing(path) as file:
        file.write(struct.pack("<Q", len(content)) + content)
        for name in ordered:
            file.write(_little_endian(np.asarray(arrays[name])).tobytes())


def _dtype(name: str, array: Tree) -> str:
    dtype = np.dtype(array.dtype).newbyteorder("<")
    if dtype not in _NAMES:
        raise checks.error(name, f"one of the types {', '.join(DTYPES)}", str(array.dtype))
    return _NAMES[dtype]


def _little_endian(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder("<"), copy=False)
