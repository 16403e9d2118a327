import functools
import json
import os
import shutil
import subprocess
import sys

import pytest

from tests import imagenet_tiny, processes
from vmoe_inform.config import ImageDataConfig
from vmoe_inform.data.images import ilsvrc, label_sets, published
from vmoe_inform.evaluation.suites import registry

# tench, stingray, python, apron: positions 0, 6, 62 and 411 of ImageNet's 1,000. A has the second and the last, R the
# second, O the last alone.
CLASSES = ("n01440764", "n01498041", "n01744401", "n02730930")
OF_SUITE = {"a": {1, 3}, "o": {3}, "r": {1}, "sketch": {0, 1, 2, 3}, "v2": {0, 1, 2, 3}}


@pytest.fixture(scope="module")
def suites(tmp_path_factory):
    directory = tmp_path_factory.mktemp("suites")
    imagenet_tiny.write_suites(directory, CLASSES, 2, corruptions=("fog", "pixelate"), severities=(1, 5))
    return ImageDataConfig(suites_directory=str(directory))


def load(name, data, class_names):
    return published.load(registry.kind(name).published, data, class_names)


def labels_of(source):
    return [source.records[index]["label"] for index in range(len(source.records))]


def names_of(source):
    return [source.records.name(index) for index in range(len(source.records))]


def test_the_classes_of_these_tests_are_what_they_are_said_to_be():
    assert [label_sets.wordnet_ids().index(name) for name in CLASSES] == [0, 6, 62, 411]
    for name in label_sets.SUBSETS:
        assert {CLASSES.index(known) for known in label_sets.known_classes(name, CLASSES)} == OF_SUITE[name]


def test_published_counts():
    counts = {name: registry.kind(name).published.count for name in OF_SUITE}
    assert counts == {"a": 7_500, "o": 2_000, "r": 30_000, "sketch": 50_889, "v2": 10_000}
    tfds_counts = functools.partial(published.tfds_counts, suites=registry.published_suites())
    assert tfds_counts("imagenet_v2/matched-frequency:3.0.0") == {"test": 10_000}
    assert tfds_counts("imagenet2012") == {"train": 1_281_167, "validation": 50_000}
    assert tfds_counts("imagenet2012_corrupted/fog_3") == {"validation": 50_000}
    assert tfds_counts("mnist") == {}


@pytest.mark.parametrize("name", OF_SUITE)
def test_a_folder_is_read_with_the_models_labels(suites, name):
    source = load(name, suites, CLASSES)
    assert source.origin == "published folder"
    assert source.class_names == CLASSES
    assert len(source.records) == 2 * len(OF_SUITE[name])
    # The files carry the class in their own names, whatever their folder is called.
    for file, label in zip(names_of(source), labels_of(source), strict=True):
        assert file.split("/")[1].startswith(CLASSES[label] + "_")
    assert set(labels_of(source)) == OF_SUITE[name]


def test_labels_follow_the_models_order_of_classes(suites):
    source = load("a", suites, CLASSES[::-1])
    assert set(labels_of(source)) == {0, 2}  # 3 - 3 and 3 - 1
    assert load("v2", suites, CLASSES[::-1]).records[0]["label"] == 3  # folder 0: tench


@pytest.mark.parametrize("name", ["a", "v2"])
def test_a_tar_is_read_in_place(tmp_path, suites, name):
    folder = registry.kind(name).published.folders[0]
    files = imagenet_tiny.suite_trees(CLASSES, 2)[folder]
    imagenet_tiny.write_tar(tmp_path / f"{folder}.tar", {f"{folder}/{file}": files[file] for file in files})
    source = load(name, ImageDataConfig(suites_directory=str(tmp_path)), CLASSES)
    unpacked = load(name, suites, CLASSES)
    assert source.origin == "published tar"
    assert names_of(source) == names_of(unpacked)
    assert [source.records[i] for i in range(4)] == [unpacked.records[i] for i in range(4)]


