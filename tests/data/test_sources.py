import dataclasses
import gzip
import io
import pathlib
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests import imagenet_tiny
from vmoe_inform.config import ImageDataConfig
from vmoe_inform.data import skipped, sources
from vmoe_inform.data.images import ilsvrc, label_sets, readers, tfds
from vmoe_inform.data.images.framing import Framing


def labels_of(source):
    return [source.records[index]["label"] for index in range(len(source.records))]


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


# ------------------------------------------------------------------------------------------------------ image folder


def png(value, shape=(5, 7, 3)):
    buffer = io.BytesIO()
    Image.fromarray(np.full(shape, value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_folder(root, files):
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return ImageDataConfig(source="folder", directory=str(root), test_split="val")


def test_folder_numbers_sorted_classes(tmp_path):
    data = write_folder(tmp_path, ["train/zebra/b.JPEG", "train/ant/c.png", "train/zebra/a.jpg", "train/ant/notes.txt"])
    source = sources.load(data, "train")
    assert source.class_names == ("ant", "zebra")
    records = [source.records[index] for index in range(len(source.records))]
    assert [(record["image"], record["label"]) for record in records] == [
        (b"train/ant/c.png", 0),
        (b"train/zebra/a.jpg", 1),
        (b"train/zebra/b.JPEG", 1),
    ]
    assert source.records.name(0) == "ant/c.png"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["val/ant/a.png"], r"expected train/CLASS/\*\.jpg .*without 'train'"),
        (["train/loose.png"], "/train: expected folders of classes with images; received no class folder"),
        (["train/ant/a.png", "train/bee/readme.txt"], "/train: expected folders .* received no image in bee"),
    ],
)
def test_folder_that_lacks_something_says_what(tmp_path, files, message):
    with pytest.raises(FileNotFoundError, match=message):
        sources.load(write_folder(tmp_path, files), "train")


def test_folder_refuses_a_split_whose_labels_would_mean_other_classes(tmp_path):
    data = write_folder(tmp_path, ["train/ant/a.png", "train/bee/a.png", "val/bee/a.png"])
    with pytest.raises(
        ValueError, match=r"expected the 2 classes of .*train; received '1 folders; missing: ant; unknown: none'"
    ):
        sources.load(data, "val")


# Its classes are those of the real validation images 1, 2 and 3.
VALIDATION_CLASSES = ("n01751748", "n02105855", "n09193705")


def write_validation(root, kind, names=("1", "2", "3")):
    files = {f"ILSVRC2012_val_{name:0>8}.JPEG": name.encode() for name in names}
    if kind == "folder":
        imagenet_tiny.write_files(root / "val", files)
    else:
        imagenet_tiny.write_tar(root / "val.tar", files)
    return ImageDataConfig(source="folder", directory=str(root), test_split="val")


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_flat_validation_images_get_imagenets_own_labels(tmp_path, kind):
    data = write_validation(tmp_path, kind)
    alone = sources.load(data, "val")
    assert alone.class_names == label_sets.wordnet_ids()
    # Images 1 and 3 are of n01751748 and n02105855, positions 65 and 230 of the 1,000; image 2 of n09193705, 970.
    assert labels_of(alone) == [65, 970, 230]
    imagenet_tiny.write_class_tree(tmp_path / "train", VALIDATION_CLASSES, 1)
    published = sources.load(data, "val")
    assert (published.class_names, labels_of(published)) == (VALIDATION_CLASSES, [0, 2, 1])
    assert (published.records.name(2), published.records[2]["image"]) == ("ILSVRC2012_val_00000003.JPEG", b"3")
    assert published.origin == f"published {kind}"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("1", "4"), "among the model's 3 classes; received 'n04263257'"),  # the class of image 4
        (
            ("1", "50001"),
            r"images ILSVRC2012_val_\*\.JPEG or \*_n01440764.JPEG only; received \['ILSVRC2012_val_00050001",
        ),
    ],
)
def test_flat_validation_images_without_a_known_class_are_refused(tmp_path, names, message):
    imagenet_tiny.write_class_tree(tmp_path / "train", VALIDATION_CLASSES, 1)
    with pytest.raises(ValueError, match=message):
        sources.load(write_validation(tmp_path, "folder", names), "val")


def test_splits_may_be_tars_of_class_folders(tmp_path):
    for split in ("train", "val"):
        files = {f"{split}/{name}": name.encode() for name in ("bee/1.JPEG", "ant/2.JPEG")}
        imagenet_tiny.write_tar(tmp_path / f"{split}.tar", files)
    data = ImageDataConfig(source="folder", directory=str(tmp_path), test_split="val")
    source = sources.load(data, "val")
    assert (source.class_names, source.origin) == (("ant", "bee"), "published tar")
    assert source.records[0] == {"image": b"ant/2.JPEG", "label": 0}
    imagenet_tiny.write_tar(tmp_path / "val.tar", {"val/bee/1.JPEG": b""})
    with pytest.raises(ValueError, match=r"the 2 classes of .*train\.tar; received '1 folders; missing: ant"):
        sources.load(data, "val")


HUGGING_FACE = {
    "train": ["n02105855_1_n02105855.JPEG", "n01751748_7_n01751748.JPEG", "n01751748_3_n01751748.JPEG"],
    "val": ["ILSVRC2012_val_00000001_n01751748.JPEG", "ILSVRC2012_val_00000003_n02105855.JPEG"],
}


