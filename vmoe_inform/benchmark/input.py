"""``benchmark input``: rate of the input pipeline over that of the step; or images a second over tf.data's."""

from vmoe_inform import checks, command_line
from vmoe_inform import config as config_lib
from vmoe_inform.benchmark import shared
from vmoe_inform.config import ImageDataConfig, settings

_IMAGE_SIZE = command_line.define("image_size_px", settings.Pixels, 224, "Side of the training images.")
_PHOTOGRAPHS = command_line.define_path("photographs", "Folder of JPEG files; by default parts of sample photographs.")


def measure() -> shared.Measured:
    """The pipeline of --config, or with --against=tf.data training images made of JPEGs."""
    against = shared.given("against")
    for name in ("config",) if against else ("photographs", "image_size_px"):  # what the other of the two looks at
        if shared.given(name):
            expected = f"no --{name} {'with' if against else 'without'} --against=tf.data"
            raise checks.error("benchmark input", expected, f"--{name}")
    if against:
        return _measure_decoding()
    from vmoe_inform.performance import input as input_lib

    config = shared.config()
    return {"config": config_lib.to_json(config)}, input_lib.measure(config, repeats=shared.repeats(5))


def _measure_decoding() -> shared.Measured:
    from vmoe_inform.performance import decoding

    if shared.AGAINST.value != "tf.data":
        raise checks.error("--against", "tf.data", shared.AGAINST.value)
    size = _IMAGE_SIZE.value
    min_area = ImageDataConfig().crop_min_area
    files = decoding.photographs(256) if _PHOTOGRAPHS.value is None else decoding.read_jpegs(_PHOTOGRAPHS.value)
    rows = decoding.measure(files, image_size_px=size, min_area=min_area, repeats=shared.repeats(5))
    return {"photographs": len(files), "crop_min_area": min_area}, rows


BENCHMARK = shared.Benchmark(measure, ("config", "against", "image_size_px", "photographs"))
