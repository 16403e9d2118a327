"""MessagePack of known structure, read without building what a file merely claims to hold.

A header of an array or a map may claim 2**32 entries in five bytes, and headers may be nested. A reader that makes room
for them takes gigabytes for a file of kilobytes. So headers are read one by one here, and the library builds only
numbers, texts and bytes.
"""

from collections.abc import Mapping
from typing import IO, Any

import ml_dtypes
import msgpack
import numpy as np

ERRORS = (ValueError, msgpack.UnpackException)  # the latter where data end too early
_MOST_OBJECT_BYTES = 2**31 - 1  # as the library allows; flax writes at most 2**30
_READ_BYTES = 1 << 16  # at a time
_ONLY_PLAIN: Mapping[str, Any] = {"raw": False, "strict_map_key": False, "max_array_len": 0, "max_map_len": 0}
_MOST_AXES = 32
_NDARRAY = 1  # flax's extension type
_DTYPES = {
    **{name: np.dtype(name) for name in ("bool", "float16", "float32", "float64", "complex64", "complex128")},
    **{f"{sign}int{bits}": np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


def reader(file: IO[bytes]) -> msgpack.Unpacker:
    """A reader of a file, whose ``unpack`` refuses arrays and maps: their headers have to be read as such."""
    return msgpack.Unpacker(file, max_buffer_size=_MOST_OBJECT_BYTES, read_size=_READ_BYTES, **_ONLY_PLAIN)


def reader_of(data: bytes) -> msgpack.Unpacker:
    """As :func:`reader`, of bytes: those of an extension type, for instance."""
    size = max(len(data), 1)
    unpacker = msgpack.Unpacker(max_buffer_size=size, read_size=min(size, _READ_BYTES), **_ONLY_PLAIN)
    unpacker.feed(data)
    return unpacker


def is_map(data: bytes, unpacker: msgpack.Unpacker) -> bool:
    """Whether the next object of ``data``, which the reader reads, is a map."""
    first = data[unpacker.tell() : unpacker.tell() + 1]
    return b"\x80" <= first <= b"\x8f" or first in (b"\xde", b"\xdf")


def is_none(data: bytes, unpacker: msgpack.Unpacker) -> bool:
    """Whether the next object of ``data``, which the reader reads, is nil."""
    return data[unpacker.tell() : unpacker.tell() + 1] == b"\xc0"


def sizes(unpacker: msgpack.Unpacker, most: int = _MOST_AXES) -> list[int]:
    """An array of at most ``most`` numbers of at least 0."""
    count = unpacker.read_array_header()
    if count > most:
        raise ValueError(f"{count:,} sizes in place of at most {most:,}")
    return [size(unpacker) for _ in range(count)]


def size(unpacker: msgpack.Unpacker) -> int:
    """A number of at least 0."""
    value = unpacker.unpack()
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} in place of a number of at least 0")
    return value


def of_type(unpacker: msgpack.Unpacker, hint: type) -> Any:
    """A value of a plain type: str, bytes or bool."""
    value = unpacker.unpack()
    if type(value) is not hint:
        raise ValueError(f"{type(value).__name__} in place of {hint.__name__}")
    return value


def extension(unpacker: msgpack.Unpacker, code: int) -> bytes:
    """The bytes of an extension type."""
    value = unpacker.unpack()
    if not isinstance(value, msgpack.ExtType) or value.code != code:
        raise ValueError(f"{value if isinstance(value, int) else type(value).__name__} in place of extension {code}")
    return value.data


def entries(unpacker: msgpack.Unpacker, count: int) -> msgpack.Unpacker:
    """The reader, after the header of an array of ``count`` entries."""
    found = unpacker.read_array_header()
    if found != count:
        raise ValueError(f"{found:,} entries in place of {count}")
    return unpacker


def dtype(name: Any) -> np.dtype:
    """The type of this name. Raises ValueError for others, such as objects."""
    known = name if isinstance(name, str) else ""
    if known not in _DTYPES:
        raise ValueError(f"the type {name!r}")
    return _DTYPES[known]


def array(unpacker: msgpack.Unpacker) -> np.ndarray:
    """An array as flax writes it: shape, type and bytes."""
    inner = entries(reader_of(extension(unpacker, _NDARRAY)), 3)
    shape, kind, data = sizes(inner), dtype(of_type(inner, str)), of_type(inner, bytes)
    if int(np.prod(shape, dtype=object)) * kind.itemsize != len(data):
        raise ValueError(f"{len(data):,} bytes for {kind} of shape {shape}")
    return np.frombuffer(data, kind).reshape(shape)
