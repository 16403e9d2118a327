"""Writes suites as TFDS prepares them, without its downloads: ``python tests/data/write_tfds_suites.py DIRECTORY``.

Features, split, names and versions are those of TFDS's own builders, which read these files. A builder class stays
registered for the life of its process; hence a program.
"""

import io
import sys
from typing import Any

import tensorflow_datasets as tfds

from tests import imagenet_tiny
from vmoe_inform.data.images import label_sets

LABEL = tfds.features.ClassLabel(names=list(label_sets.wordnet_ids()))
IMAGE = tfds.features.Image(encoding_format="jpeg")
SUITE = {"image": IMAGE, "label": LABEL, "file_name": tfds.features.Text()}
REAL = {
    "image": IMAGE,
    "original_label": LABEL,
    "real_label": tfds.features.Sequence(LABEL),
    "file_name": tfds.features.Text(),
}


def example(label: int, name: str, **more: Any) -> dict[str, Any]:
    """``label`` is the position among ImageNet's 1,000 classes."""
    image = io.BytesIO(imagenet_tiny.encoded(label_sets.wordnet_ids()[label], 0))
    return {"image": image, "file_name": name, "original_label" if more else "label": label, **more}


class Written(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set of ``examples`` in one split."""

    VERSION: tfds.core.Version
    split: str
    features: dict[str, Any]
    examples: list[dict[str, Any]]

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(self.features))

    def _split_generators(self, manager: Any) -> dict[str, Any]:
        return {self.split: enumerate(self.examples)}

    def _generate_examples(self) -> None:
        raise AssertionError("not called: the split is given as a generator")


def write(
    directory: str, name: str, version: str, split: str, features: dict, examples: list, config: str = ""
) -> None:
    members = {
        "name": name,
        "VERSION": tfds.core.Version(version),
        "BUILDER_CONFIGS": [tfds.core.BuilderConfig(name=config, version=version)] if config else [],
        "split": split,
        "features": features,
        "examples": examples,
        "__module__": __name__,
    }
    builder = type(name, (Written,), members, skip_registration=True)
    builder(data_dir=directory, file_format="array_record").download_and_prepare()


def main(directory: str) -> None:
    photographs = [example(6, "a.jpg"), example(411, "b.jpg"), example(0, "c.jpg")]  # the last is of no class of A's
    write(directory, "imagenet_a", "0.1.0", "test", SUITE, photographs)
    write(directory, "imagenet_v2", "3.0.0", "test", SUITE, [example(62, "62/x.jpeg")], "matched-frequency")
    corrupted = [example(0, "ILSVRC2012_val_00000293.JPEG")]
    write(directory, "imagenet2012_corrupted", "3.1.0", "validation", SUITE, corrupted, "fog_3")
    real = [
        example(6, f"ILSVRC2012_val_0000000{number}.JPEG", real_label=labels)
        for number, labels in ((1, [6]), (2, []), (3, [5, 0, 62]))
    ]
    write(directory, "imagenet2012_real", "1.0.0", "validation", REAL, real)


if __name__ == "__main__":
    main(sys.argv[1])
