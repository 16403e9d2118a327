"""Decodes image files. Anything but a whole image is an error, never a half-gray picture."""

import contextlib
import io
import warnings
from collections.abc import Iterator

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from vmoe_inform.data.images import whole as whole_images

# Of files of every format: above twice its MAX_IMAGE_PIXELS Pillow refuses a file, as one that is to fill the memory.
MAX_PIXELS = 178_956_970
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # which comes at half of it, of some formats

# Pillow knows many more, some of which it gives to other programs (Ghostscript).
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_JPEG_START = b"\xff\xd8\xff"
_PLAIN_COLORS = ("Gray", "RGB", "YCbCr")  # the others, CMYK and YCCK, are stored inverted, which Pillow knows
# libjpeg warns of these and continues with all pixels intact. Its other warnings stand for invented pixels.
_HARMLESS = ("extraneous bytes before marker", "Inconsistent progression sequence", "Unknown Adobe color transform")


class UnreadableImageError(ValueError):
    """The bytes of one record are no image; the pipeline skips and counts it."""


def size(content: bytes) -> tuple[int, int]:
    """Height and width in pixels, from the header alone.

    Raises:
      UnreadableImageError: no image, or one of more pixels than Pillow takes for an honest picture.
    """
    with _one_error():
        header = _jpeg_header(content)
        height, width = header[:2] if header is not None else _open(content).size[::-1]
        if min(height, width) < 1:
            raise UnreadableImageError(f"expected at least one pixel; received {height} x {width}")
        return height, width


def decode(content: bytes, min_height: int = 0, min_width: int = 0) -> UInt8[np.ndarray, "height width 3"]:
    """Pixels of an image file, as red, green and blue.

    libjpeg-turbo decodes JPEG, with the exact DCT and smooth chroma. Pillow decodes the rest: CMYK, other formats (also
    under the name of a JPEG), and complete files of which libjpeg warns. Gray images get three equal channels,
    transparency is dropped, and 16 bits become the upper 8.

    Args:
      content: of the file.
      min_height, min_width: sufficient size; both 0 for the whole image. A JPEG at least twice as large is then decoded
        at 1/2, 3/8, 1/4 or 1/8 by its low frequencies alone. That is faster, and close to averaging each block of
        pixels. The pixels differ from those of decoding all and resizing, so it is for training, not for evaluation.

    Raises:
      UnreadableImageError: no image, or not a whole one.
    """
    with _one_error():
        pixels = _decode_jpeg(content, min_height, min_width)
        return np.asarray(_decode_with_pillow(content)) if pixels is None else pixels


@contextlib.contextmanager
def _one_error() -> Iterator[None]:
    """Turns any error of a decoder into :class:`UnreadableImageError`."""
    try:
        yield
    except UnreadableImageError:
        raise
    except Exception as problem:
        raise UnreadableImageError(f"{type(problem).__name__}: {' '.join(str(problem).split())}") from None


def _decode_jpeg(content: bytes, min_height: int, min_width: int) -> np.ndarray | None:
    """Pixels, or None for what Pillow has to decode."""
    header = _jpeg_header(content)
    if header is None:
        return None
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
        return None
    return pixels if header[2] in _PLAIN_COLORS else None


def _jpeg_header(content: bytes) -> tuple[int, int, str] | None:
    """Height, width and colours of a JPEG; None if libjpeg-turbo does not recognise one."""
    if not content.startswith(_JPEG_START):
        return None
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError:
        return None
    _check_size(height, width)
    return height, width, colors


def _check_size(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise UnreadableImageError(f"expected at most {MAX_PIXELS} pixels; received {height} x {width}")


def _open(content: bytes) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        raise UnreadableImageError(f"the bytes of no image format (known: {', '.join(FORMATS)})") from None
    _check_size(picture.height, picture.width)
    return picture


def _decode_with_pillow(content: bytes) -> Image.Image:
    """An image of mode RGB."""
    picture = _open(content)
    picture.load()
    whole_images.check(content, picture)
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _from_sixteen_bits(picture)
    return picture.convert("RGB")


def _from_sixteen_bits(picture: Image.Image) -> Image.Image:
    """Gray with more than 8 bits: Pillow's own conversion would clip at 255 instead of scaling."""
    values = np.asarray(picture)
    if picture.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise UnreadableImageError(f"expected 8 or 16 bits a channel; received mode {picture.mode}")
    return Image.fromarray((values // 257).astype(np.uint8))
