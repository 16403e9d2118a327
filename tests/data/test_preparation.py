"""Of ImageNet prepared by TFDS's real builder (tests/imagenet_tiny.py, fixture prepared_imagenet)."""

import pickle
import shutil
import subprocess
import sys

import pytest

from tests import imagenet_tiny, processes
from vmoe_inform.config import ImageDataConfig
from vmoe_inform.data import preparation, sources
from vmoe_inform.data.images import ilsvrc, label_sets, tfds
from vmoe_inform.data.images import pixels as images


def config_of(directory):
    return ImageDataConfig(source="tfds", tfds_name="imagenet2012", directory=str(directory), test_split="validation")


def by_name(source):
    return {source.records.name(index): index for index in range(len(source.records))}


# ---------------------------------------------------------------------------------------------------- what was prepared


def test_prepared_images_have_their_names_labels_and_bytes(prepared_imagenet):
    source = sources.load(config_of(prepared_imagenet), "train")
    assert (source.origin, source.class_names) == ("TFDS", label_sets.wordnet_ids())
    found = by_name(source)
    # 16 validation images of different classes, two training images of each; a CMYK file, and a PNG file of the third.
    assert len(found) == len(source.records) == 2 * 16 + 2
    for name, index in found.items():
        assert source.class_names[source.records[index]["label"]] == name.partition("_")[0]
    assert source.records[found["n01751748_1.JPEG"]]["image"] == imagenet_tiny.encoded("n01751748", 1)


def test_prepared_validation_images_have_the_published_labels(prepared_imagenet):
    source = sources.load(config_of(prepared_imagenet), "validation")
    found = by_name(source)
    assert sorted(found) == [f"{ilsvrc.validation_key(number)}.JPEG" for number in range(1, 17)]
    for name, index in found.items():
        number = ilsvrc.validation_number(name)
        label = source.records[index]["label"]
        assert source.class_names[label] == ilsvrc.validation_classes()[number - 1]


@pytest.mark.parametrize("name", [imagenet_tiny.CMYK_FILE, imagenet_tiny.PNG_FILE])
def test_the_odd_files_of_imagenet_are_jpegs_in_colour_once_prepared(prepared_imagenet, name):
    source = sources.load(config_of(prepared_imagenet), "train")
    content = source.records[by_name(source)[name]]["image"]
    assert content[:2] == b"\xff\xd8"  # as every JPEG begins
    assert images.to_square(content, 16).shape == (16, 16, 3)


def test_prepared_records_go_to_other_processes(prepared_imagenet):
    records = sources.load(config_of(prepared_imagenet), "validation").records
    copy = pickle.loads(pickle.dumps(records))
    assert (copy.name(3), copy[3]) == (records.name(3), records[3])


# --------------------------------------------------------------------------------------------------------- verification


def verify(directory, *, whole):
    preparation.verify(tfds.builder_of("imagenet2012", str(directory)), "imagenet2012", whole=whole, suites=())


def test_a_second_start_verifies_what_is_there(prepared_imagenet, capsys):
    preparation.prepare(
        "imagenet2012",
        data_dir=str(prepared_imagenet),
        manual_dir="",
        file_format="array_record",
        whole=False,
        suites=(),
    )
    printed = capsys.readouterr().out
    assert f"imagenet2012 is prepared in {prepared_imagenet}/imagenet2012/5.1.0: verifying it" in printed
    assert "imagenet2012:train: 34 examples\nimagenet2012:validation: 16 examples\n" in printed


def test_other_numbers_than_the_published_ones_are_refused(prepared_imagenet):
    with pytest.raises(ValueError, match=r"imagenet2012:train: expected 1,281,167 examples as published .*received 34"):
        verify(prepared_imagenet, whole=True)


