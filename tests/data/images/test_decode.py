import collections
import contextlib
import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from vmoe_inform.data.images import decode

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


# ------------------------------------------------------------------------------------------------------ one way to fail


def test_the_same_number_of_pixels_is_too_many_in_every_format():
    """95 megapixels, of which Pillow only warns, are read; the same limit holds for PNG and JPEG."""

    def claiming(height, width):
        start = PLAIN.index(b"\xff\xc0")
        jpeg = PLAIN[: start + 5] + struct.pack(">HH", height, width) + PLAIN[start + 9 :]
        header = b"IHDR" + struct.pack(">II", width, height) + b"\x08\x02\0\0\0"
        png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
        gif = b"GIF89a" + struct.pack("<HH", width, height) + b"\0\0\0"
        return jpeg, png + b"\0\0\0\0IDAT" + bytes(4), gif + b"," + bytes(9) + b"\x08\0;"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # as decode does where pytest does not
        assert {decode.size(content) for content in claiming(9500, 10000)} == {(9500, 10000)}
        for content in claiming(13378, 13378):
            with pytest.raises(decode.UnreadableImageError, match=r"at most|exceeds limit"):
                decode.size(content)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, color, raw, *, interlaced=False, cut=0):
    """A PNG of this raw data, in three chunks; ``cut`` bytes are missing of the compressed data."""
    header = struct.pack(">II", width, height) + bytes([depth, color, 0, 0, interlaced])
    packed = zlib.compress(raw)
    packed = packed[: len(packed) - cut]
    parts = chunk(b"IDAT", packed[:7]) + chunk(b"IDAT", b"") + chunk(b"IDAT", packed[7:])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + parts + chunk(b"IEND", b"")


def unreadable(content):
    with pytest.raises(decode.UnreadableImageError):
        decode.decode(content)


