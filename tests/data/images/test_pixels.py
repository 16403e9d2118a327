import io

import numpy as np
import pytest
from PIL import Image

from vmoe_inform.data.images import decode
from vmoe_inform.data.images import pixels as images
from vmoe_inform.data.images.framing import Framing


def encoded(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def flat(mode, color):
    return Image.new(mode, (4, 4), color)


def test_gray_array_is_enlarged_bilinearly_to_three_equal_channels():
    # Two pixels to four: the outer ones keep the ends, the inner ones are 1/4 and 3/4 of the way.
    image = np.array([[40, 160], [40, 160]], np.uint8)[..., None]
    result = images.to_square(image, 4)
    assert result.shape == (4, 4, 3)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, np.broadcast_to(np.array([40, 70, 130, 160])[None, :, None], (4, 4, 3)))


def test_array_of_the_right_size_stays():
    image = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)
    np.testing.assert_array_equal(images.to_square(image, 6), image)


@pytest.mark.parametrize("transposed", [False, True])
def test_centre_is_cropped(transposed):
    # Width 6, height 2: the centre square holds columns 2 and 3.
    image = np.zeros((2, 6, 3), np.uint8)
    image[:, 2], image[:, 3] = 100, 200
    if transposed:
        image = image.swapaxes(0, 1)
    np.testing.assert_array_equal(images.to_square(image, 2), image[:, 2:4] if not transposed else image[2:4])


def test_a_share_of_the_centre_is_cropped():
    # Height 4, width 8: half of the shorter side is the square of rows 1 and 2 and columns 3 and 4.
    image = np.arange(32, dtype=np.uint8).reshape(4, 8)
    result = images.to_square(image, 2, Framing(0.5))
    np.testing.assert_array_equal(result[..., 0], image[1:3, 3:5])


@pytest.mark.parametrize(
    ("content", "color"),
    [
        (encoded(flat("RGB", (10, 20, 30)), "PNG"), (10, 20, 30)),
        (encoded(flat("L", 77), "PNG"), (77, 77, 77)),
        (encoded(flat("1", 1), "PNG"), (255, 255, 255)),
        (encoded(flat("RGBA", (10, 20, 30, 40)), "PNG"), (10, 20, 30)),
        (encoded(flat("RGB", (10, 20, 30)).quantize(4), "GIF"), (10, 20, 30)),
        # CMYK without black: red is 255 - cyan.
        (encoded(flat("CMYK", (255, 0, 55, 0)), "TIFF"), (0, 255, 200)),
        # 16 bits: 0x8080 = 128 * 257.
        (encoded(Image.fromarray(np.full((4, 4), 0x8080, np.uint16)), "PNG"), (128, 128, 128)),
        (encoded(Image.fromarray(np.full((4, 4), 0x8080, np.int32)), "TIFF"), (128, 128, 128)),
    ],
)
def test_every_kind_of_file_becomes_rgb(content, color):
    np.testing.assert_array_equal(images.to_square(content, 4), np.broadcast_to(np.uint8(color), (4, 4, 3)))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no image",
        encoded(flat("RGB", 0).resize((64, 64)), "JPEG")[:-200],
        encoded(Image.effect_noise((64, 64), 50), "PNG")[:-300],
        encoded(Image.effect_noise((64, 64), 50), "PNG")[:60] + b"\xff" * 4000,
        encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"),
    ],
)
def test_damaged_bytes_are_unreadable(content):
    with pytest.raises(decode.UnreadableImageError):
        images.to_square(content, 4)


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros(4, np.uint8)])
def test_wrong_array_is_an_error_of_the_program(image):
    with pytest.raises(ValueError, match="image: expected uint8") as caught:
        images.to_square(image, 4)
    assert not isinstance(caught.value, decode.UnreadableImageError)


def test_a_random_part_has_the_area_shape_and_place_that_it_should():
    height, width = 300, 400
    random = np.random.default_rng(0)
    boxes = np.array([images.inception_box(height, width, 0.08, random) for _ in range(2000)])
    top, left, box_height, box_width = boxes.T
    assert (boxes == boxes.round()).all()
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + box_height <= height).all()
    assert (left + box_width <= width).all()
    area, ratio = box_height * box_width / (height * width), box_width / box_height
    # What does not fit is drawn again. That is large parts only: up to 300^2 * 3/4 = 0.5625 of the image, no shape is
    # higher than 300, so that areas there are uniform.
    assert area.min() > 0.079
    assert area.max() > 0.95
    small = area[area < 0.56]
    np.testing.assert_allclose(small.mean(), (0.08 + 0.56) / 2, atol=0.02)  # four standard errors of 0.139 / sqrt(900)
    assert 0.74 < ratio.min() < 0.76
    assert 1.32 < ratio.max() < 1.35
    assert abs(np.log(ratio[area < 0.56]).mean()) < 0.025  # wide as often as high: 0.166 / sqrt(900) times four
    assert (top == 0).any()
    assert (left + box_width == width).any()


def test_what_never_fits_is_the_square_in_the_centre():
    assert images.inception_box(10, 1000, 0.9, np.random.default_rng(0)) == (0, 495, 10, 10)


def test_the_generator_decides():
    first, again, other = (images.inception_box(90, 70, 0.1, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("channels", [1, 3])
def test_a_random_part_is_shrunk_to_the_mean_over_each_pixel(channels):
    """Slowly: each pixel of the result is the mean of what it covers, parts of pixels by their share."""
    image = np.random.default_rng(0).integers(0, 256, (40, 44, channels), np.uint8)
    top, left, height, width = images.inception_box(40, 44, 0.5, np.random.default_rng(3))
    part = image[top : top + height, left : left + width].astype(float)

    def covering(length):
        starts, pixels = np.arange(8)[:, None] * length / 8, np.arange(length)[None]
        return np.clip(np.minimum(starts + length / 8, pixels + 1) - np.maximum(starts, pixels), 0, None) / length * 8

    expected = np.einsum("yi,xj,ijc->yxc", covering(height), covering(width), part)
    result = images.inception_crop(image, 8, 0.5, np.random.default_rng(3))
    assert (result.dtype, result.shape) == (np.uint8, (8, 8, 3))
    np.testing.assert_allclose(result, np.broadcast_to(expected, (8, 8, 3)), atol=0.6)  # rounded


def test_a_random_part_is_enlarged_bilinearly():
    ramp = np.repeat(np.arange(0, 240, 30, dtype=np.uint8)[:, None], 8, axis=1)  # 30 a row
    result = images.inception_crop(ramp, 32, 1.0, np.random.default_rng(0))  # only the whole image has that area
    np.testing.assert_allclose(np.diff(result[2:-2, :, 0].astype(int), axis=0), 30 / 4, atol=0.6)


def test_a_random_part_of_a_large_jpeg_is_that_of_the_decoded_image():
    """Decoded at 1/4, by its low frequencies: the same picture within a few values."""
    rows, columns = np.mgrid[0:512, 0:640]
    smooth = np.stack([rows // 4, columns // 4, 255 - (rows + columns) // 8], axis=-1).astype(np.uint8)
    content = encoded(Image.fromarray(smooth), "JPEG", quality=95)
    for seed in range(5):
        part = images.inception_crop(content, 32, 0.3, np.random.default_rng(seed))
        whole = images.inception_crop(decode.decode(content), 32, 0.3, np.random.default_rng(seed))
        assert np.abs(part.astype(int) - whole).max() <= 4
