"""Each operation against values worked out by hand, or against a slow plain definition."""

import numpy as np
import pytest

from vmoe_inform.data.images import randaugment
from vmoe_inform.data.images.randaugment import Draw

RIGHT = Draw(sign=1, row=0.5, column=0.5)
LEFT = Draw(sign=-1, row=0.5, column=0.5)
NOISE = np.random.default_rng(0).integers(0, 256, (7, 7, 3), np.uint8)


def apply(name, rows, level, draw=RIGHT):
    """Of an image whose channels are all ``rows``: the first channel of the result, which the others have to equal."""
    image = np.repeat(np.asarray(rows, np.uint8)[..., None], 3, axis=-1)
    result = randaugment.apply(name, image, level, draw)
    assert (result.dtype, result.shape) == (np.uint8, image.shape)
    np.testing.assert_array_equal(result, np.repeat(result[..., :1], 3, axis=-1))
    return result[..., 0].tolist()


@pytest.mark.parametrize(
    ("name", "level", "values", "expected"),
    [
        # 50 to 150 stretched by 255 / 100: 75 is 63.75, cut off to 63.
        ("AutoContrast", 0, [50, 75, 150], [0, 63, 255]),
        ("AutoContrast", 10, [50, 75, 150], [0, 63, 255]),
        ("AutoContrast", 10, [9, 9, 9], [9, 9, 9]),
        ("Invert", 3, [0, 100, 255], [255, 155, 0]),
        # 4 bits at 10, 2 at 5, and 1, not 0, at less than 2.5.
        ("Posterize", 10, [17, 130, 255], [16, 128, 240]),
        ("Posterize", 5, [17, 130, 255], [0, 128, 192]),
        ("Posterize", 0, [17, 130, 255], [0, 128, 128]),
        # Inverted from 256 on, from 128 on, and from 0 on.
        ("Solarize", 10, [0, 100, 128, 255], [0, 100, 128, 255]),
        ("Solarize", 5, [0, 100, 128, 255], [0, 100, 127, 0]),
        ("Solarize", 0, [0, 100, 128, 255], [255, 155, 127, 0]),
        ("SolarizeAdd", 10, [0, 100, 127, 128], [110, 210, 237, 128]),
        ("SolarizeAdd", 0, [0, 100, 127, 128], [0, 100, 127, 128]),
        # Times 1.9, 1 and 0.1.
        ("Brightness", 10, [10, 100, 200], [19, 190, 255]),
        ("Brightness", 5, [10, 100, 200], [10, 100, 200]),
        ("Brightness", 0, [10, 100, 200], [1, 10, 20]),
        # Mean 100: 100 + 1.9 (v - 100) = 1.9 v - 90, and 100 + 0.1 (v - 100).
        ("Contrast", 10, [50, 100, 150], [5, 100, 195]),
        ("Contrast", 0, [50, 100, 150], [95, 100, 105]),
        ("Color", 10, [50, 100, 150], [50, 100, 150]),  # gray already
    ],
)
def test_tones(name, level, values, expected):
    assert apply(name, [values], level) == [expected]


def test_color_mixes_with_gray():
    # Gray of pure red 200: (299 * 200) / 1000 = 59.8, as 60. Red: 60 + 1.9 * 140 = 326, cut off; others: 60 - 114 < 0.
    # At 0: 60 + 0.1 * 140 = 74 and 60 - 6 = 54.
    red = np.array([[[200, 0, 0]]], np.uint8)
    assert randaugment.apply("Color", red, 10, RIGHT).tolist() == [[[255, 0, 0]]]
    assert randaugment.apply("Color", red, 0, RIGHT).tolist() == [[[74, 54, 54]]]
    assert randaugment.apply("Color", red, 5, RIGHT).tolist() == [[[200, 0, 0]]]


def test_sharpness_moves_away_from_the_smoothed_image():
    # The only inner pixel: smoothed (8 * 100 + 5 * 113) / 13 = 105; 105 + 1.9 * 8 = 120.2, and 105 + 0.1 * 8 = 105.8.
    rows = [[100] * 3, [100, 113, 100], [100] * 3]
    assert apply("Sharpness", rows, 10) == [[100] * 3, [100, 120, 100], [100] * 3]
    assert apply("Sharpness", rows, 0) == [[100] * 3, [100, 105, 100], [100] * 3]


