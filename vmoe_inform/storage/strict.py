"""Reads JSON and npz from elsewhere strictly: hostile or damaged content can only raise ValueError."""

import ast
import collections
import contextlib
import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

_MOST_LEVELS = 64  # of a JSON document
_INTEGERS = range(-(2**63), 2**64)
_MOST_UNPACKED_BYTES = 1 << 32  # of members that are compressed: their size is not bounded by that of the file
_MOST_MEMBERS = 10_000
_MOST_HEADER_BYTES = 10_000
ARRAY_KINDS = "biufcUS"  # of dtypes, besides V2, bfloat16; no objects, which are pickles


def parse_json(content: bytes) -> Any:
    """The value of a JSON text.

    Raises:
      ValueError: it is no UTF-8 or no JSON, holds NaN or infinity, an integer beyond 64 bits, a key twice, or more than
        64 levels.
    """
    try:
        value = json.loads(
            content.decode("utf-8"),
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_short,
            object_pairs_hook=_without_doubles,
        )
    except UnicodeDecodeError:
        raise ValueError("bytes that are no UTF-8") from None
    except RecursionError:
        raise ValueError(f"more than {_MOST_LEVELS} levels") from None
    except ValueError as problem:
        raise ValueError(str(problem) if content else "an empty file") from None
    _check_levels(value)
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name}, which JSON does not have")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"a number too large: {text[:30]}")
    return value


def _short(text: str) -> int:
    if len(text) > 20 or int(text) not in _INTEGERS:
        raise ValueError(f"an integer of more than 64 bits: {text[:30]}")
    return int(text)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = collections.Counter(name for name, _ in pairs)
        raise ValueError(f"the key {next(name for name, count in counts.items() if count > 1)!r} twice")
    return found


def _check_levels(value: Any) -> None:
    level = [value]
    for _ in range(_MOST_LEVELS + 1):
        inner = [value for value in level if isinstance(value, dict | list)]
        if not inner:
            return
        level = [item for value in inner for item in (value.values() if isinstance(value, dict) else value)]
    raise ValueError(f"more than {_MOST_LEVELS} levels")


def read_npz(file: IO[bytes], size: int) -> dict[str, np.ndarray]:
    """The arrays of an npz file by name, each read to its end, which compares its CRC-32.

    Args:
      file: open for reading.
      size: of it in bytes.

    Raises:
      ValueError: it is no such file, or an array has pickled objects or more bytes than its file says.
    """
    with _opened(file, size) as archive:
        arrays = {name: _read_array(archive, member) for name, member in _members(archive).items()}
        if others := [name for name, array in arrays.items() if array.dtype.kind not in ARRAY_KINDS]:
            raise ValueError(f"{others[0]}: of type {arrays[others[0]].dtype.str!r}")
        return arrays


def npz_headers(file: IO[bytes], size: int) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of each array of an npz file, as its file has room for; no values are read.

    A type of two bytes without a meaning (``V2``) is allowed: NumPy writes bfloat16 so. Args and errors as of
    :func:`read_npz`.
    """
    headers = {}
    with _opened(file, size) as archive:
        for name, member in _members(archive).items():
            with archive.open(member) as opened:
                shape, dtype, _ = _header(opened, member)
                _check_bytes(member, shape, dtype, member.file_size - opened.tell())
                headers[name] = shape, dtype
    return headers


def read_npz_array(file: IO[bytes], size: int, name: str) -> np.ndarray:
    """One array of an npz file. Args and errors as of :func:`read_npz`; ``name`` is one of :func:`npz_headers`."""
    with _opened(file, size) as archive:
        return _read_array(archive, _members(archive)[name])


@contextlib.contextmanager
def _opened(file: IO[bytes], size: int) -> Iterator[zipfile.ZipFile]:
    """The archive of an npz file; whatever goes wrong with it becomes a ValueError of one line."""
    try:
        with zipfile.ZipFile(file) as archive:
            _check_members(archive.infolist(), size)
            yield archive
    except (
        ValueError,  # which a name that is no text is too
        KeyError,
        TypeError,
        SyntaxError,
        EOFError,
        RuntimeError,  # encrypted, or nested too deeply
        OSError,  # a position before the beginning
        OverflowError,
        MemoryError,
        struct.error,
        zlib.error,
        zipfile.BadZipFile,
    ) as problem:
        raise ValueError(" ".join(f"{type(problem).__name__}: {problem}".split())[:300]) from None


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    return {_array_name(member): member for member in archive.infolist()}


def _check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    """Sizes are known before anything is unpacked, and zipfile reads no more of a member than its own."""
    if len(members) > _MOST_MEMBERS:
        raise ValueError(f"{len(members):,} members, more than {_MOST_MEMBERS:,}")
    if len({member.filename for member in members}) < len(members):
        raise ValueError("a name twice")
    for member in members:
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{member.filename}: an unknown kind of compression")
    stored = sum(member.file_size for member in members if member.compress_type == zipfile.ZIP_STORED)
    unpacked = sum(member.file_size for member in members if member.compress_type == zipfile.ZIP_DEFLATED)
    if stored > size or unpacked > _MOST_UNPACKED_BYTES:
        raise ValueError(f"members of {stored + unpacked:,} bytes in {size:,}")


def _array_name(member: zipfile.ZipInfo) -> str:
    if not member.filename.endswith(".npy"):
        raise ValueError(f"{member.filename}: no array")
    return member.filename.removesuffix(".npy")


def _read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        shape, dtype, in_fortran_order = _header(file, member)
        content = file.read()
    _check_bytes(member, shape, dtype, len(content))
    return np.ndarray(shape, dtype, bytearray(content), order="F" if in_fortran_order else "C")


def _check_bytes(member: zipfile.ZipInfo, shape: tuple[int, ...], dtype: np.dtype, num_bytes: int) -> None:
    if math.prod(shape) * dtype.itemsize != num_bytes:
        raise ValueError(f"{member.filename}: {num_bytes:,} bytes for {dtype} of shape {shape}")


def _header(file: IO[bytes], member: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype, bool]:
    """Shape, type and order of a member, which is read up to its values.

    NumPy's own reader allocates what the header says before it reads, and tokenizes a header that is none.
    """
    prefix = file.read(8)
    if prefix[:7] not in (b"\x93NUMPY\x01", b"\x93NUMPY\x02"):
        raise ValueError(f"{member.filename}: no array")
    (length,) = struct.unpack("<H", file.read(2)) if prefix[6] == 1 else struct.unpack("<I", file.read(4))
    header = ast.literal_eval(file.read(min(length, _MOST_HEADER_BYTES)).decode("latin1"))
    shape, in_fortran_order, kind = header["shape"], header["fortran_order"], header["descr"]
    if not isinstance(kind, str) or not re.fullmatch(rf"[<>|](?:[{ARRAY_KINDS}]\d{{1,9}}|V2)", kind):
        raise ValueError(f"{member.filename}: of type {kind!r}")
    if not isinstance(shape, tuple) or not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError(f"{member.filename}: of shape {shape}")
    return shape, np.dtype(kind), bool(in_fortran_order)
