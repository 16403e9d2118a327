"""Folders and tars of images: which layouts are read, and what numbers their classes get."""

import pytest

from tests import imagenet_tiny
from tests.data.small_sources import labels_of
from vmoe_inform.config import ImageDataConfig
from vmoe_inform.data import sources
from vmoe_inform.data.images import ilsvrc, label_sets


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
    assert source.origin == "folder"


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
    assert (source.class_names, source.origin) == (("ant", "bee"), "tar")
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
