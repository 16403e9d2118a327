"""Image files that end too early though their reader does not say so: it would leave the missing rows black."""

import math
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image

_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
# First row and column of each pass of an interlaced PNG, and the steps between its rows and columns (Adam7).
_PNG_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
# Tags of TIFF.
_WIDTH, _HEIGHT, _COMPRESSION, _PLANES = 256, 257, 259, 284
_STRIP_PLACES, _STRIP_HEIGHT, _STRIP_BYTES = 273, 278, 279
_TILE_WIDTH, _TILE_HEIGHT, _TILE_PLACES, _TILE_BYTES = 322, 323, 324, 325
_JPEG = 7  # compression
_NOT_FRAMES = (0xC4, 0xC8, 0xCC)  # among the markers of JPEG's frames: tables
_CODESTREAM, _TILE_PART = b"\xff\x4f\xff\x51", b"\xff\x90"  # of JPEG 2000


class MissingPixelsError(ValueError):
    """A file has fewer pixels than its header says."""


def check(content: bytes, picture: Image.Image) -> None:
    """Counts the pixels where Pillow does not.

    Args:
      content: of the file.
      picture: what Pillow has read of it.

    Raises:
      MissingPixelsError: there are too few.
      zlib.error, ValueError, KeyError, struct.error: the file is damaged.
    """
    if picture.format is not None and picture.format in _CHECKS:
        _CHECKS[picture.format](content, picture)


def _need(what: str, expected: int, received: int) -> None:
    if received < expected:
        raise MissingPixelsError(f"expected {expected} {what}; received {received}")


def _png(content: bytes, _: Image.Image) -> None:
    """W3C, PNG Specification (Third Edition), sections 8, 10 and 11."""
    expected = received = 0
    stream = zlib.decompressobj()
    position = 8  # after the signature
    while position + 8 <= len(content) and not stream.eof:
        length, kind = struct.unpack_from(">I4s", content, position)
        data = content[position + 8 : position + 8 + length]
        position += 12 + length
        if kind == b"IHDR":
            expected = _png_bytes(*struct.unpack_from(">IIBBBBB", data))
        elif kind == b"IDAT":
            # One byte more than expected, so that the checksum at the end is read; a bomb is not unpacked.
            received += len(stream.decompress(stream.unconsumed_tail + data, expected + 1 - received))
            if received > expected:
                break
    _need("bytes of pixels", expected, received)


def _png_bytes(width: int, height: int, depth: int, color: int, _: int, __: int, interlaced: int) -> int:
    total = 0
    for row, column, row_step, column_step in _PNG_PASSES if interlaced else ((0, 0, 1, 1),):
        rows, columns = -(-(height - row) // row_step), -(-(width - column) // column_step)
        if rows > 0 and columns > 0:
            total += rows * (1 + -(-columns * depth * _PNG_CHANNELS[color] // 8))
    return total


def _tiff(content: bytes, picture: Image.Image) -> None:
    """TIFF 6.0, sections 8, 15 and 22: the picture is cut into strips or tiles, which a directory lists."""
    tags: Mapping[int, Any] = picture.tag_v2  # type: ignore[attr-defined]
    width, height = tags[_WIDTH], tags[_HEIGHT]  # not the picture's, which may be turned by now
    if _TILE_PLACES in tags:
        places, sizes, piece_width, piece_height = (
            tags[tag] for tag in (_TILE_PLACES, _TILE_BYTES, _TILE_WIDTH, _TILE_HEIGHT)
        )
    else:
        places, sizes, piece_width = tags[_STRIP_PLACES], tags.get(_STRIP_BYTES), width
        piece_height = min(tags.get(_STRIP_HEIGHT, height), height)
    down = math.ceil(height / piece_height)
    planes = len(picture.getbands()) if tags.get(_PLANES) == 2 else 1
    _need("strips or tiles", down * math.ceil(width / piece_width) * planes, len(places))
    if tags.get(_COMPRESSION) == _JPEG:
        for number, (place, size) in enumerate(zip(places, sizes, strict=True)):
            last_strip = _TILE_PLACES not in tags and number % down == down - 1
            rows = height - (down - 1) * piece_height if last_strip else piece_height
            _need("rows", rows, _jpeg_height(content[place : place + size]))


def _jpeg_height(content: bytes) -> int:
    """Rows that the frame header of a JPEG says (ITU-T T.81, annex B); 0 without one."""
    position = 2  # after the start of the image
    while position + 7 <= len(content) and content[position] == 0xFF:
        marker, length, height = content[position + 1], *struct.unpack_from(">HxH", content, position + 2)
        if 0xC0 <= marker <= 0xCF and marker not in _NOT_FRAMES:
            return height
        position += 2 + length
    return 0


def _jpeg2000(content: bytes, _: Image.Image) -> None:
    """ITU-T T.800, annex A: every tile of the grid has at least one part in the codestream."""
    start = content.index(_CODESTREAM)
    right, bottom, _left, _top, width, height, first_x, first_y = struct.unpack_from(">8I", content, start + 8)
    tiles = math.ceil((right - first_x) / width) * math.ceil((bottom - first_y) / height)
    found = set()
    position = content.find(_TILE_PART, start)
    while position >= 0 and content[position : position + 2] == _TILE_PART and position + 12 <= len(content):
        number, length = struct.unpack_from(">HI", content, position + 4)
        found.add(number)
        if length == 0:  # up to the end
            break
        position += length
    _need("tiles", tiles, len(found))


_CHECKS: Mapping[str, Callable[[bytes, Image.Image], None]] = {"PNG": _png, "TIFF": _tiff, "JPEG2000": _jpeg2000}
