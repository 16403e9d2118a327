import re
import shutil

import numpy as np
import pytest
from PIL import Image

from tests import imagenet_tiny, processes
from vmoe_inform.config import ImageConfig, ImageDataConfig, VisionModelConfig
from vmoe_inform.data import inspection, sources
from vmoe_inform.data.images import contact_sheet, label_sets
from vmoe_inform.evaluation.suites import registry

# tench, stingray, python, apron; A has the second and the last, R the second, O the last alone.
CLASSES = ("n01440764", "n01498041", "n01744401", "n02730930")


@pytest.fixture
def config(tmp_path):
    """A model of four classes, with both splits and all suites but most of C."""
    imagenet_tiny.write_class_tree(tmp_path / "train", CLASSES, 3)
    imagenet_tiny.write_files(tmp_path / "val", imagenet_tiny.validation_tree(CLASSES, 2))
    imagenet_tiny.write_suites(tmp_path / "suites", CLASSES, 2, corruptions=("fog",))
    suites = str(tmp_path / "suites")
    data = ImageDataConfig(source="folder", directory=str(tmp_path), test_split="val", suites_directory=suites)
    return ImageConfig(model=VisionModelConfig(num_classes=len(CLASSES)), data=data)


def examine(config, *, whole=True, num_images=10):
    return {
        finding.name: finding
        for finding in inspection.examine_all(config, registry.examinations(), whole=whole, num_images=num_images)
    }


def test_every_split_and_suite_is_looked_at(config):
    findings = examine(config)
    counts = {name: (one.count, one.decoded, one.num_classes) for name, one in findings.items() if one.origin}
    assert counts == {
        "train": (12, 10, 4),
        "val": (8, 8, 4),
        "ImageNet-A": (4, 4, 2),
        "ImageNet-O": (2, 2, 1),
        "ImageNet-R": (2, 2, 1),
        "ImageNet-Sketch": (8, 8, 4),
        "ImageNet-V2": (8, 8, 4),
        "ReaL": (50_000, 0, 4),
        "C fog": (40, 10, 4),  # five severities of eight images, two of each decoded
    }
    assert not [finding.problems for finding in findings.values() if finding.problems]
    assert findings["C snow"].missing.startswith("ImageNet-C snow 1: expected imagenet-c/snow/1")
    assert findings["val"].captions[0] == "tench, Tinca tinca"
    # Two images of each severity are drawn.
    assert [caption[0] for caption in findings["C fog"].captions] == list("1122334455")


def test_only_a_model_of_all_classes_has_published_counts(config):
    assert {finding.expected_count for finding in examine(config).values()} == {None}


def test_counts_other_than_the_published_ones_are_problems(prepared_imagenet):
    data = ImageDataConfig(
        source="tfds", tfds_name="imagenet2012", directory=str(prepared_imagenet), test_split="validation"
    )
    findings = examine(ImageConfig(data=data))
    assert findings["train"].problems == ["expected 1,281,167 images as published; received 34"]
    assert findings["validation"].problems == ["expected 50,000 images as published; received 16"]
    assert (findings["validation"].origin, findings["validation"].decoded) == ("TFDS", 10)
    assert all(findings[name].missing for name in ("ImageNet-A", "ImageNet-O", "ReaL", "ImageNet-C"))
    sound = examine(ImageConfig(data=data), whole=False)
    assert (sound["train"].problems, sound["validation"].problems) == ([], [])


def test_problems_name_files_and_differences(config, tmp_path):
    suites = tmp_path / "suites"
    (suites / "imagenet-r" / CLASSES[1] / "zero.JPEG").write_bytes(b"")
    (suites / "imagenet-r" / CLASSES[1] / "text.JPEG").write_text("no image")
    shutil.rmtree(suites / "sketch" / CLASSES[0])
    shutil.rmtree(suites / "imagenet-c" / "fog" / "3")
    (suites / "real.json").write_text("[[1000]]")
    whole = next((tmp_path / "train" / CLASSES[0]).iterdir())
    whole.write_bytes(whole.read_bytes()[:300])
    problems = {name: " ".join(finding.problems) for name, finding in examine(config).items() if finding.problems}
    assert set(problems) == {"train", "ImageNet-R", "ImageNet-Sketch", "C fog", "ReaL"}
    assert f"{CLASSES[0]}/{whole.name}: " in problems["train"]
    assert f"{CLASSES[1]}/zero.JPEG: " in problems["ImageNet-R"]
    assert f"{CLASSES[1]}/text.JPEG: " in problems["ImageNet-R"]
    assert "missing: n01440764" in problems["ImageNet-Sketch"]
    assert "ImageNet-C fog 3: " in problems["C fog"]
    assert "labels of ReaL: expected 0 to 999" in problems["ReaL"]


