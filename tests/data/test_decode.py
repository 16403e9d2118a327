import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from vmoe_inform.data import decode

# Smooth, so that a JPEG is close to what it was made of: 120 wide, 90 high.
_ROWS, _COLUMNS = np.mgrid[0:90, 0:120]
PICTURE = np.stack([2 * _ROWS, 2 * _COLUMNS, 255 - _ROWS - _COLUMNS], axis=-1).astype(np.uint8)


def encoded(picture=PICTURE, kind="JPEG", mode="RGB", **options):
    buffer = io.BytesIO()
    Image.fromarray(picture).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


PLAIN = encoded(quality=95)


@pytest.mark.parametrize(
    ("content", "tolerance"),
    [
        (PLAIN, 6),
        (encoded(quality=95, progressive=True), 6),
        (encoded(quality=95, subsampling=0), 6),
        (encoded(quality=95, restart_marker_blocks=4), 6),
        (encoded(mode="CMYK", quality=95), 6),
        (encoded(kind="PNG"), 0),
        (encoded(kind="PNG", mode="RGBA"), 0),
        (PLAIN + b"anything", 6),
    ],
    ids=["plain", "progressive", "full chroma", "restart markers", "CMYK", "PNG", "RGBA", "bytes after the end"],
)
def test_whole_files_are_what_they_were_made_of(content, tolerance):
    assert decode.size(content) == (90, 120)
    pixels = decode.decode(content)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (90, 120, 3))
    assert np.abs(pixels.astype(int) - PICTURE).max() <= tolerance


def test_exact_dct_and_smooth_chroma_are_those_of_pillow_too():
    np.testing.assert_array_equal(decode.decode(PLAIN), np.asarray(Image.open(io.BytesIO(PLAIN))))


def test_gray_has_three_equal_channels():
    pixels = decode.decode(encoded(mode="L", quality=95))
    assert (pixels == pixels[..., :1]).all()
    np.testing.assert_allclose(pixels[..., 0], np.asarray(Image.fromarray(PICTURE).convert("L")), atol=4)


def test_a_harmless_warning_of_libjpeg_is_no_error():
    content = encoded(np.random.default_rng(0).integers(0, 256, (61, 97, 3), np.uint8), quality=90)
    odd = content[:-2] + b"\x11\x22\x33" + content[-2:]
    with pytest.raises(ValueError, match="extraneous bytes before marker"):
        simplejpeg.decode_jpeg(odd)
    np.testing.assert_array_equal(decode.decode(odd), decode.decode(content))


END = b"\xff\xd9"


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"mode": "CMYK"}, {"mode": "L"}], ids=str)
@pytest.mark.parametrize("kept", [0.3, 0.7, 0.95])
def test_a_truncated_jpeg_is_unreadable_also_if_its_end_was_mended(options, kept):
    """What Pillow by itself shows of the mended file is gray from where the data end."""
    content = encoded(**options)
    cut = content[: max(int(kept * len(content)), 650)]
    for damaged in (cut, cut + END):
        with pytest.raises(decode.UnreadableImageError):
            decode.decode(damaged)


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff", b"no image at all", PLAIN[:100], encoded(kind="PNG")[:-40]])
def test_what_is_no_image_is_unreadable(content):
    with pytest.raises(decode.UnreadableImageError):
        decode.decode(content)


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff", b"no image at all", PLAIN[:100]])
def test_what_has_no_header_has_no_size(content):
    with pytest.raises(decode.UnreadableImageError):
        decode.size(content)


def test_a_header_that_claims_a_gigapixel_is_unreadable():
    """Instead of taking all memory: the frame header says 65,500 x 65,500."""
    start = PLAIN.index(b"\xff\xc0")
    content = PLAIN[: start + 5] + (65500).to_bytes(2, "big") * 2 + PLAIN[start + 9 :]
    with pytest.raises(decode.UnreadableImageError, match="pixels; received 65500 x 65500"):
        decode.size(content)
    with pytest.raises(decode.UnreadableImageError, match="pixels; received 65500 x 65500"):
        decode.decode(content)


@pytest.mark.parametrize(
    ("least", "shape"),
    [
        ((90, 120), (90, 120)),
        ((46, 60), (90, 120)),  # a half would be 45 rows
        ((45, 60), (45, 60)),
        ((45, 10), (45, 60)),
        ((20, 20), (23, 30)),  # a quarter, rounded up
        ((1, 1), (12, 15)),
        ((0, 0), (90, 120)),
    ],
)
def test_scaled_decoding_keeps_the_least_size_and_shows_the_same(least, shape):
    pixels = decode.decode(PLAIN, *least)
    assert pixels.shape[:2] == shape
    resized = Image.fromarray(PICTURE).resize(shape[::-1], Image.Resampling.BOX)
    assert np.abs(pixels.astype(int) - np.asarray(resized)).max() <= 12
