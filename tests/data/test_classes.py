"""Classes are matched by name."""

import dataclasses

import numpy as np
import pytest

from tests.imagenet_tiny import write_files
from vmoe_inform import config as config_lib
from vmoe_inform.config import ImageDataConfig
from vmoe_inform.data import classes, sources
from vmoe_inform.data.images.framing import Framing
from vmoe_inform.data.images.tfds import TfdsRecords
from vmoe_inform.data.records import ArrayRecords, SelectedRecords, Source
from vmoe_inform.evaluation.derived_records import CorruptedRecords

IMAGES = np.zeros((3, 8, 8, 1), np.uint8)
ARRAYS = ArrayRecords(IMAGES, np.array([0, 1, 2], np.int32))
NAMES = ("ant", "bee", "cat")


def _labels(records) -> list[int]:
    return [records[index]["label"] for index in range(len(records))]


def _named(source: Source) -> list[str]:
    """What each record is said to show."""
    return [source.class_names[label] for label in _labels(source.records)]


@pytest.mark.parametrize(
    "records",
    [
        ARRAYS,
        SelectedRecords(ARRAYS, (2, 0)),
        CorruptedRecords(ARRAYS, 32, Framing(), "brightness", 1, 0),
        TfdsRecords([{"image": b"", "label": label} for label in (2, 1)], "set", np.array([0, 1, 2]), False),
    ],
    ids=lambda records: type(records).__name__,
)
def test_labels_follow_the_names(records):
    source = Source(records, NAMES)
    moved = classes.in_order(source, ("cat", "ant", "bee"), "data")
    assert moved.class_names == ("cat", "ant", "bee")
    assert _named(moved) == _named(source)
    assert _labels(moved.records) != _labels(source.records)
    assert classes.in_order(source, NAMES, "data") is source
    assert classes.in_order(source, (), "data") is source  # not known


def test_a_label_that_must_not_occur_stays_one():
    records = TfdsRecords([{"image": b"", "label": 1}], "set", np.array([0, -1]), False)
    moved = records.relabelled(np.array([1, 0]))
    assert moved.labels.tolist() == [1, -1]


def test_files(tmp_path):
    write_files(tmp_path / "train", {f"{name}/1.png": b"" for name in NAMES})
    data = ImageDataConfig(source="folder", directory=str(tmp_path), class_names=("bee", "cat", "ant"))
    source = sources.load(data, "train")
    assert source.class_names == ("bee", "cat", "ant")
    assert [name.partition("/")[0] for name in map(source.records.name, range(3))] == _named(source)


def test_other_classes_are_refused_with_the_difference(tmp_path):
    write_files(tmp_path / "train", {f"{name}/1.png": b"" for name in ("rain", "sun", *"abcdefg")})
    data = ImageDataConfig(source="folder", directory=str(tmp_path), class_names=("a", "cat", "dog"))
    message = (
        r"^classes of split 'train': expected the model's 3 classes; received 9: "
        r"missing: cat, dog; unknown: b, c, d, e, f and 3 more$"
    )
    with pytest.raises(ValueError, match=message):
        sources.load(data, "train")
    subset = dataclasses.replace(data, class_names=("rain", "sun"))  # nor are more of them
    with pytest.raises(ValueError, match="missing: none; unknown: a, b, c, d, e and 2 more"):
        sources.load(subset, "train")


def test_names_that_are_the_same_tell_nothing_apart():
    source = Source(ARRAYS, ("crane", "crane", "ant"))
    with pytest.raises(ValueError, match=r"data: expected names that are different, .*; received .crane"):
        classes.in_order(source, ("ant", "crane", "crane"), "data")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a", "b", "a"), r"data.class_names: expected each name once; received \['a', 'a'\]"),
        (("a", "b"), r"data.class_names: expected one for each of the classes, model.num_classes = 3; received 2"),
    ],
)
def test_names_in_a_config_are_checked(names, message):
    given = {"train": {"steps": 1}, "model": {"num_classes": 3}, "data": {"class_names": names}}
    with pytest.raises(ValueError, match=message):
        config_lib.parse(given)
