"""Image files and arrays -> square uint8 images of the model's size, on the host."""

import io
import struct

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vmoe_inform import checks


class UnreadableImageError(ValueError):
    """The bytes of one record are no image; the pipeline skips and counts it."""


def to_square(image: np.ndarray | bytes, image_size_px: int, crop: float = 1.0) -> UInt8[np.ndarray, "P P 3"]:
    """Decodes if need be, takes a square in the centre and resizes it (bilinear, antialiased).

    That is the same as resizing the short side to ``image_size_px / crop`` and cropping the centre. Gray images get
    three equal channels; transparency is dropped.

    Args:
      image: uint8 [height, width], [height, width, 1] or [height, width, 3], or the bytes of an image file.
      image_size_px: P, side of the result.
      crop: side of the square as a share of the shorter side, above 0 and at most 1.

    Raises:
      UnreadableImageError: bytes that are no image, or not a whole one.
      ValueError: an array of another type or shape.
    """
    picture = _decode(image) if isinstance(image, bytes) else _from_array(image)
    if crop != 1.0 or picture.size != (image_size_px, image_size_px):
        width, height = picture.size
        side = min(width, height) * crop
        left, top = (width - side) / 2, (height - side) / 2
        picture = picture.resize(
            (image_size_px, image_size_px), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side)
        )
    return np.array(picture.convert("RGB"))


def _from_array(image: np.ndarray) -> Image.Image:
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[-1] == 3)):
        expected = "uint8 [height, width] with 1 or 3 channels"
        raise checks.error("image", expected, f"{image.dtype} {image.shape}")
    return Image.fromarray(image)


def _decode(content: bytes) -> Image.Image:
    """An image of mode L or RGB."""
    try:
        picture: Image.Image = Image.open(io.BytesIO(content))
        picture.load()
    # What Pillow's readers raise on damaged files, as its formats differ.
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as problem:
        raise UnreadableImageError(f"{type(problem).__name__}: {problem}") from None
    if picture.mode.startswith("I") or picture.mode == "F":
        return _from_sixteen_bits(picture)
    return picture if picture.mode == "L" else picture.convert("RGB")


def _from_sixteen_bits(picture: Image.Image) -> Image.Image:
    """Gray with more than 8 bits: Pillow's own conversion would clip at 255 instead of scaling."""
    values = np.asarray(picture)
    if picture.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise UnreadableImageError(f"expected 8 or 16 bits a channel; received mode {picture.mode}")
    return Image.fromarray((values // 257).astype(np.uint8))
