import string
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from fontTools.ttLib import TTFont

from vmoe_inform.evaluation import glyphs


def test_every_digit_has_many_distinct_renditions():
    images, positions = glyphs.glyphs(glyphs.DIGITS, 8)
    assert images.shape == (len(positions), 8, 8, 1)
    assert images.dtype == np.uint8
    assert (np.bincount(positions, minlength=10) >= 15).all()
    assert len({image.tobytes() for image in images}) == len(images)


def test_glyphs_fill_the_frame_in_the_middle():
    images, _ = glyphs.glyphs("1W", 28)
    for image in images[..., 0]:
        rows, columns = np.flatnonzero(image.max(axis=1)), np.flatnonzero(image.max(axis=0))
        margins = (rows[0], 27 - rows[-1], columns[0], 27 - columns[-1])
        # A pixel that a glyph covers by less than 1/510 is black: a margin of one is still filled.
        assert min(rows[0] + 27 - rows[-1], columns[0] + 27 - columns[-1]) <= 1
        assert abs(margins[0] - margins[1]) <= 2
        assert abs(margins[2] - margins[3]) <= 2
        assert image.max() > 100  # white on black


def test_glyphs_are_the_same_each_time():
    for first, again in zip(glyphs.glyphs("3k", 8), glyphs.glyphs("3k", 8), strict=True):
        np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("character", ["0", "7", "A", "q"])
def test_fonts_agree_with_fonttools(character):
    """Another reader of the font files finds the same ones."""
    name = {"0": "zero", "7": "seven"}.get(character, character)
    expected = []
    for path in sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("*.ttf")):
        # lazy: of the largest font only the two tables that are asked for are read
        with TTFont(path, lazy=True) as font:
            glyph = font.getBestCmap().get(ord(character)) if font.getBestCmap() else None
            if glyph == name:
                expected.append(path.name)
    found = [path.name for path in glyphs.fonts_with(character)]
    assert set(expected) <= set(found)
    # Computer Modern's tables map the Macintosh's code points only, which FreeType turns into Unicode.
    assert {name[:2] for name in set(found) - set(expected)} <= {"cm"}


def test_symbol_fonts_are_left_out():
    names = {path.name for path in glyphs.fonts_with("7")}
    # In these the code point of 7 shows: an arrow, a bracket, an old-style figure, the box of the last resort.
    assert not names & {"cmsy10.ttf", "cmex10.ttf", "cmmi10.ttf", "LastResortHE-Regular.ttf"}
    assert {"DejaVuSans.ttf", "STIXGeneral.ttf", "cmr10.ttf"} <= names


def test_letters_that_look_like_digits_are_left_out():
    assert set("OoIlDQ") & set(glyphs.LETTERS) == set()
    assert set(glyphs.LETTERS) < set(string.ascii_letters)
    assert len(glyphs.LETTERS) >= 26


@pytest.mark.parametrize(("characters", "size_px"), [("", 8), ("é", 8), ("11", 8), ("1", 0)])
def test_bad_input(characters, size_px):
    with pytest.raises(ValueError, match="expected"):
        glyphs.glyphs(characters, size_px)
