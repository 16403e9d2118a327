"""Labelled text that TFDS has prepared, such as ``glue/sst2``."""

import dataclasses
import subprocess
import sys

import pytest

from vmoe_inform.config import TextDataConfig
from vmoe_inform.data.text import sources

WRITE = """
import sys
import numpy as np
import tensorflow_datasets as tfds

class Glue(tfds.core.GeneratorBasedBuilder):  # features, splits and names as TFDS's own builder has them
    VERSION = tfds.core.Version("2.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="sst2", version="2.0.0")]

    def _info(self):
        label = tfds.features.ClassLabel(names=["negative", "positive"])
        features = {"sentence": tfds.features.Text(), "label": label, "idx": tfds.features.Scalar(np.int32)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        return {"train": self._generate_examples(("naïve", "fine"), 1), "test": self._generate_examples(("odd",), -1)}

    def _generate_examples(self, texts, last):
        for index, text in enumerate(texts):
            label = last if index == len(texts) - 1 else 0
            yield index, {"sentence": text, "label": label, "idx": index}

Glue(data_dir=sys.argv[1], file_format="array_record").download_and_prepare()
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Written in a process of its own, since a builder class stays registered for the life of its process."""
    folder = tmp_path_factory.mktemp("tfds")
    subprocess.run([sys.executable, "-c", WRITE, str(folder)], check=True, capture_output=True)
    return TextDataConfig(source="tfds", tfds_name="glue/sst2", directory=str(folder), text_field="sentence")


def test_sst2_is_read_with_its_classes(data):
    texts = sources.labelled(data, "train")
    assert (texts.class_names, texts.origin) == (("negative", "positive"), "TFDS")
    assert sorted(zip(texts.texts, texts.labels.tolist(), strict=True)) == [("fine", 1), ("naïve", 0)]
    assert len(sources.labelled(data, "train[:1]").texts) == 1


@pytest.mark.parametrize(
    ("changes", "split", "message"),
    [
        ({}, "test", r"glue/sst2:test\[0\]: expected a label from 0 to 1; some .* have none; received -1"),
        ({}, "dev", "split of glue/sst2: expected one of test, train|train, test"),
        ({"text_field": "text"}, "train", r"data.text_field: expected one of the features of .*: idx, label, sentence"),
        ({"label_field": "idx"}, "train", "data.label_field: expected a feature that is a class label; received 'idx'"),
        ({"tfds_name": ""}, "train", "data.tfds_name: expected the name of a TFDS data set"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(changes, split, message, data):
    with pytest.raises(ValueError, match=message):
        sources.labelled(dataclasses.replace(data, **changes), split)


def test_unprepared_data_have_the_command(data, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"prepared with `python -m vmoe_inform.data.prepare glue/sst2 --data_dir="
    ):
        sources.labelled(dataclasses.replace(data, directory=str(tmp_path)), "train")
