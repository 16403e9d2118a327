import io

import numpy as np
import pytest
from PIL import Image

from vmoe_inform.data import decode, images


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
    result = images.to_square(image, 2, crop=0.5)
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
