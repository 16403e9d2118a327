"""Data sets that TFDS has prepared, tiny ones that TensorFlow writes."""

import dataclasses
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.data.small_sources import png
from vmoe_inform.config import ImageDataConfig
from vmoe_inform.data import skipped, sources
from vmoe_inform.data.images import readers, tfds
from vmoe_inform.data.images.framing import Framing

WRITE_TFDS = """
import io, sys
import tensorflow_datasets as tfds

class Tiny(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        image, label = tfds.features.Image(shape=(None, None, 3)), tfds.features.ClassLabel(names=["ant", "bee"])
        features = tfds.features.FeaturesDict({"image": image, "label": label})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for index in range(3):
            yield index, {"image": io.BytesIO(bytes.fromhex(sys.argv[3 + index])), "label": index % 2}

Tiny(data_dir=sys.argv[1], file_format=sys.argv[2]).download_and_prepare()
"""


def write_tfds(directory, file_format, images):
    """In a process of its own, since a builder class stays registered for the life of its process."""
    arguments = [str(directory), file_format, *(image.hex() for image in images)]
    subprocess.run([sys.executable, "-c", WRITE_TFDS, *arguments], check=True, capture_output=True)
    return ImageDataConfig(source="tfds", tfds_name="tiny", directory=str(directory))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tfds(tmp_path_factory.mktemp("tfds"), "array_record", [png(10), png(20), png(30)])


def test_tfds_gives_the_encoded_images(tiny):
    source = sources.load(tiny, "train")
    assert source.class_names == ("ant", "bee")
    records = [source.records[index] for index in range(len(source.records))]  # in the order of hashed keys
    assert sorted((record["image"], record["label"]) for record in records) == sorted(
        [(png(10), 0), (png(20), 1), (png(30), 0)]
    )
    assert len(sources.load(tiny, "train[:2]").records) == 2


def test_a_label_of_tfds_out_of_range_is_an_error():
    """TFDS stores -1 for the images of ImageNet's test split."""
    examples = [{"image": b"", "label": label, "file_name": b"x.JPEG"} for label in (1, -1, 2)]
    records = tfds.TfdsRecords(examples, "set:test", np.arange(2), True)
    assert records[0]["label"] == 1
    for index in (1, 2):
        with pytest.raises(ValueError, match=r"label of x\.JPEG: expected one of the 2 classes"):
            records[index]


@pytest.mark.parametrize("size", [None, 0, 100])
def test_damaged_files_of_tfds_are_unreadable_records(tmp_path, tiny, size):
    """One flipped bit, which the checksum of its chunk finds; an empty file; one that was cut."""
    shutil.copytree(tiny.directory, tmp_path / "tfds")
    (path,) = (tmp_path / "tfds").rglob("*array_record*")
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT")] ^= 1
    path.write_bytes(content[:size])
    records = sources.load(dataclasses.replace(tiny, directory=str(tmp_path / "tfds")), "train").records
    read = [readers.EvaluationReader(records, 4, Framing())(index) for index in range(3)]
    assert all(example["mask"] == (not example[skipped.SKIPPED]) for example in read)
    assert sum(not example["mask"] for example in read) >= 1


def test_an_unreadable_record_of_tfds_has_a_name():
    class Damaged:
        def __getitem__(self, index):
            raise RuntimeError("Corrupted file:\n hash mismatch")

    records = tfds.TfdsRecords(Damaged(), "set:test", np.arange(2), True)
    assert records.name(3) == "set:test[3]"
    with pytest.raises(OSError, match=r"^RuntimeError: Corrupted file: hash mismatch$"):
        records[3]
    empty = tfds.TfdsRecords([{"image": None, "label": None}], "set:test", np.arange(2), False)
    with pytest.raises(OSError, match="a record without image, label"):
        empty[0]


def test_tfds_refuses_an_unknown_split(tiny):
    with pytest.raises(ValueError, match="split of tiny: expected one of train; received 'test'"):
        sources.load(tiny, "test")


def test_tfds_reads_without_tensorflow(tiny):
    program = (
        "import sys\nfrom vmoe_inform.config import ImageDataConfig\nfrom vmoe_inform.data import sources\n"
        f"record = sources.load({tiny!r}, 'train').records[0]\n"
        "assert isinstance(record['image'], bytes)\nprint('tensorflow' in sys.modules)"
    )
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=root)
    assert done.stdout.split()[-1] == "False"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("imagenet2012", r"expected the array_record files of imagenet2012 in .*/imagenet2012/\d.*no prepared data"),
        ("no_such_data_set", r"array_record files in .*; received 'no_such_data_set'"),
    ],
)
def test_tfds_says_where_prepared_data_are_missing(tmp_path, name, message):
    with pytest.raises(FileNotFoundError, match=message) as caught:
        sources.load(ImageDataConfig(source="tfds", tfds_name=name, directory=str(tmp_path)), "train")
    assert str(tmp_path) in str(caught.value)


def test_tfds_needs_array_record_files(tmp_path):
    data = write_tfds(tmp_path, "parquet", [png(1)] * 3)
    with pytest.raises(FileNotFoundError, match=r"expected array_record files .*received parquet files"):
        sources.load(data, "train")


def test_tfds_needs_a_name():
    with pytest.raises(ValueError, match=r"data\.tfds_name"):
        sources.load(ImageDataConfig(source="tfds"), "train")