@pytest.mark.parametrize(("name", "file"), [("v2", "imagenetv2-matched-frequency.tar.gz"), ("a", "imagenet-a.tar.gz")])
def test_a_packed_archive_names_the_command_that_unpacks_it(tmp_path, name, file):
    imagenet_tiny.write_tar(tmp_path / file, {"x/n01440764/a.jpg": b""}, "gz")
    with pytest.raises(ValueError, match=rf"unpack it: python -m vmoe_inform.data.unpack .*{file}"):
        load(name, ImageDataConfig(suites_directory=str(tmp_path)), CLASSES)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a", r"ImageNet-A: expected imagenet-a or imagenet-a\.tar in DIR, or TFDS' imagenet_a"),
        ("o", r"ImageNet-O: expected imagenet-o or imagenet-o\.tar in DIR; received none"),
        ("v2", r"imagenetv2-matched-frequency-format-val or .*data\.prepare imagenet_v2/matched-frequency --data_dir"),
    ],
)
def test_a_missing_suite_says_what_to_put_where(tmp_path, name, message):
    with pytest.raises(published.MissingSuiteError, match=message.replace("DIR", str(tmp_path))):
        load(name, ImageDataConfig(suites_directory=str(tmp_path)), CLASSES)
    with pytest.raises(published.MissingSuiteError, match=r"in a folder that data\.suites_directory names"):
        load(name, ImageDataConfig(), CLASSES)


def test_a_suite_without_classes_of_the_model_is_not_available(suites):
    with pytest.raises(published.MissingSuiteError, match="the model knows none of its 200 classes"):
        load("a", suites, CLASSES[:1])


def test_a_model_of_other_classes_is_refused(suites):
    for read in (lambda: load("v2", suites, ("cat",)), lambda: published.real_labels(suites, ("cat",))):
        with pytest.raises(ValueError, match=r"WordNet ids of ImageNet's 1,000 classes; received \['cat'\]"):
            read()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("a", lambda root: shutil.rmtree(root / "n01498041"), "1 folders; missing: n01498041; unknown: none"),
        ("a", lambda root: os.rename(root / "n01498041", root / "n99999999"), "unknown: n99999999"),
        ("v2", lambda root: os.rename(root / "6", root / "1000"), "missing: 6; unknown: 1000"),
        ("sketch", lambda root: shutil.copytree(root / "n01440764", root / "n01443537"), "unknown: n01443537"),
    ],
)
def test_class_folders_that_are_not_the_suites_are_refused(tmp_path, name, change, message):
    folder = registry.kind(name).published.folders[0]
    imagenet_tiny.write_files(tmp_path / folder, imagenet_tiny.suite_trees(CLASSES)[folder])
    change(tmp_path / folder)
    with pytest.raises(ValueError, match=rf"expected the {len(OF_SUITE[name])} class folders of ImageNet.*{message}"):
        load(name, ImageDataConfig(suites_directory=str(tmp_path)), CLASSES)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("a", "ImageNet-A"),
        ("a", "imagenet_a"),
        ("a", "IMAGENETA"),
        ("r", "imagenet_r"),
        ("o", "ImageNet O"),
        ("v2", "ImageNetV2-matched-frequency"),
        ("v2", "imagenetv2_matched_frequency_format_val"),
        ("sketch", "ImageNet-Sketch"),
        ("sketch", "Sketch"),
    ],
)
def test_other_spellings_of_a_suites_folder_and_tar_are_found(tmp_path, suites, name, folder):
    expected = names_of(load(name, suites, CLASSES))
    files = imagenet_tiny.suite_trees(CLASSES, 2)[registry.kind(name).published.folders[0]]
    imagenet_tiny.write_files(tmp_path / "folders" / folder, files)
    (tmp_path / "tars").mkdir()
    imagenet_tiny.write_tar(tmp_path / "tars" / f"{folder}.TAR", files)
    for kind in ("folders", "tars"):
        found = load(name, ImageDataConfig(suites_directory=str(tmp_path / kind)), CLASSES)
        assert names_of(found) == expected


def test_a_suite_in_a_folder_of_its_own_name_is_found(tmp_path, suites):
    files = imagenet_tiny.suite_trees(CLASSES, 2)["sketch"]
    imagenet_tiny.write_files(tmp_path / "imagenet-sketch" / "sketch", files)
    found = load("sketch", ImageDataConfig(suites_directory=str(tmp_path)), CLASSES)
    assert names_of(found) == names_of(load("sketch", suites, CLASSES))


def test_two_spellings_of_one_suite_are_refused_unless_one_is_a_link(tmp_path, suites):
    data = ImageDataConfig(suites_directory=str(tmp_path))
    imagenet_tiny.write_files(tmp_path / "imagenet-a", imagenet_tiny.suite_trees(CLASSES, 2)["imagenet-a"])
    (tmp_path / "ImageNet_A").symlink_to("imagenet-a")
    assert names_of(load("a", data, CLASSES)) == names_of(load("a", suites, CLASSES))
    (tmp_path / "ImageNet_A").unlink()
    (tmp_path / "ImageNet_A").mkdir()
    with pytest.raises(
        ValueError, match=r"expected one of these, not several; received \['.*ImageNet_A', '.*imagenet-a"
    ):
        load("a", data, CLASSES)


