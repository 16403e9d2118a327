"""Photos the right way up: cameras store how they were held (EXIF, tag Orientation) instead of turning the pixels."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image

from vmoe_inform.data.images import decode

_UPRIGHT = 1


def upright(content: bytes) -> bytes | UInt8[np.ndarray, "height width 3"]:
    """The image of a file as it was seen: the content itself, or its pixels if they have to be turned.

    Args:
      content: of an image file.

    Raises:
      UnreadableImageError: an image that has to be turned is none, or not a whole one.
    """
    orientation = _orientation(content)
    if orientation == _UPRIGHT:
        return content
    pixels = decode.decode(content)
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    # The first row of the file is at the bottom, and its first column on the right
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(pixels[rows, columns])


def _orientation(content: bytes) -> int:
    """1 to 8; 1 where none is stored, or none that can be read."""
    try:
        with Image.open(io.BytesIO(content), formats=decode.FORMATS) as picture:
            stored = picture.info.get("exif")
        if not stored:
            return _UPRIGHT
        exif = Image.Exif()
        exif.load(stored)
        found = exif.get(ExifTags.Base.Orientation)
    except Exception:  # whatever a parser says of damaged bytes: what cannot be decoded is said by who decodes
        return _UPRIGHT
    return found if isinstance(found, int) and 1 <= found <= 8 else _UPRIGHT