def test_a_damaged_file_is_named(prepared_imagenet, tmp_path):
    shutil.copytree(prepared_imagenet / "imagenet2012", tmp_path / "imagenet2012")
    file = next((tmp_path / "imagenet2012").rglob("*validation.array_record*"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"{file.name}: expected a whole file of records"):
        verify(tmp_path, whole=False)


# ------------------------------------------------------------------------------------------- archives, looked at before


def write_archives(directory, *, train=None, validation=None):
    directory.mkdir(exist_ok=True)
    class_tar = imagenet_tiny.tar_bytes({"n01440764_1.JPEG": b"1"})
    imagenet_tiny.write_tar(directory / ilsvrc.TRAIN_TAR, {"n01440764.tar": class_tar} if train is None else train)
    names = ["ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000002.JPEG"] if validation is None else validation
    imagenet_tiny.write_tar(directory / ilsvrc.VALIDATION_TAR, dict.fromkeys(names, b""))
    return directory


def test_archives_in_their_layout_are_accepted(tmp_path, capsys):
    manual = write_archives(tmp_path)
    size = sum(path.stat().st_size for path in manual.iterdir())
    assert preparation.check_archives("imagenet2012", manual, whole=False) == size
    assert preparation.check_archives("imagenet_a", manual, whole=True) == 0  # TFDS loads it by itself
    assert capsys.readouterr().out.count("looking at") == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": {"n01440764/a.JPEG": b""}}, r"a tar n01440764\.tar, \.\.\. for each class .*n01440764/a\.JPEG"),
        ({"train": {"n99999999.tar": b""}}, r"received \['n99999999'\]"),
        ({"train": {}}, "for each class"),
        ({"validation": ["ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000003.JPEG"]}, "00000003.* instead of .*2"),
        ({"validation": ["val/ILSVRC2012_val_00000001.JPEG"]}, "without gaps or folders"),
        ({"validation": ["../ILSVRC2012_val_00000001.JPEG"]}, "without '..'"),
        ({"validation": []}, "the validation images"),
    ],
)
def test_archives_of_another_layout_are_refused(tmp_path, change, message):
    """A gap among the validation images would give all later ones others' labels, without a word."""
    with pytest.raises(ValueError, match=message):
        preparation.check_archives("imagenet2012", write_archives(tmp_path, **change), whole=False)


def test_subsets_are_to_be_asked_for(tmp_path):
    with pytest.raises(ValueError, match=r"img_train.tar: expected 1000 classes \(--expected_counts=any\); received 1"):
        preparation.check_archives("imagenet2012", write_archives(tmp_path), whole=True)
    with pytest.raises(ValueError, match=r"img_val.tar: expected 50000 images \(--expected_counts=any\); received 2"):
        preparation.check_archives("imagenet2012_real", tmp_path, whole=True)


def test_a_truncated_archive_is_refused(tmp_path):
    path = write_archives(tmp_path) / ilsvrc.VALIDATION_TAR
    path.write_bytes(path.read_bytes()[:512])
    with pytest.raises(ValueError, match=r"img_val\.tar: expected a whole archive"):
        preparation.check_archives("imagenet2012", tmp_path, whole=False)


def test_mistakes_are_found_before_anything_is_prepared(tmp_path, capsys):
    def start(name, **changes):
        settings = {"data_dir": str(tmp_path / "tfds"), "manual_dir": str(tmp_path), "file_format": "array_record"}
        preparation.prepare(name, **{**settings, **changes}, whole=False, suites=())

    with pytest.raises(ValueError, match=r"data set: expected one that TFDS knows, .*; received 'no_such_set"):
        start("no_such_set")
    with pytest.raises(FileNotFoundError, match=r"ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar in .*no ILSVRC"):
        start("imagenet2012")
    left = tmp_path / "tfds" / "imagenet2012" / "incomplete.ABCDEF_5.1.0"
    left.mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"in .*/tfds/downloads/manual; received"):
        start("imagenet2012", manual_dir="")
    assert f"left by a preparation that was interrupted, or runs now: {left}" in capsys.readouterr().out


WITHOUT_TENSORFLOW = """
import importlib.machinery, sys
class Finder(importlib.machinery.PathFinder):  # as Python's own, where TensorFlow is not installed
    @classmethod
    def find_spec(cls, name, *arguments):
        return None if name == "tensorflow" else super().find_spec(name, *arguments)
sys.meta_path = [Finder if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]
from vmoe_inform.data import preparation
preparation.prepare("imagenet2012", data_dir="", manual_dir="", file_format="array_record", whole=False, suites=())
"""


def test_without_tensorflow_the_command_that_installs_it_is_named():
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW]
    run = subprocess.run(command, capture_output=True, text=True, cwd=processes.ROOT)
    assert "tensorflow: expected to be installed: pip install -e '.[prepare]'; received None" in run.stderr
