"""Image files and arrays -> square uint8 images of the model's size, on the host."""

import math

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vmoe_inform import checks
from vmoe_inform.data.images import decode
from vmoe_inform.data.images.framing import WHOLE, Box, Framing, central_square

_MAX_TRIES = 10
_MAX_LOG_ASPECT_RATIO = math.log(4 / 3)
_PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}  # both antialiased
_OPENCV = {"bilinear_aliased": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}


def use_one_thread() -> None:
    """Keeps OpenCV to the thread that calls it, in worker processes that are the parallelism."""
    cv2.setNumThreads(1)


def to_square(image: np.ndarray | bytes, image_size_px: int, framing: Framing = WHOLE) -> UInt8[np.ndarray, "P P 3"]:
    """Decodes if needed, takes the middle and resizes it.

    With the resize ``"square"`` the square's own corners decide, to fractions of a pixel where Pillow interpolates. The
    others resize all of the image first, to whole pixels, as torchvision, timm and TensorFlow's programs do; their
    pixels are the same as theirs. Gray images get three equal channels; transparency is dropped.

    Args:
      image: uint8 [height, width], [height, width, 1] or [height, width, 3], or the bytes of an image file.
      image_size_px: P, side of the result.
      framing: which part, and how it is resized; by default the largest square, bilinear.

    Raises:
      UnreadableImageError: bytes that are no image, or not a whole one.
      ValueError: an array of another type or shape.
    """
    pixels = decode.decode(image) if isinstance(image, bytes) else _checked(image)
    height, width = pixels.shape[:2]
    if framing.resize != "square":
        size = framing.resized(height, width, image_size_px)
        return _resize_whole(pixels, size, framing.corner(*size, image_size_px), image_size_px, framing.interpolation)
    box = central_square(height, width, framing.crop)
    if framing.interpolation in _PILLOW:
        return _resize(pixels, box, image_size_px, _PILLOW[framing.interpolation])
    size = (image_size_px, image_size_px)
    return _resize_whole(_whole_pixels(pixels, box), size, (0, 0), image_size_px, framing.interpolation)


def inception_crop(
    image: np.ndarray | bytes, image_size_px: int, min_area: float, random: np.random.Generator
) -> UInt8[np.ndarray, "P P 3"]:
    """Decodes if needed, takes a random part and resizes it to a square.

    For speed in training it differs from :func:`to_square` in two ways. If the part of a JPEG is at least twice as
    large as the result, only its low frequencies are decoded (:func:`~vmoe_inform.data.images.decode.decode`). OpenCV
    resizes, faster than Pillow. It takes the mean over the area of a pixel of the result, which is antialiased, too. If
    the part is smaller than the result, it is bilinear.

    Args:
      image: as :func:`to_square` takes it.
      image_size_px: P, side of the result.
      min_area: least share of the image's area, see :func:`inception_box`.
      random: decides the part.

    Raises:
      UnreadableImageError, ValueError: as :func:`to_square`.
    """
    if not isinstance(image, bytes):
        pixels = _checked(image)
        return _shrink(pixels, inception_box(pixels.shape[0], pixels.shape[1], min_area, random), image_size_px)
    height, width = decode.size(image)
    box = inception_box(height, width, min_area, random)
    pixels = decode.decode(
        image,
        min_height=math.ceil(height * image_size_px / box[2]),
        min_width=math.ceil(width * image_size_px / box[3]),
    )
    down, right = pixels.shape[0] / height, pixels.shape[1] / width
    return _shrink(pixels, (box[0] * down, box[1] * right, box[2] * down, box[3] * right), image_size_px)


