"""Data are the same data wherever they lie, and others if anything of them differs."""

import dataclasses
import shutil

import numpy as np
import pytest

from tests.imagenet_tiny import write_files
from vmoe_inform.config import ImageDataConfig
from vmoe_inform.data import sources
from vmoe_inform.data.images.framing import Framing
from vmoe_inform.data.records import ArrayRecords, SelectedRecords, Source
from vmoe_inform.evaluation.derived_records import CorruptedRecords
from vmoe_inform.evaluation.fingerprints import fingerprint, place_of, together

FILES = {f"{name}/{number}.png": f"{name} {number}".encode() for name in ("ant", "bee") for number in range(3)}


def _folder(root, files=FILES):
    write_files(root / "train", files)
    return sources.load(ImageDataConfig(source="folder", directory=str(root)), "train")


def test_a_copy_is_the_same(tmp_path):
    first = _folder(tmp_path / "first")
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    second = sources.load(ImageDataConfig(source="folder", directory=str(tmp_path / "second")), "train")
    assert fingerprint(first) == fingerprint(second)
    assert place_of(first, ImageDataConfig()) == str(tmp_path / "first" / "train")


@pytest.mark.parametrize(
    "files",
    [
        {**FILES, "bee/2.png": b"another image"},
        {**FILES, "bee/3.png": b"one more"},
        {name.replace("bee/2", "ant/9"): content for name, content in FILES.items()},  # another label
        {name.replace("bee", "cat"): content for name, content in FILES.items()},
    ],
    ids=["image", "number", "label", "class"],
)
def test_others_are_others(tmp_path, files):
    assert fingerprint(_folder(tmp_path / "one")) != fingerprint(_folder(tmp_path / "other", files))


ARRAYS = ArrayRecords(np.arange(100 * 64, dtype=np.uint8).reshape(100, 8, 8, 1), np.arange(100, dtype=np.int32) % 2)
SOURCE = Source(ARRAYS, ("a", "b"))


def test_every_label_counts_though_not_every_image_is_read():
    labels = ARRAYS.labels.copy()
    labels[1] = 0
    other = dataclasses.replace(SOURCE, records=ArrayRecords(ARRAYS.images, labels))
    assert fingerprint(other) != fingerprint(SOURCE)


def test_some_of_the_images_are_another_set():
    chosen = [
        dataclasses.replace(SOURCE, records=SelectedRecords(ARRAYS, numbers)) for numbers in ((0, 1), (1, 2), (0, 1))
    ]
    assert fingerprint(chosen[0]) == fingerprint(chosen[2]) != fingerprint(chosen[1])


def test_drawn_images_are_known_by_what_they_are_drawn_from():
    """No image is drawn for it, which would take long; how they are drawn is in the settings of their set."""
    drawn = CorruptedRecords(ARRAYS, 8, Framing(), "no such corruption", 1, 0)
    assert fingerprint(dataclasses.replace(SOURCE, records=drawn)) == fingerprint(SOURCE)


def test_unreadable_images_have_a_fingerprint_too(tmp_path):
    source = _folder(tmp_path)
    whole = fingerprint(source)
    (tmp_path / "train" / "bee" / "2.png").unlink()
    assert fingerprint(source) != whole


def test_sets_in_another_order_are_others():
    other = dataclasses.replace(SOURCE, class_names=("b", "a"))
    assert together([SOURCE, other]) != together([other, SOURCE])
    assert place_of(SOURCE, ImageDataConfig(source="tfds", tfds_name="x", directory="/data")) == "tfds x in /data"
