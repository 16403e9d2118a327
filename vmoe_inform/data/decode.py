"""Bytes of an image file -> pixels. Whatever is not a whole image is an error, never a half-gray picture."""

import io
import struct

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

_JPEG_START = b"\xff\xd8\xff"
_PLAIN_COLORS = ("Gray", "RGB", "YCbCr")  # the others, CMYK and YCCK, are stored inverted, which Pillow knows
# libjpeg warns of these and goes on with all pixels intact; its other warnings stand for pixels that it made up.
_HARMLESS = ("extraneous bytes before marker", "Inconsistent progression sequence", "Unknown Adobe color transform")


class UnreadableImageError(ValueError):
    """The bytes of one record are no image; the pipeline skips and counts it."""


def size(content: bytes) -> tuple[int, int]:
    """Height and width in pixels, from the header alone.

    Raises:
      UnreadableImageError: no image, or one of more pixels than Pillow takes for an honest picture.
    """
    header = _jpeg_header(content)
    if header is not None:
        return header[0], header[1]
    width, height = _open(content).size
    return height, width


def decode(content: bytes, min_height: int = 0, min_width: int = 0) -> UInt8[np.ndarray, "height width 3"]:
    """Pixels of an image file, as red, green and blue.

    JPEG is decoded by libjpeg-turbo with the exact DCT and smooth chroma. What that does not turn into RGB goes to
    Pillow: CMYK, other formats (also under the name of a JPEG), and files of which libjpeg warns though all pixels are
    there. Gray images get three equal channels, transparency is dropped, 16 bits become the upper 8.

    Args:
      content: of the file.
      min_height, min_width: size that is enough; both 0 for the whole image. A JPEG at least twice as large is then
        decoded at 1/2, 3/8, 1/4 or 1/8 by its low frequencies alone. That is quicker, and close to averaging each
        block of pixels, but not the same pixels as decoding all and resizing: for training, not for evaluation.

    Raises:
      UnreadableImageError: no image, or not a whole one.
    """
    header = _jpeg_header(content)
    if header is not None:
        try:
            pixels = simplejpeg.decode_jpeg(
                content,
                colorspace="RGB",
                fastdct=False,
                fastupsample=False,
                min_height=min_height,
                min_width=min_width,
                min_factor=2 if min_height and min_width else 1,  # other scales have slower code than the whole image
            )
        except ValueError as problem:
            if not any(words in str(problem) for words in _HARMLESS):
                raise UnreadableImageError(f"JPEG: {problem}") from None
        else:
            if header[2] in _PLAIN_COLORS:
                return pixels
    return np.asarray(_decode_with_pillow(content))


def _jpeg_header(content: bytes) -> tuple[int, int, str] | None:
    """Height, width and colours of a JPEG; None for what libjpeg-turbo does not take for one."""
    if not content.startswith(_JPEG_START):
        return None
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError:
        return None
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and height * width > limit:
        raise UnreadableImageError(f"expected at most {limit} pixels; received {height} x {width}")
    return height, width, colors


# What Pillow's readers raise on damaged files, as its formats differ.
_PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def _open(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content))
    except UnidentifiedImageError:
        raise UnreadableImageError("the bytes of no image format") from None
    except _PILLOW_ERRORS as problem:
        raise UnreadableImageError(f"{type(problem).__name__}: {problem}") from None


def _decode_with_pillow(content: bytes) -> Image.Image:
    """An image of mode RGB."""
    picture = _open(content)
    try:
        picture.load()
    except _PILLOW_ERRORS as problem:
        raise UnreadableImageError(f"{type(problem).__name__}: {problem}") from None
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _from_sixteen_bits(picture)
    return picture.convert("RGB")


def _from_sixteen_bits(picture: Image.Image) -> Image.Image:
    """Gray with more than 8 bits: Pillow's own conversion would clip at 255 instead of scaling."""
    values = np.asarray(picture)
    if picture.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise UnreadableImageError(f"expected 8 or 16 bits a channel; received mode {picture.mode}")
    return Image.fromarray((values // 257).astype(np.uint8))
