"""Prepares a data set with TFDS, as files that training and evaluation read without TensorFlow.

    python -m vmoe_inform.data.prepare imagenet2012 --manual_dir=DIR --data_dir=DIR

Needs TensorFlow (``pip install -e '.[prepare]'``). ImageNet's ``ILSVRC2012_img_train.tar`` and
``ILSVRC2012_img_val.tar`` have to be in ``--manual_dir`` and are looked at before hours are spent on them. A second
start checks the prepared files; a preparation that was interrupted starts again, with what TFDS had loaded. Other data
sets of TFDS by their names: ``imagenet_a``, ``imagenet_v2/matched-frequency``, ...
"""

from absl import flags

from vmoe_inform import checks, command_line
from vmoe_inform.data import preparation
from vmoe_inform.evaluation.suites import registry

_DATA_DIR = command_line.define_path("data_dir", "TFDS' data directory; by default TFDS' own default.")
_MANUAL_DIR = command_line.define_path("manual_dir", "Folder of archives that TFDS cannot load by itself.")
_FILE_FORMAT = flags.DEFINE_enum(
    "file_format", "array_record", ["array_record", "tfrecord"], "Training and evaluation read array_record only."
)
_EXPECTED_COUNTS = flags.DEFINE_enum(
    "expected_counts", "published", ["published", "any"], "Numbers of images: the published ones, or any (a subset)."
)


def main(words: list[str]) -> int:
    """Returns the exit code."""
    if len(words) != 2:
        raise checks.error("command line", "one data set, and flags (--name=value)", " ".join(words[1:]))
    preparation.prepare(
        words[1],
        data_dir=_DATA_DIR.value or "",
        manual_dir=_MANUAL_DIR.value or "",
        file_format=_FILE_FORMAT.value,
        whole=_EXPECTED_COUNTS.value == "published",
        suites=registry.published_suites(),
    )
    return 0


if __name__ == "__main__":
    command_line.run(main, operands="the name of a data set of TFDS")
