import gzip
import struct

import numpy as np
import pytest

from tests.data.small_sources import labels_of
from vmoe_inform.config import ImageDataConfig
from vmoe_inform.data import sources
from vmoe_inform.data.images import digits


def test_unknown_source_lists_the_known_ones():
    with pytest.raises(ValueError, match="expected one of digits, folder, idx, tfds; received 'digit'"):
        sources.load(ImageDataConfig(source="digit"), "train")


# ------------------------------------------------------------------------------------------------------------ digits


def test_digits_are_split_without_overlap_and_stratified():
    train, test = (sources.load(ImageDataConfig(), split) for split in ("train", "test"))
    assert train.class_names == test.class_names == tuple("0123456789")
    # Each class has n images, of which ceil(n / 5) are for the test; scikit-learn's own count of each class:
    counts = np.array([178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    np.testing.assert_array_equal(np.bincount(labels_of(test)), np.ceil(counts / 5))
    np.testing.assert_array_equal(np.bincount(labels_of(train)) + np.bincount(labels_of(test)), counts)


def test_digits_together_are_the_data_set():
    from sklearn.datasets import load_digits

    def rows(images):
        return sorted(image.tobytes() for image in images)

    found = [sources.load(ImageDataConfig(), split).records.images for split in ("train", "test")]
    # 16 levels above 0 become 255: 1 is 15.9375, rounded 16; 8 is 127.5, rounded to even 128; 16 is 255.
    levels = np.round(np.arange(17) * 15.9375).astype(np.uint8)
    assert levels[[1, 8, 16]].tolist() == [16, 128, 255]
    assert rows(np.concatenate(found)) == rows(levels[load_digits().images.astype(int)][..., None])


def test_digits_are_the_same_where_scikit_learn_keeps_them_elsewhere(monkeypatch):
    direct = sources.load(ImageDataConfig(), "test").records
    monkeypatch.setattr(digits, "_FILE", "no/such/file")
    by_its_loader = sources.load(ImageDataConfig(), "test").records
    np.testing.assert_array_equal(by_its_loader.images, direct.images)
    np.testing.assert_array_equal(by_its_loader.labels, direct.labels)


def test_digits_refuse_another_split():
    with pytest.raises(ValueError, match=r"split of digits: expected one of 'train', 'test'; received 'validation'"):
        sources.load(ImageDataConfig(), "validation")


# --------------------------------------------------------------------------------------------------------- idx files

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
LABELS = np.array([1, 6], np.uint8)


def idx_bytes(array):
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(directory, *, images=None, labels=None, zipped=False, prefix="train"):
    for kind, content in (
        ("images-idx3", idx_bytes(IMAGES) if images is None else images),
        ("labels-idx1", idx_bytes(LABELS) if labels is None else labels),
    ):
        name = f"{prefix}-{kind}-ubyte" + (".gz" if zipped else "")
        (directory / name).write_bytes(gzip.compress(content) if zipped else content)
    return ImageDataConfig(source="idx", directory=str(directory))


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_reads_what_was_written(tmp_path, zipped):
    source = sources.load(write_idx(tmp_path, zipped=zipped), "train")
    np.testing.assert_array_equal(source.records[1]["image"], IMAGES[1, ..., None])
    assert labels_of(source) == [1, 6]


def test_idx_counts_classes_over_both_splits(tmp_path):
    write_idx(tmp_path, labels=idx_bytes(np.array([0, 8], np.uint8)), prefix="t10k")
    data = write_idx(tmp_path)  # labels 1 and 6
    assert sources.load(data, "train").num_classes == sources.load(data, "test").num_classes == 9


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"images": idx_bytes(LABELS)}, "train-images-idx3-ubyte: expected an idx file of unsigned bytes in 3 dim"),
        ({"images": b"\0\0\x0d\x03" + idx_bytes(IMAGES)[4:]}, "unsigned bytes"),  # 0x0d is float32
        ({"images": idx_bytes(IMAGES)[:9]}, "expected a header of 16 bytes; received '9 bytes'"),
        ({"images": idx_bytes(IMAGES)[:-1]}, r"expected 24 bytes of data for the sizes \(2, 3, 4\).*'23 bytes'"),
        ({"labels": idx_bytes(LABELS) + b"\0"}, "expected 2 bytes of data"),
        ({"labels": idx_bytes(LABELS[:1])}, "expected as many labels as images"),
        ({"images": idx_bytes(IMAGES[:0]), "labels": idx_bytes(LABELS[:0])}, "at least one"),
    ],
)
def test_idx_refuses_damaged_files(tmp_path, damage, message):
    with pytest.raises(ValueError, match=message):
        sources.load(write_idx(tmp_path, **damage), "train")


def test_idx_refuses_a_gzip_file_that_ends_too_early(tmp_path):
    data = write_idx(tmp_path, zipped=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.gz: expected a complete gzip file"):
        sources.load(data, "train")


def test_idx_reads_no_more_of_a_gzip_file_than_its_header_says(tmp_path):
    """Neither the bytes of a bomb, nor the memory that a header asks for."""
    path = tmp_path / "train-images-idx3-ubyte.gz"
    data = write_idx(tmp_path, zipped=True)
    path.write_bytes(gzip.compress(idx_bytes(IMAGES) + bytes(10**6)))
    with pytest.raises(ValueError, match=r"expected 24 bytes of data for the sizes \(2, 3, 4\).*received 'more'"):
        sources.load(data, "train")
    path.write_bytes(gzip.compress(b"\0\0\x08\3" + b"\xff" * 12 + bytes(24)))
    with pytest.raises(ValueError, match=r"expected 79228162458924105385300197375 bytes .*received '24 bytes'"):
        sources.load(data, "train")


def test_idx_says_which_file_is_missing_where(tmp_path):
    data = write_idx(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        sources.load(data, "test")
    assert "expected t10k-images-idx3-ubyte or t10k-images-idx3-ubyte.gz" in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("source", ["idx", "folder"])
@pytest.mark.parametrize("directory", ["", "no/such/directory"])
def test_missing_directory_is_named(source, directory):
    with pytest.raises(FileNotFoundError, match=rf"data\.directory: expected .*received '{directory}'"):
        sources.load(ImageDataConfig(source=source, directory=directory), "train")


# ------------------------------------------------------------------------------------------------------------ arrays


@pytest.mark.parametrize(
    ("images", "labels"),
    [(np.zeros((2, 3, 3, 1), np.float32), np.zeros(2, int)), (np.zeros((2, 3, 3, 1), np.uint8), np.zeros(3, int))],
)
def test_array_records_refuse_what_does_not_fit(images, labels):
    with pytest.raises(ValueError, match="expected"):
        sources.ArrayRecords(images, labels)