# ----------------------------------------------------------------------------------------------------------- ImageNet-C


@pytest.mark.parametrize("root", ["imagenet-c", "ImageNet-C", "Imagenet_C"])
def test_corruptions_in_the_folders_of_their_archives_are_found(tmp_path, suites, root):
    groups = {"weather": ("snow", "fog"), "digital": ("pixelate",), "extra": ("spatter",)}
    for group, corruptions in groups.items():
        for corruption in corruptions:
            folder = tmp_path / root / group / corruption / "5"
            imagenet_tiny.write_files(folder, imagenet_tiny.validation_tree(CLASSES, 2))
    data = ImageDataConfig(suites_directory=str(tmp_path))
    expected = names_of(published.load_corruption("fog", 5, suites, CLASSES))
    for corruption in ("fog", "snow", "pixelate"):
        assert names_of(published.load_corruption(corruption, 5, data, CLASSES)) == expected
    assert len(published.missing_corruptions(data)) == 75 - 3
    with pytest.raises(published.MissingSuiteError):
        published.load_corruption("fog", 4, data, CLASSES)
    (tmp_path / root / "fog" / "5").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"expected one of these, not several; received .*fog/5.*weather/fog/5"):
        published.load_corruption("fog", 5, data, CLASSES)


def test_a_corruption_is_read_from_its_folder(suites):
    source = published.load_corruption("fog", 5, suites, CLASSES)
    assert (source.origin, labels_of(source)) == ("published folder", [0, 0, 1, 1, 2, 2, 3, 3])
    number = ilsvrc.validation_number(source.records.name(7))
    assert ilsvrc.validation_classes()[number - 1] == CLASSES[3]
    other = published.load_corruption("fog", 1, suites, CLASSES)
    assert names_of(other) == names_of(source)
    assert other.records[0]["image"] != source.records[0]["image"]


def test_a_corruption_is_read_from_the_tar_of_its_group(tmp_path):
    (tmp_path / "imagenet-c").mkdir()
    files = {
        f"{corruption}/{severity}/{name}/x.JPEG": f"{corruption} {severity}".encode()
        for corruption in ("frost", "fog")
        for severity in (1, 2)
        for name in CLASSES
    }
    imagenet_tiny.write_tar(tmp_path / "imagenet-c" / "weather.tar", files)
    data = ImageDataConfig(suites_directory=str(tmp_path))
    source = published.load_corruption("fog", 2, data, CLASSES)
    assert (source.origin, labels_of(source)) == ("published tar", [0, 1, 2, 3])
    assert source.records[1]["image"] == b"fog 2"
    with pytest.raises(FileNotFoundError, match=r"weather\.tar/snow/2"):
        published.load_corruption("snow", 2, data, CLASSES)


def test_the_tars_of_imagenet_c_hold_its_fifteen_corruptions():
    assert sorted(published.CORRUPTIONS) == sorted(label_sets.alexnet_errors()[0])


def test_a_missing_corruption_says_what_to_put_where(suites):
    message = r"expected imagenet-c/snow/3 or imagenet-c/weather\.tar in .* imagenet2012_corrupted/snow_3 --manual_dir"
    with pytest.raises(published.MissingSuiteError, match=message):
        published.load_corruption("snow", 3, suites, CLASSES)


@pytest.mark.parametrize(("corruption", "severity"), [("rain", 1), ("fog", 0), ("fog", 6)])
def test_unknown_corruptions_and_severities_are_refused(suites, corruption, severity):
    with pytest.raises(ValueError, match=f"corruption and severity: .*received '{corruption}, {severity}'"):
        published.load_corruption(corruption, severity, suites, CLASSES)


# ----------------------------------------------------------------------------------------------------------------- ReaL


def test_real_labels_are_positions_in_the_models_classes(tmp_path):
    # Positions 0, 6 and 62 of the 1,000 are the model's 0, 1 and 2; it knows no position 5.
    (tmp_path / "real.json").write_text(json.dumps([[6], [], [62, 0], [5], [5, 6]]))
    labels = published.real_labels(ImageDataConfig(suites_directory=str(tmp_path)), CLASSES)
    sets = [frozenset({1}), frozenset(), frozenset({2, 0}), frozenset(), frozenset({1})]
    assert labels == {f"ILSVRC2012_val_0000000{number}": each for number, each in enumerate(sets, start=1)}


