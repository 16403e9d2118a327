import pathlib
import re
import subprocess
import sys

import imagecorruptions
import numpy as np
import pytest

from vmoe_inform.config import ImageDataConfig
from vmoe_inform.data import sources
from vmoe_inform.data.images import pixels as image_files
from vmoe_inform.evaluation import corruptions

# All but those that compile for seconds or read large pictures.
QUICK = [name for name in corruptions.CORRUPTIONS if name not in ("glass_blur", "frost")]
DRAWN_FROM_A_GENERATOR = [
    name
    for name in QUICK
    if name not in ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression")
]


@pytest.fixture(scope="module")
def digits():
    records = sources.load(ImageDataConfig(), "test").records
    return np.stack([image_files.to_square(records[index]["image"], 32) for index in range(2)])


class Counted(np.ndarray):
    """An array that counts how often it is pickled, and is unpickled as a plain one."""

    times_pickled = 0

    def __reduce_ex__(self, protocol):
        Counted.times_pickled += 1
        return np.asarray(self).__reduce_ex__(protocol)


@pytest.fixture(scope="module")
def generated(digits, tmp_path_factory):
    """The cache after all 75 sets were drawn by two processes."""
    directory = tmp_path_factory.mktemp("cache")
    corruptions.generate_all(digits.view(Counted), seed=0, directory=directory, num_processes=2)
    return directory


def test_these_are_the_fifteen_common_ones():
    assert list(corruptions.CORRUPTIONS) == imagecorruptions.get_corruption_names("common")


def test_processes_draw_all_sets_and_what_this_process_draws(digits, generated):
    assert len(list(generated.rglob("*.npz"))) == len(list(generated.rglob("[!.]*"))) - 1 == 75
    for corruption in corruptions.CORRUPTIONS:
        kept = corruptions.load(digits, corruption, 2, seed=0, directory=generated)
        assert kept.shape == digits.shape
        assert kept.dtype == np.uint8
        # In the opposite order, and after other draws.
        for index in (1, 0):
            drawn = corruptions.corrupt(digits[index], index, corruption, 2, seed=0)
            np.testing.assert_array_equal(drawn, kept[index], err_msg=corruption)
            assert (drawn != digits[index]).any()


@pytest.mark.usefixtures("generated")
def test_the_images_go_to_each_process_once():
    assert Counted.times_pickled == 2


def test_what_is_kept_is_not_drawn_again(digits, generated):
    files = {path: path.stat().st_mtime_ns for path in generated.rglob("*.npz")}
    lost = next(path for path in files if path.name.startswith("fog-3-"))
    content = lost.read_bytes()
    lost.unlink()
    corruptions.generate_all(digits, seed=0, directory=generated)
    assert lost.read_bytes() == content
    assert {path: path.stat().st_mtime_ns for path in generated.rglob("*.npz") if path != lost} == {
        path: time for path, time in files.items() if path != lost
    }


@pytest.mark.parametrize("corruption", DRAWN_FROM_A_GENERATOR)
def test_randomness_depends_on_seed_and_image(digits, corruption):
    first = corruptions.corrupt(digits[0], 0, corruption, 3, seed=0)
    assert (first != corruptions.corrupt(digits[0], 0, corruption, 3, seed=1)).any()
    assert (first != corruptions.corrupt(digits[0], 1, corruption, 3, seed=0)).any()


@pytest.mark.parametrize("corruption", ["gaussian_noise", "impulse_noise", "contrast", "jpeg_compression", "pixelate"])
def test_severity_moves_the_picture_further_away(digits, corruption):
    distances = [
        np.abs(corruptions.corrupt(digits[0], 0, corruption, severity, seed=0).astype(float) - digits[0]).mean()
        for severity in corruptions.SEVERITIES
    ]
    assert distances == sorted(distances)
    assert distances[0] < distances[-1]


def test_the_callers_generator_and_output_are_left_alone(digits, capfd):
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.uniform(size=3)  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    for corruption in QUICK:  # zoom_blur among them, which prints
        corruptions.corrupt(digits[0], 0, corruption, 1, seed=0)
    np.testing.assert_array_equal(np.random.uniform(size=3), expected)  # noqa: NPY002
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("shape", "dtype", "corruption", "severity", "message"),
    [
        ((31, 32, 3), np.uint8, "fog", 1, "at least 32 px"),
        ((32, 32, 1), np.uint8, "fog", 1, "images: expected uint8"),
        ((32, 32, 3), np.float32, "fog", 1, "received 'float32"),
        ((32, 32, 3), np.uint8, "frog", 1, "corruption: expected one of gaussian_noise"),
        ((32, 32, 3), np.uint8, "fog", 6, "severity: expected 1 to 5; received 6"),
    ],
)
def test_bad_input(shape, dtype, corruption, severity, message):
    with pytest.raises(ValueError, match=message):
        corruptions.corrupt(np.zeros(shape, dtype), 0, corruption, severity, seed=0)


def test_bad_number_of_processes(digits, tmp_path):
    with pytest.raises(ValueError, match="num_processes"):
        corruptions.generate_all(digits, seed=0, directory=tmp_path, num_processes=0)


def test_nothing_that_is_loaded_needs_libgl():
    """opencv-python needs the system's libGL; opencv-python-headless, which the set-up installs, does not."""
    program = (
        "import imagecorruptions, cv2, pathlib\n"
        "for line in pathlib.Path('/proc/self/maps').read_text().splitlines(): print(line.split(maxsplit=5)[-1])"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    loaded = {pathlib.Path(line).name for line in done.stdout.splitlines() if ".so" in line}
    assert any(name.startswith("cv2") for name in loaded)  # else the list shows nothing
    assert not [name for name in loaded if re.match(r"lib(GL|EGL|GLX|OpenGL|GLdispatch)\b", name)]