def inception_box(height: int, width: int, min_area: float, random: np.random.Generator) -> Box:
    """A random part of an image, in whole pixels (Szegedy 2015, arXiv 1409.4842, Sec. 6).

    Its area is uniform between ``min_area`` and 1 times the image's. The logarithm of width / height is uniform between
    those of 3/4 and 4/3, and the position is uniform. A part that does not fit into the image is drawn again. After ten
    draws it is the largest square in the centre.

    Args:
      height, width: of the image in pixels.
      min_area: above 0 and at most 1.
      random: decides.
    """
    for _ in range(_MAX_TRIES):
        area = random.uniform(min_area, 1.0) * height * width
        ratio = math.exp(random.uniform(-_MAX_LOG_ASPECT_RATIO, _MAX_LOG_ASPECT_RATIO))
        box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < box_height <= height and 0 < box_width <= width:
            top = int(random.integers(height - box_height + 1))
            left = int(random.integers(width - box_width + 1))
            return top, left, box_height, box_width
    return central_square(height, width)


def _resize(pixels: np.ndarray, box: Box, image_size_px: int, interpolation: Image.Resampling) -> np.ndarray:
    """The part ``box`` of uint8 [height, width] with 1 or 3 channels as uint8 [P, P, 3]."""
    top, left, height, width = box
    if (height, width) == (image_size_px, image_size_px) and (top % 1, left % 1) == (0, 0):
        part = pixels[int(top) : int(top) + image_size_px, int(left) : int(left) + image_size_px]
        return np.array(np.broadcast_to(part, (image_size_px, image_size_px, 3)))
    # Only the pixels that it touches go to Pillow, which copies what it gets.
    first_row, first_column = math.floor(top), math.floor(left)
    part = pixels[first_row : math.ceil(top + height), first_column : math.ceil(left + width)]
    top, left = top - first_row, left - first_column
    picture = _picture(part).resize(
        (image_size_px, image_size_px), interpolation, box=(left, top, left + width, top + height)
    )
    return np.array(picture.convert("RGB"))


def _resize_whole(
    pixels: np.ndarray, size: tuple[int, int], corner: tuple[int, int], image_size_px: int, interpolation: str
) -> np.ndarray:
    """uint8 [height, width] with 1 or 3 channels at another ``size``, and of that the [P, P, 3] from a corner on."""
    if interpolation in _PILLOW:
        resized = np.array(_picture(pixels).resize(size[::-1], _PILLOW[interpolation]))
    else:
        resized = cv2.resize(pixels, size[::-1], interpolation=_OPENCV[interpolation])
    return _three_channels(resized[corner[0] : corner[0] + image_size_px, corner[1] : corner[1] + image_size_px])


def _three_channels(pixels: np.ndarray) -> np.ndarray:
    """[P, P, 3] of [P, P], or of [P, P] with 1 or 3 channels."""
    size = pixels.shape[:2]
    return np.ascontiguousarray(np.broadcast_to(pixels.reshape(*size, -1), (*size, 3)))


def _whole_pixels(pixels: np.ndarray, box: Box) -> np.ndarray:
    """A part of the pixels, at least one of them; the box is rounded to whole ones."""
    top, left = (round(place) for place in box[:2])
    height, width = (max(1, round(side)) for side in box[2:])
    return pixels[top : top + height, left : left + width]


def _picture(pixels: np.ndarray) -> Image.Image:
    """Of uint8 [height, width] with 1 or 3 channels."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _shrink(pixels: np.ndarray, box: Box, image_size_px: int) -> np.ndarray:
    """As :func:`_resize`, in the way of :func:`inception_crop`; the box is rounded to whole pixels."""
    part = _whole_pixels(pixels, box)
    method = cv2.INTER_AREA if min(part.shape[:2]) >= image_size_px else cv2.INTER_LINEAR
    return _three_channels(cv2.resize(part, (image_size_px, image_size_px), interpolation=method))


def _checked(image: np.ndarray) -> np.ndarray:
    """uint8 [height, width] with 1 or 3 channels; a missing channel axis is added."""
    if image.ndim == 2:
        image = image[..., None]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3):
        expected = "uint8 [height, width] with 1 or 3 channels"
        raise checks.error("image", expected, f"{image.dtype} {image.shape}")
    return image