def test_real_labels_of_all_images_and_classes(suites):
    labels = published.real_labels(suites, label_sets.wordnet_ids())
    assert len(labels) == 50_000
    own = [label_sets.wordnet_ids().index(name) for name in ilsvrc.validation_classes()[:4]]
    keys = [ilsvrc.validation_key(number) for number in (1, 2, 3, 4)]
    assert [labels[key] for key in keys] == [{own[0]}, set(), {own[2], own[0]}, {own[3]}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not JSON", "real.json: expected a list of at most 50000 lists"),
        ("[" * 100_000, "real.json: expected a list of at most 50000 lists"),
        ('{"1": [0]}', "received 'dict of 1'"),
        ("[]", "received 'list of 0'"),
        ("[[0], 3]", "received '3 for image 2'"),
        ("[[0], [true]]", r"received '\[True\] for image 2'"),
        ("[[0, 1000]]", r"labels of ReaL: expected 0 to 999; received \[1000\]"),
        ("[[-1]]", r"received \[-1\]"),
        (json.dumps([[]] * 50_001), "received 'list of 50001'"),
    ],
)
def test_a_damaged_real_file_is_refused(tmp_path, content, message):
    (tmp_path / "real.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        published.real_labels(ImageDataConfig(suites_directory=str(tmp_path)), CLASSES)


def test_missing_real_labels_say_what_to_put_where(tmp_path):
    message = r"ReaL: expected real\.json in .* or TFDS' imagenet2012_real .*--manual_dir=DIR"
    with pytest.raises(published.MissingSuiteError, match=message):
        published.real_labels(ImageDataConfig(suites_directory=str(tmp_path)), CLASSES)


# ----------------------------------------------------------------------------------------------------------------- TFDS


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")
    program = [sys.executable, "-m", "tests.data.write_tfds_suites", str(directory)]
    subprocess.run(program, check=True, capture_output=True, cwd=processes.ROOT)
    return ImageDataConfig(source="tfds", directory=str(directory))


def test_suites_prepared_by_tfds_have_the_models_labels(prepared):
    suite = load("v2", prepared, CLASSES)
    assert (suite.origin, suite.class_names) == ("TFDS", CLASSES)
    assert (names_of(suite), labels_of(suite)) == (["62/x.jpeg"], [2])
    corrupted = published.load_corruption("fog", 3, prepared, CLASSES)
    assert (names_of(corrupted), labels_of(corrupted)) == (["ILSVRC2012_val_00000293.JPEG"], [0])
    assert corrupted.records[0]["image"] == imagenet_tiny.encoded(CLASSES[0], 0)


def test_a_label_outside_the_suite_is_an_error(prepared):
    suite = load("a", prepared, CLASSES)
    by_name = {name: index for index, name in enumerate(names_of(suite))}
    assert suite.records[by_name["a.jpg"]]["label"] == 1
    assert suite.records[by_name["b.jpg"]]["label"] == 3
    with pytest.raises(ValueError, match=r"label of c\.jpg: expected one of the 2 classes looked for; received 0"):
        suite.records[by_name["c.jpg"]]


def test_real_labels_prepared_by_tfds(prepared):
    labels = published.real_labels(prepared, CLASSES)
    sets = [frozenset({1}), frozenset(), frozenset({0, 2})]  # positions 6; none; 5, which it does not know, 0 and 62
    assert labels == {f"ILSVRC2012_val_0000000{number}": each for number, each in enumerate(sets, start=1)}


def test_a_folder_goes_before_what_tfds_has(prepared, suites):
    both = ImageDataConfig(source="tfds", directory=prepared.directory, suites_directory=suites.suites_directory)
    assert load("a", both, CLASSES).origin == "published folder"
    assert published.load_corruption("fog", 5, both, CLASSES).origin == "published folder"
    assert published.load_corruption("fog", 3, both, CLASSES).origin == "TFDS"


def test_a_preparation_that_was_not_finished_is_a_missing_suite(tmp_path):
    (tmp_path / "imagenet_r" / "incomplete.ABCDEF_0.2.0").mkdir(parents=True)
    with pytest.raises(published.MissingSuiteError, match=r"ImageNet-R: .*received no prepared data"):
        load("r", ImageDataConfig(source="tfds", directory=str(tmp_path)), CLASSES)


def test_suites_are_read_without_tensorflow(prepared):
    program = (
        "import sys\nfrom vmoe_inform.config import ImageDataConfig\nfrom vmoe_inform.data.images import published\n"
        "from vmoe_inform.evaluation.suites import a\n"
        f"data, classes = {prepared!r}, {CLASSES!r}\n"
        "published.load(a.PUBLISHED, data, classes).records[0]\npublished.real_labels(data, classes)\n"
        "published.load_corruption('fog', 3, data, classes).records[0]\n"
        "print('tensorflow' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=processes.ROOT
    )
    assert run.stdout.split() == ["False"]