def equalized_slowly(channel):
    """Value v becomes (number of smaller values + step / 2) / step; step is 1/255 of all but those of the largest."""
    values = channel.ravel().tolist()
    step = (len(values) - values.count(max(values))) // 255
    if step == 0:
        return channel
    smaller = {value: sum(other < value for other in values) for value in set(values)}
    return np.vectorize(lambda value: min(255, (smaller[value] + step // 2) // step))(channel)


@pytest.mark.parametrize("side", [5, 40])
def test_equalize_is_the_plain_definition(side):
    image = (np.random.default_rng(1).normal(90, 20, (side, side, 3))).clip(0, 255).astype(np.uint8)
    expected = np.stack([equalized_slowly(image[..., channel]) for channel in range(3)], axis=-1)
    np.testing.assert_array_equal(randaugment.apply("Equalize", image, 10, RIGHT), expected)


def moved_slowly(image, source):
    """Pixel (y, x) shows the one nearest to ``source(y, x)``, gray 128 outside of the image."""
    result = np.full_like(image, 128)
    height, width = image.shape[:2]
    for y in range(height):
        for x in range(width):
            from_y, from_x = (int(np.floor(at + 0.5)) for at in source(y, x))
            if 0 <= from_y < height and 0 <= from_x < width:
                result[y, x] = image[from_y, from_x]
    return result


@pytest.mark.parametrize("draw", [RIGHT, LEFT], ids=["right", "left"])
@pytest.mark.parametrize("level", [0, 4, 9])  # 10 shears some pixels by just half a pixel more
@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("ShearX", lambda amount: lambda y, x: (y, x + 0.3 * amount * y)),
        ("ShearY", lambda amount: lambda y, x: (y + 0.3 * amount * x, x)),
        # 100 px at 224 px: 3.125 of 7.
        ("TranslateX", lambda amount: lambda y, x: (y, x + 100 / 224 * 7 * amount)),
        ("TranslateY", lambda amount: lambda y, x: (y + 100 / 224 * 7 * amount, x)),
        ("Rotate", lambda amount: turned(np.deg2rad(30 * amount))),
    ],
)
def test_movements_are_the_plain_definition(name, source, level, draw):
    expected = moved_slowly(NOISE, source(draw.sign * level / 10))
    np.testing.assert_array_equal(randaugment.apply(name, NOISE, level, draw), expected)


def turned(angle):
    """About the centre (3, 3) of 7 x 7 pixels, counterclockwise as one sees it, rows going down."""
    cosine, sine = np.cos(angle), np.sin(angle)
    return lambda y, x: (3 + sine * (x - 3) + cosine * (y - 3), 3 + cosine * (x - 3) - sine * (y - 3))


def test_lengths_are_in_pixels_from_224_px_on():
    image = np.zeros((300, 300, 3), np.uint8)
    image[:, 250] = 255
    moved = randaugment.apply("TranslateX", image, 10, RIGHT)
    assert (moved[:, 150] == 255).all()
    assert (moved[:, 200:] == 128).all()


@pytest.mark.parametrize(
    ("place", "rows", "columns"),
    [((0.5, 0.5), (110, 190), (110, 190)), ((0.0, 0.99), (0, 40), (257, 300))],  # 0.99 * 300 = 297
)
def test_cutout_grays_a_square_within_the_image(place, rows, columns):
    result = randaugment.apply("Cutout", np.zeros((300, 300, 3), np.uint8), 10, Draw(1, *place))
    expected = np.zeros((300, 300), np.uint8)
    expected[slice(*rows), slice(*columns)] = 128
    np.testing.assert_array_equal(result[..., 0], expected)
    assert (randaugment.apply("Cutout", result, 0, Draw(1, *place)) == result).all()


@pytest.mark.parametrize("name", ["Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY", "Cutout", "SolarizeAdd"])
def test_at_level_0_these_change_nothing(name):
    np.testing.assert_array_equal(randaugment.apply(name, NOISE, 0, RIGHT), NOISE)


def test_the_sixteen_operations():
    assert len(randaugment.OPERATIONS) == 16


def test_the_generator_decides_and_every_operation_is_drawn():
    first, again, other = (
        [randaugment.randaugment(NOISE, 2, 10, np.random.default_rng([seed, i])) for i in range(30)]
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (np.stack(first) != np.stack(other)).any()
    assert {image.dtype for image in first} == {np.dtype(np.uint8)}
    # One layer gives each operation, of either sign: 400 draws leave one of 16 out with probability 16 (15/16)^400.
    seen = {randaugment.randaugment(NOISE, 1, 7, np.random.default_rng(seed)).tobytes() for seed in range(400)}
    for name in randaugment.OPERATIONS:
        if name != "Cutout":  # of many places
            assert {randaugment.apply(name, NOISE, 7, draw).tobytes() for draw in (LEFT, RIGHT)} <= seen


def test_no_layers_change_nothing():
    np.testing.assert_array_equal(randaugment.randaugment(NOISE, 0, 10, np.random.default_rng(0)), NOISE)


@pytest.mark.parametrize("magnitude", [-1, 10.5, float("nan")])
def test_magnitude_has_a_range(magnitude):
    with pytest.raises(ValueError, match="magnitude: expected 0 to 10; received"):
        randaugment.randaugment(NOISE, 1, magnitude, np.random.default_rng(0))


def test_an_unknown_operation():
    with pytest.raises(
        ValueError, match=r"RandAugment operation: expected one of AutoContrast, .*did you mean 'Invert'"
    ):
        randaugment.apply("Inverted", NOISE, 1, RIGHT)