def test_labels_out_of_range_and_other_numbers_of_classes_are_problems(config):
    def load():
        records = sources.ArrayRecords(np.zeros((3, 8, 8, 3), np.uint8), np.array([0, 2, 5]))
        return sources.Source(records, ("cat", "dog"))

    finding = inspection.examine("pets", load, None, num_images=2)
    assert finding.problems == ["labels: expected 0 to 1; received [2, 5]"]
    other = ImageConfig(model=VisionModelConfig(num_classes=1000), data=config.data)
    assert "expected 1000 classes (model.num_classes); received 4" in examine(other, whole=False)["val"].problems


def test_missing_splits_are_problems_and_other_data_have_no_published_suites(tmp_path):
    missing = examine(ImageConfig(data=ImageDataConfig(source="folder", directory=str(tmp_path), test_split="val")))
    assert list(missing) == ["train", "val"]
    assert "without 'train'" in missing["train"].problems[0]
    assert list(examine(ImageConfig(model=VisionModelConfig(num_classes=10)))) == ["train", "test"]  # digits


def test_the_command_prints_draws_and_says_by_its_code_whether_all_is_sound(config, tmp_path):
    flags = [
        "--config=configs/imagenet.py",
        "--config.model.num_classes=4",
        "--config.data.source=folder",
        "--config.data.test_split=val",
        f"--config.data.directory={tmp_path}",
        f"--config.data.suites_directory={tmp_path / 'suites'}",
    ]
    (tmp_path / "empty").mkdir()
    broken = [*flags, f"--config.data.directory={tmp_path / 'empty'}"]
    lines = [(*flags, f"--directory={tmp_path / 'out'}"), tuple(broken), (*flags, f"--directory={__file__}")]
    (tmp_path / "runs").mkdir()
    (code, printed, _), (broken_code, broken_printed, _), nowhere = processes.run_many(
        "data.check", lines, tmp_path / "runs", imports=("data.images.contact_sheet", "data.inspection")
    )
    assert code == 0
    assert re.search(r"ImageNet-V2 +│ folder +│ +8 │ +│ +4 │ +8/8 │ yes", printed)
    assert max(len(line) for line in printed.splitlines() if line[0] in "┏┃┡│└") <= 80
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        assert sheet.height > 8 * contact_sheet.TILE_PX
    assert broken_code == 2
    assert "train: data.directory: expected train/CLASS/" in broken_printed
    assert nowhere[:2] == (2, "")  # before the images are read
    assert nowhere[2].startswith("error: --directory: expected a folder that can be written to")


def test_a_contact_sheet_shows_its_images_where_they_belong():
    red, blue = (np.full((112, 112, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))
    rows = [
        contact_sheet.Row("first", ["2 images"], [red, blue], ["a", "b"]),
        contact_sheet.Row("second", ["1 image"], [blue], [label_sets.title("n01440764") * 5]),
    ]
    pixels = np.asarray(contact_sheet.draw(rows))
    # Labels take 190 pixels, each image 112 with gaps of 8; a row also has 16 for its captions.
    assert pixels.shape == (8 + 2 * 136, 190 + 2 * 120 + 8, 3)
    assert (pixels[8 : 8 + 112, 190 : 190 + 112] == (255, 0, 0)).all()
    assert (pixels[8 : 8 + 112, 310 : 310 + 112] == (0, 0, 255)).all()
    assert (pixels[144 : 144 + 112, 190 : 190 + 112] == (0, 0, 255)).all()
    assert (pixels[256:272, 190 + 112 :] == 255).all()  # the long caption was cut off