@pytest.mark.parametrize("kind", ["folder", "folder in a folder", "tar", "tar of a folder"])
def test_hugging_faces_flat_images_have_the_class_in_their_names(tmp_path, kind):
    for split, names in HUGGING_FACE.items():
        files = {f"{split}_images/{name}" if " " in kind else name: name.encode() for name in names}
        if kind.startswith("tar"):
            imagenet_tiny.write_tar(tmp_path / f"{split}.tar", files)
        else:
            imagenet_tiny.write_files(tmp_path / split, files)
    data = ImageDataConfig(source="folder", directory=str(tmp_path), test_split="val")
    train, validation = sources.load(data, "train"), sources.load(data, "val")
    assert train.class_names == validation.class_names == ("n01751748", "n02105855")
    assert [train.records.name(i) for i in range(3)] == sorted(HUGGING_FACE["train"])
    assert (labels_of(train), labels_of(validation)) == ([0, 0, 1], [0, 1])
    assert train.records[0]["image"] == b"n01751748_3_n01751748.JPEG"
    # ReaL's labels go by the numbers.
    assert [ilsvrc.validation_number(validation.records.name(i)) for i in range(2)] == [1, 3]


def test_flat_images_fit_class_folders_and_all_of_imagenets_classes(tmp_path):
    imagenet_tiny.write_files(tmp_path / "val", dict.fromkeys(HUGGING_FACE["val"], b""))
    data = ImageDataConfig(source="folder", directory=str(tmp_path), test_split="val")
    alone = sources.load(data, "val")
    assert (alone.class_names, labels_of(alone)) == (label_sets.wordnet_ids(), [65, 230])
    imagenet_tiny.write_class_tree(tmp_path / "train", VALIDATION_CLASSES, 1)
    assert labels_of(sources.load(data, "val")) == [0, 1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ILSVRC2012_val_00000001_n02105855.JPEG", "expected n01751748, by ImageNet's list; received 'n02105855'"),
        ("n99999999_1_n99999999.JPEG", "among the model's 1000 classes; received 'n99999999'"),
        ("photo.JPEG", r"\*_n01440764\.JPEG only; received \['photo\.JPEG'\]"),
    ],
)
def test_flat_images_of_no_class_are_refused(tmp_path, name, message):
    imagenet_tiny.write_files(tmp_path / "val", dict.fromkeys([*HUGGING_FACE["val"], name], b""))
    with pytest.raises(ValueError, match=message):
        sources.load(ImageDataConfig(source="folder", directory=str(tmp_path), test_split="val"), "val")


@pytest.mark.parametrize("layout", ["ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC"])
def test_kaggles_layout(tmp_path, layout):
    root = tmp_path / layout
    imagenet_tiny.write_class_tree(root / "train", VALIDATION_CLASSES, 1)
    write_validation(root, "folder")
    imagenet_tiny.write_files(tmp_path, {"LOC_val_solution.csv": b"", "ILSVRC/Annotations/x.xml": b""})
    data = ImageDataConfig(source="folder", directory=str(tmp_path), test_split="val")
    assert sources.load(data, "train").class_names == VALIDATION_CLASSES
    assert labels_of(sources.load(data, "val")) == [0, 2, 1]


def test_class_folders_may_lie_in_a_folder_of_the_split(tmp_path):
    data = write_folder(
        tmp_path, ["train/images/ant/a.png", "train/images/bee/a.png", "val/ant/a.png", "val/bee/a.png"]
    )
    for split, folder in (("train", "train/images"), ("val", "val")):
        source = sources.load(data, split)
        assert source.class_names == ("ant", "bee")
        assert source.records[1]["image"] == f"{folder}/bee/a.png".encode()


def test_one_class_is_no_folder_around_classes(tmp_path):
    source = sources.load(write_folder(tmp_path, ["train/ant/a.png", "train/ant/more/b.png"]), "train")
    assert (source.class_names, len(source.records)) == (("ant",), 1)


def test_a_missing_split_says_which_folders_there_are(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"without 'train' \(folders: Train, val\)"):
        sources.load(write_folder(tmp_path, ["Train/ant/a.png", "val/ant/a.png"]), "train")


def test_a_packed_split_names_the_command_that_unpacks_it(tmp_path):
    imagenet_tiny.write_tar(tmp_path / "train.tar.gz", {"train/ant/a.png": b""}, "gz")
    with pytest.raises(ValueError, match=r"python -m vmoe_inform\.data\.unpack .*train\.tar\.gz --directory="):
        sources.load(ImageDataConfig(source="folder", directory=str(tmp_path)), "train")


# --------------------------------------------------------------------------------------------------------------- TFDS

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


# ------------------------------------------------------------------------------------------------------------ arrays


@pytest.mark.parametrize(
    ("images", "labels"),
    [(np.zeros((2, 3, 3, 1), np.float32), np.zeros(2, int)), (np.zeros((2, 3, 3, 1), np.uint8), np.zeros(3, int))],
)
def test_array_records_refuse_what_does_not_fit(images, labels):
    with pytest.raises(ValueError, match="expected"):
        sources.ArrayRecords(images, labels)
