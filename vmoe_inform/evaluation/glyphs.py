"""Digits and letters in the fonts that matplotlib ships, drawn as scikit-learn's digits are: white on black."""

import functools
import string
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from vmoe_inform import checks

DIGITS = string.digits

# Letters that look like a digit in some font are left out, as few pixels make it worse. B looks like 8, DOQo like 0,
# Gb like 6, Iil like 1, Ss like 5, Zz like 2, and gq like 9. T, Y and A stay, since a 7 or a 4 has no such symmetry.
_LIKE_DIGITS = "BDGIOQSZbgiloqsz"
LETTERS = "".join(letter for letter in string.ascii_letters if letter not in _LIKE_DIGITS)

_DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_DRAWN_HEIGHT_PX = 256


def glyphs(characters: str, size_px: int) -> tuple[UInt8[np.ndarray, "n P P 1"], Int[np.ndarray, " n"]]:
    """Every character in every font that has it, without duplicates.

    Glyphs are normalised like the digits: scaled with their proportions to the height of the frame (wide ones to the
    width) and centred. The pixels are means over the area that they cover.

    Args:
      characters: digits and ASCII letters.
      size_px: P, side of the frame.

    Returns:
      images, in the order of the characters and then of the fonts' names, and for each the position of its character.

    Raises:
      ValueError: other characters, one that is there twice, or size_px < 1.
    """
    if not characters or not set(characters) <= set(DIGITS + string.ascii_letters):
        raise checks.error("characters", "digits and ASCII letters", characters)
    if len(set(characters)) != len(characters):
        raise checks.error("characters", "each character once", characters)
    if size_px < 1:
        raise checks.error("size_px", "a number >= 1", size_px)
    images: list[np.ndarray] = []
    positions: list[int] = []
    for position, character in enumerate(characters):
        drawn = {_draw(character, path, size_px).tobytes(): path for path in fonts_with(character)}
        images += [np.frombuffer(pixels, np.uint8).reshape(size_px, size_px, 1) for pixels in drawn]
        positions += [position] * len(drawn)
    return np.stack(images), np.asarray(positions, np.int32)


def fonts_with(character: str) -> list[Path]:
    """Font files, in the order of their names, whose glyph for ``character`` is that digit or letter.

    A font must map the code point to a glyph of the right name. Symbol fonts have arrows and primes in the places of
    digits, and Computer Modern's italic has old-style figures. A font of last resort has one box for everything.
    """
    return [path for path, names in _glyph_names().items() if names.get(character) == _glyph_name(character)]


def _glyph_name(character: str) -> str:
    """Name by the Adobe glyph list: a letter's is itself."""
    return _DIGIT_NAMES[int(character)] if character in DIGITS else character


@functools.cache
def _glyph_names() -> dict[Path, dict[str, str]]:
    """For each font file, the names of its glyphs for digits and letters."""
    import matplotlib
    from matplotlib.ft2font import FT2Font

    result = {}
    for path in sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("*.ttf")):
        font = FT2Font(str(path))
        glyph_of = font.get_charmap()
        present = [character for character in DIGITS + string.ascii_letters if ord(character) in glyph_of]
        result[path] = {character: font.get_glyph_name(glyph_of[ord(character)]) for character in present}
    return result


def _draw(character: str, path: Path, size_px: int) -> UInt8[np.ndarray, "P P"]:
    # The basic layout is in every build of Pillow.
    font = ImageFont.truetype(str(path), _DRAWN_HEIGHT_PX, layout_engine=ImageFont.Layout.BASIC)
    canvas = Image.new("L", (3 * _DRAWN_HEIGHT_PX, 3 * _DRAWN_HEIGHT_PX))
    ImageDraw.Draw(canvas).text((_DRAWN_HEIGHT_PX, _DRAWN_HEIGHT_PX), character, fill=255, font=font)
    glyph = canvas.crop(canvas.getbbox())
    scale = size_px / max(glyph.size)
    width, height = (max(1, round(side * scale)) for side in glyph.size)
    frame = Image.new("L", (size_px, size_px))
    frame.paste(glyph.resize((width, height), Image.Resampling.BOX), ((size_px - width) // 2, (size_px - height) // 2))
    return np.asarray(frame)
