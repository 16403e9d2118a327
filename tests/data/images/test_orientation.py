"""Photos are turned as cameras say that they were held."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from vmoe_inform.data.images import decode
from vmoe_inform.data.images.orientation import upright

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)


def photo(orientation, kind="PNG"):
    exif, file = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(PIXELS).save(file, kind, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_photos_are_turned_as_pillow_turns_them(orientation, kind):
    content = photo(orientation, kind)
    with Image.open(io.BytesIO(content)) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
    found = upright(content)
    assert found.shape == ((5, 7, 3) if orientation < 5 else (7, 5, 3))
    if kind == "JPEG":  # decoded by another program
        np.testing.assert_allclose(found.astype(int), expected, atol=2)
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("orientation", [0, 1, 9, 65535])
def test_what_need_not_be_turned_stays_as_it_is(orientation):
    content = photo(orientation)
    assert upright(content) is content


def test_damaged_or_missing_notes_turn_nothing():
    plain = io.BytesIO()
    Image.fromarray(PIXELS).save(plain, "PNG")
    for content in (b"", b"no image", plain.getvalue(), photo(6, "JPEG").replace(b"\x01\x12", b"\x01\x13")):
        assert upright(content) is content


def test_a_photo_that_has_to_be_turned_and_is_not_whole_is_unreadable():
    with pytest.raises(decode.UnreadableImageError):
        upright(photo(6)[:-60])
