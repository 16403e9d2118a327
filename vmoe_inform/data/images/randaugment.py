"""RandAugment on the host (Cubuk 2019, arXiv 1909.13719), with the magnitudes of Google's Cloud TPU models.

google-research/vmoe trains with these. Each operation is a pure function of an image and its random values. It is
registered with its meaning at a level of 0 to 10.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageEnhance, ImageOps

from vmoe_inform import checks
from vmoe_inform.registry import Registry

MAX_LEVEL = 10.0
_GRAY = 128  # what moving an image uncovers
_FULL_SIZE_PX = 224  # the lengths below are of images at least that large, and shrink in proportion in smaller ones
_TRANSLATE_PX = 100
_CUTOUT_PX = 40
_ROTATE_DEGREES = 30
_SHEAR = 0.3
_SOLARIZE_ADD = 110

Picture = Image.Image


@dataclasses.dataclass(frozen=True)
class Draw:
    """The random values of one operation.

    Attributes:
      sign: +1 or -1, the direction of a movement.
      row, column: 0 to 1, a place in the image.
    """

    sign: int
    row: float
    column: float


OPERATIONS: Registry[Callable[[Picture, float, Draw], Picture]] = Registry("RandAugment operation")


def randaugment(
    image: UInt8[np.ndarray, "height width 3"], layers: int, magnitude: float, random: np.random.Generator
) -> UInt8[np.ndarray, "height width 3"]:
    """``layers`` operations one after the other, each drawn uniformly from the 16 and of the same magnitude.

    Args:
      image: red, green and blue.
      layers: number of operations; 0 changes nothing.
      magnitude: 0 to 10. Not every operation is the identity at 0, see each of them.
      random: decides operations, signs and places.

    Raises:
      ValueError: a magnitude outside of 0 to 10.
    """
    if not 0 <= magnitude <= MAX_LEVEL:
        raise checks.error("magnitude", f"0 to {MAX_LEVEL:g}", magnitude)
    names = list(OPERATIONS)
    picture = Image.fromarray(image)
    for _ in range(layers):
        name = names[int(random.integers(len(names)))]
        draw = Draw(1 if random.random() < 0.5 else -1, random.random(), random.random())
        picture = OPERATIONS[name](picture, magnitude, draw)
    return np.array(picture)


def apply(
    name: str, image: UInt8[np.ndarray, "height width 3"], level: float, draw: Draw
) -> UInt8[np.ndarray, "height width 3"]:
    """One operation by its name.

    Raises:
      ValueError: an unknown name.
    """
    return np.array(OPERATIONS[name](Image.fromarray(image), level, draw))


# ------------------------------------------------------------------------------------------------------------- tones


@OPERATIONS.register("AutoContrast")
def _autocontrast(picture: Picture, level: float, draw: Draw) -> Picture:
    """Stretches each channel to 0 to 255, at any level."""
    return ImageOps.autocontrast(picture)


@OPERATIONS.register("Equalize")
def _equalize(picture: Picture, level: float, draw: Draw) -> Picture:
    """Spreads each channel so that its values are equally frequent, at any level."""
    return ImageOps.equalize(picture)


@OPERATIONS.register("Invert")
def _invert(picture: Picture, level: float, draw: Draw) -> Picture:
    """255 - value, at any level."""
    return ImageOps.invert(picture)


@OPERATIONS.register("Posterize")
def _posterize(picture: Picture, level: float, draw: Draw) -> Picture:
    """Keeps the upper 0.4 * level bits, rounded down: 4 at level 10.

    At levels below 2.5 that is none. Then the uppermost bit stays, since TensorFlow shifts a byte by at most 7 bits.
    """
    return ImageOps.posterize(picture, max(1, int(level / MAX_LEVEL * 4)))


@OPERATIONS.register("Solarize")
def _solarize(picture: Picture, level: float, draw: Draw) -> Picture:
    """Inverts values from 25.6 * level on: all at 0, none at 10."""
    return ImageOps.solarize(picture, int(level / MAX_LEVEL * 256))


@OPERATIONS.register("SolarizeAdd")
def _solarize_add(picture: Picture, level: float, draw: Draw) -> Picture:
    """Adds 11 * level to values below 128; nothing at 0."""
    added = int(level / MAX_LEVEL * _SOLARIZE_ADD)
    table = [min(255, value + added) if value < 128 else value for value in range(256)]
    return picture.point(table * len(picture.getbands()))


# ------------------------------------------------------------------------------------------------------ enhancements


def _enhancement(level: float) -> float:
    """Weight of the image in a mix with its degenerate form: 0.1 at level 0, the image itself at 5, 1.9 at 10."""
    return level / MAX_LEVEL * 1.8 + 0.1


@OPERATIONS.register("Color")
def _color(picture: Picture, level: float, draw: Draw) -> Picture:
    """Mixes with the gray image, or away from it."""
    return ImageEnhance.Color(picture).enhance(_enhancement(level))


@OPERATIONS.register("Contrast")
def _contrast(picture: Picture, level: float, draw: Draw) -> Picture:
    """Mixes with the mean gray, or away from it. (The Cloud TPU code takes the number of pixels / 256 for the mean.)"""
    return ImageEnhance.Contrast(picture).enhance(_enhancement(level))


@OPERATIONS.register("Brightness")
def _brightness(picture: Picture, level: float, draw: Draw) -> Picture:
    """Mixes with black, or away from it."""
    return ImageEnhance.Brightness(picture).enhance(_enhancement(level))


@OPERATIONS.register("Sharpness")
def _sharpness(picture: Picture, level: float, draw: Draw) -> Picture:
    """Mixes with the smoothed image, or away from it."""
    return ImageEnhance.Sharpness(picture).enhance(_enhancement(level))


# --------------------------------------------------------------------------------------------------------- movements


@OPERATIONS.register("Rotate")
def _rotate(picture: Picture, level: float, draw: Draw) -> Picture:
    """By 3 * level degrees about the centre, either way, to the nearest pixel."""
    degrees = draw.sign * level / MAX_LEVEL * _ROTATE_DEGREES
    return picture.rotate(degrees, Image.Resampling.NEAREST, fillcolor=(_GRAY,) * 3)


@OPERATIONS.register("ShearX")
def _shear_x(picture: Picture, level: float, draw: Draw) -> Picture:
    """Shears: row y is shifted by 0.03 * level * y pixels, either way."""
    shear = draw.sign * level / MAX_LEVEL * _SHEAR
    return _affine(picture, (1, shear, 0, 0, 1, 0))


@OPERATIONS.register("ShearY")
def _shear_y(picture: Picture, level: float, draw: Draw) -> Picture:
    """Shears: column x is shifted by 0.03 * level * x pixels, either way."""
    shear = draw.sign * level / MAX_LEVEL * _SHEAR
    return _affine(picture, (1, 0, 0, shear, 1, 0))


@OPERATIONS.register("TranslateX")
def _translate_x(picture: Picture, level: float, draw: Draw) -> Picture:
    """By 10 * level pixels (at 224 px and more) to the left or right."""
    return _affine(picture, (1, 0, draw.sign * _pixels(picture, level, _TRANSLATE_PX), 0, 1, 0))


@OPERATIONS.register("TranslateY")
def _translate_y(picture: Picture, level: float, draw: Draw) -> Picture:
    """By 10 * level pixels (at 224 px and more) up or down."""
    return _affine(picture, (1, 0, 0, 0, 1, draw.sign * _pixels(picture, level, _TRANSLATE_PX)))


@OPERATIONS.register("Cutout")
def _cutout(picture: Picture, level: float, draw: Draw) -> Picture:
    """Grays the pixels within 4 * level (at 224 px and more) of a random one.

    It is a square of up to 80 px, cut off at the edges of the image.
    """
    reach = int(_pixels(picture, level, _CUTOUT_PX))
    row, column = int(draw.row * picture.height), int(draw.column * picture.width)
    pixels = np.array(picture)
    pixels[max(0, row - reach) : row + reach, max(0, column - reach) : column + reach] = _GRAY
    return Image.fromarray(pixels)


def _pixels(picture: Picture, level: float, at_full_size: float) -> float:
    return level / MAX_LEVEL * at_full_size * min(1.0, min(picture.size) / _FULL_SIZE_PX)


def _affine(picture: Picture, coefficients: tuple[float, float, float, float, float, float]) -> Picture:
    """Pixel (x, y) shows the one nearest to (a x + b y + c, d x + e y + f), gray outside of the image.

    Pillow counts from the corner of the first pixel, half a pixel before its centre.
    """
    a, b, c, d, e, f = coefficients
    shifted = (a, b, c + (1 - a - b) / 2, d, e, f + (1 - d - e) / 2)
    return picture.transform(
        picture.size, Image.Transform.AFFINE, shifted, Image.Resampling.NEAREST, fillcolor=(_GRAY,) * 3
    )
