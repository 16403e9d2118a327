"""The pixels of other libraries, in tests/golden: ``PHOTOGRAPH/RESIZE/INTERPOLATION/CROP`` of photographs.

The photographs are scikit-image's.

- ``timm_pixels.npz``: timm 1.0.31 with torchvision 0.28 and Pillow 13, by ``timm.data.create_transform`` with
  ``input_size=(3, 40, 40)``, ``crop_mode`` "center" or "squash", mean 0 and standard deviation 1, times 255.
- ``tensorflow_pixels.npz``: ``tf.image.resize`` of TensorFlow 2.21, rounded. ``bilinear_aliased`` is its default.
  ``area`` is followed by the crop of big_vision's ``central_crop``. ``small`` is a part of ``astronaut``, enlarged.
"""

import dataclasses
import functools
import pathlib

import numpy as np
import PIL.Image
import pytest
import skimage.data

from vmoe_inform.config import parse
from vmoe_inform.data.images.framing import Framing
from vmoe_inform.data.images.pixels import to_square

GOLDEN = pathlib.Path(__file__).parents[2] / "golden"
NOT_TESTED = "NOT TESTED: pixels of timm; pip install 'vmoe-inform[timm]'"
TIMM_MODES = {"shorter_side": "center", "stretch": "squash"}


@functools.cache
def golden(library):
    with np.load(GOLDEN / f"{library}_pixels.npz") as file:
        return {name: file[name] for name in file.files}


def photograph(name):
    if name == "small":
        return photograph("astronaut")[100:125, 100:130]
    return np.asarray(getattr(skimage.data, name)())


def framing_of(name):
    photo, resize, interpolation, crop = name.split("/")
    return photo, Framing(float(crop), resize, interpolation)


def levels_apart(ours, theirs):
    return np.max(np.abs(ours.astype(int) - theirs.astype(int)))


@pytest.mark.parametrize("name", golden("timm"))
def test_pixels_are_those_of_timm(name):
    photo, framing = framing_of(name)
    assert levels_apart(to_square(photograph(photo), 40, framing), golden("timm")[name]) <= 1


@pytest.mark.parametrize("name", golden("tensorflow"))
def test_pixels_are_those_of_tensorflow(name):
    photo, framing = framing_of(name)
    theirs = golden("tensorflow")[name]
    assert levels_apart(to_square(photograph(photo), 40, framing), theirs) <= 1
    antialiased = dataclasses.replace(framing, interpolation="bilinear")
    assert photo == "small" or levels_apart(to_square(photograph(photo), 40, antialiased), theirs) > 10


@pytest.mark.parametrize("photo", ["astronaut", "chelsea", "coffee", "rocket"])
def test_the_square_in_one_step_has_other_pixels(photo):
    """So that the test above could fail: corners between pixels, and sides that are not rounded."""
    name = f"{photo}/shorter_side/bicubic/0.9"
    assert levels_apart(to_square(photograph(photo), 40, Framing(0.9, "square", "bicubic")), golden("timm")[name]) > 10


@pytest.mark.slow
@pytest.mark.parametrize("name", golden("timm"))
def test_pixels_are_those_of_the_installed_timm(name):
    timm_data = pytest.importorskip("timm.data", reason=NOT_TESTED)
    photo, framing = framing_of(name)
    transform = timm_data.create_transform(
        input_size=(3, 224, 224),
        interpolation=framing.interpolation,
        crop_pct=framing.crop,
        crop_mode=TIMM_MODES[framing.resize],
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )
    theirs = np.round(transform(PIL.Image.fromarray(photograph(photo))).numpy().transpose(1, 2, 0) * 255)
    assert levels_apart(to_square(photograph(photo), 224, framing), theirs) <= 1


@pytest.mark.parametrize(
    ("height", "width", "crop", "resize", "expected"),
    [
        (512, 512, 224 / 256, "shorter_side", (256, 256)),
        (300, 451, 224 / 256, "shorter_side", (256, 384)),  # 256 * 451 / 300 = 384.85
        (451, 300, 224 / 256, "shorter_side", (384, 256)),
        (300, 451, 0.9, "shorter_side", (248, 372)),  # 224 / 0.9 = 248.9
        (300, 451, 224 / 256, "shorter_side_floor", (256, 384)),
        (300, 451, 1.0, "stretch", (224, 224)),
        (300, 451, 0.9, "stretch", (248, 248)),
        (50, 100, 224 / 235, "shorter_side", (235, 470)),
        (300, 451, 224 / 256, "shorter_side_rounded", (256, 385)),
        (451, 300, 0.9, "shorter_side_rounded", (373, 248)),
    ],
)
def test_sides_are_rounded_as_the_programs_do(height, width, crop, resize, expected):
    assert Framing(crop, resize).resized(height, width, 224) == expected


def test_the_size_before_the_crop_is_had_back_from_the_share():
    for side in range(224, 600):
        assert Framing(224 / side, "stretch").resized(1, 1, 224) == (side, side)


@pytest.mark.parametrize(
    ("resize", "corners"),
    [
        ("shorter_side", [0, 1, 2, 2]),
        ("shorter_side_floor", [0, 1, 1, 2]),
        ("shorter_side_rounded", [0, 1, 1, 2]),
    ],
)
def test_half_a_pixel_is_rounded_to_even_or_down(resize, corners):
    assert [Framing(1.0, resize).corner(side, 224, 224)[0] for side in (225, 226, 227, 229)] == corners


@pytest.mark.parametrize("interpolation", ["area", "bilinear_aliased"])
def test_a_square_has_whole_pixels_where_opencv_interpolates(interpolation):
    image = np.arange(36, dtype=np.uint8).reshape(6, 6)
    result = to_square(image, 3, Framing(0.5, "square", interpolation))
    np.testing.assert_array_equal(result[..., 0], image[2:5, 2:5])  # rows 1.5 to 4.5, half to even


def test_gray_images_have_three_equal_channels():
    gray = photograph("camera")
    result = to_square(gray, 30, Framing(0.9, "shorter_side", "bicubic"))
    assert result.shape == (30, 30, 3)
    np.testing.assert_array_equal(
        result, to_square(np.stack([gray] * 3, -1), 30, Framing(0.9, "shorter_side", "bicubic"))
    )


def test_the_settings_of_a_run_say_it():
    data = {"evaluation_crop": 0.9, "evaluation_resize": "shorter_side", "evaluation_interpolation": "bicubic"}
    config = parse({"train": {"steps": 1}, "data": data})
    assert Framing.of(config.data) == Framing(0.9, "shorter_side", "bicubic")
    assert Framing.of(parse({"train": {"steps": 1}}).data) == Framing()