@pytest.mark.parametrize(("depth", "color", "channels"), [(8, 2, 3), (1, 0, 1), (16, 4, 2)])
@pytest.mark.parametrize(("width", "height"), [(9, 7), (1, 1), (1, 16), (16, 1), (5, 3)])
@pytest.mark.parametrize("interlaced", [False, True])
def test_a_png_with_too_few_rows_is_unreadable(width, height, depth, color, channels, interlaced):
    """By the plain definition of the seven passes: of each 8 x 8 block, these pixels."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = []
    for top, left, down, right in passes if interlaced else [(0, 0, 1, 1)]:
        columns = len(range(left, width, right))
        row = b"\0" + b"\xff" * ((columns * channels * depth + 7) // 8)
        rows += [row] * len(range(top, height, down)) if columns else []
    whole = png(width, height, depth, color, b"".join(rows), interlaced=interlaced)
    assert (decode.decode(whole) == 255).all()
    unreadable(png(width, height, depth, color, b"".join(rows[:-1]), interlaced=interlaced))
    unreadable(png(width, height, depth, color, b"".join(rows)[:-1], interlaced=interlaced))


def test_a_png_whose_last_checksum_is_missing_has_all_its_pixels():
    raw = (b"\0" + b"\xff" * 9) * 3
    for content in (png(3, 3, 8, 2, raw, cut=2), png(3, 3, 8, 2, raw + b"more")):
        assert (decode.decode(content) == 255).all()


def with_tag(content, tag, value):
    """A TIFF of Pillow with another value of a short tag."""
    (directory,) = struct.unpack_from("<I", content, 4)
    for entry in range(directory + 2, directory + 2 + 12 * struct.unpack_from("<H", content, directory)[0], 12):
        if struct.unpack_from("<H", content, entry)[0] == tag:
            content = content[: entry + 8] + struct.pack("<H", value) + content[entry + 10 :]
    return content


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
@pytest.mark.parametrize("rows_of_strip", [90, 180])
def test_a_tiff_with_too_few_rows_is_unreadable(compression, rows_of_strip):
    whole = encoded(kind="TIFF", **({"compression": compression} if compression else {}))
    assert decode.decode(whole).shape == (90, 120, 3)
    unreadable(with_tag(with_tag(whole, 257, 180), 278, rows_of_strip))


@pytest.mark.parametrize("compression", [None, "jpeg"])
@pytest.mark.parametrize(("mode", "strip_size"), [("RGB", 8192), ("L", 8192), ("CMYK", None), ("LA", None)])
def test_a_tiff_of_strips_that_is_turned_is_whole(compression, mode, strip_size):
    options = {"compression": compression} if compression else {}
    if strip_size:
        options["strip_size"] = strip_size
    turned = Image.Exif()
    turned[274] = 6
    assert decode.decode(encoded(kind="TIFF", mode=mode, exif=turned, **options)).shape == (120, 90, 3)


@pytest.mark.parametrize("no_jp2", [False, True])
def test_a_jpeg2000_without_one_of_its_tiles_is_unreadable(no_jp2):
    content = encoded(kind="JPEG2000", no_jp2=no_jp2, tile_size=(64, 64))
    assert decode.decode(content).shape == (90, 120, 3)
    unreadable(content[: content.rindex(b"\xff\x90\0\x0a\0\3")] + END)


def test_formats_that_pillow_gives_to_other_programs_are_not_opened():
    with pytest.raises(decode.UnreadableImageError, match="of no image format \\(known: AVIF, BMP, "):
        decode.decode(encoded(kind="EPS"))


FORMATS = {
    "JPEG": {},
    "progressive": {"kind": "JPEG", "progressive": True},
    "CMYK": {"kind": "JPEG", "mode": "CMYK"},
    "PNG": {},
    "palette": {"kind": "PNG", "mode": "P"},
    "16 bits": {"kind": "PNG", "mode": "I;16"},
    "GIF": {"mode": "P"},
    "BMP": {},
    "TIFF": {},
    "LZW": {"kind": "TIFF", "compression": "tiff_lzw"},
    "deflate": {"kind": "TIFF", "compression": "tiff_adobe_deflate"},
    "WEBP": {},
    "lossless": {"kind": "WEBP", "lossless": True},
    "AVIF": {},
    "JPEG2000": {},
    "PPM": {},
}
SMALL = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.filterwarnings("ignore")  # of Pillow's, about metadata
def test_damaged_files_are_images_or_the_one_error(name):
    """Cut anywhere: whole to the pixel, or unreadable. Flipped bits: some image, or unreadable."""
    options = {"kind": name, **FORMATS[name]}
    content = encoded(SMALL, **options)
    assert decode.size(content) == (30, 40)
    whole = decode.decode(content)
    for end in [*range(0, len(content), max(1, len(content) // 40)), *range(len(content) - 12, len(content))]:
        with contextlib.suppress(decode.UnreadableImageError):
            np.testing.assert_array_equal(decode.decode(content[:end]), whole)
    random = np.random.default_rng(0)
    ends = collections.Counter()
    for _ in range(150):
        damaged = np.frombuffer(content, np.uint8).copy()
        places = random.integers(0, random.choice([min(200, len(content)), len(content)]), 2)
        damaged[places] ^= (1 << random.integers(0, 8, 2)).astype(np.uint8)
        try:
            size = decode.size(damaged.tobytes())
            assert min(size) > 0
            if np.prod(size) < 10**6:  # what a header claims takes its time
                pixels = decode.decode(damaged.tobytes())
                assert (pixels.dtype, pixels.ndim, pixels.shape[-1]) == (np.uint8, 3, 3)
            ends["image"] += 1
        except decode.UnreadableImageError:
            ends["unreadable"] += 1
    assert ends["unreadable"] > 0


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("GIF", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("AVIF", {"quality": 100})],
)
def test_of_several_frames_the_first_is_shown(kind, options):
    first, second = (np.full((16, 16, 3), value, np.uint8) for value in (0, 255))
    content = encoded(first, kind, save_all=True, append_images=[Image.fromarray(second)], **options)
    assert Image.open(io.BytesIO(content)).n_frames == 2
    np.testing.assert_array_equal(decode.decode(content), first)
