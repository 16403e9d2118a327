import json
import struct

import numpy as np
import pytest
from PIL import Image

from vmoe_inform.data import classes
from vmoe_inform.data.images import label_sets
from vmoe_inform.evaluation import rehearsal


def write_idx(directory, prefix, images, labels):
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
        (directory / f"{prefix}-{kind}-ubyte").write_bytes(header + array.tobytes())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Class k is a square of gray 20 k + 10 on black; 6 training images of each class, 20 validation images, and 20
    further ones, of which the first five (classes 0 to 4) look like the class after theirs."""
    root = tmp_path_factory.mktemp("rehearsal")
    labels = np.arange(60, dtype=np.uint8) % 10
    tests = labels[:40]
    shown = tests.copy()
    shown[20:25] += 1

    def images(of):
        frame = np.zeros((len(of), 28, 28), np.uint8)
        frame[:, 7:21, 7:21] = (20 * of + 10)[:, None, None]
        return frame

    write_idx(root, "train", images(labels), labels)
    write_idx(root, "t10k", images(shown), tests)
    rehearsal.make(
        str(root),
        root / "made",
        train_images=60,
        test_images=20,
        size_px=32,
        corruption_names=("contrast",),
        cache_directory=str(root / "cache"),
    )
    return root / "made"


def classes_of(folder):
    return sorted(path.name for path in folder.iterdir())


def count(folder):
    return len(list(folder.glob("*/*")))


def test_classes_are_imagenets_and_some_are_in_every_subset():
    assert label_sets.is_imagenet(rehearsal.WORDNET_IDS)
    known = {name: len(label_sets.known_classes(name, rehearsal.WORDNET_IDS)) for name in label_sets.SUBSETS}
    assert known == {"a": 5, "r": 4, "o": 2}


def test_training_and_validation_are_class_folders(made):
    assert classes_of(made / "train") == classes_of(made / "val") == sorted(rehearsal.WORDNET_IDS)
    assert (count(made / "train"), count(made / "val")) == (60, 20)
    # Validation image 3 is of class 2.
    path = made / "val" / rehearsal.WORDNET_IDS[2] / "ILSVRC2012_val_00000003.JPEG"
    with Image.open(path) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (32, 32), "RGB")
        assert abs(int(np.asarray(image)[16, 16, 0]) - 50) <= 3


def test_hard_images_are_those_of_known_classes_that_neighbours_get_wrong(made):
    # Classes 0 to 4 look like another; of these 0 (apron) and 3 (kimono) are in ImageNet-A.
    assert classes_of(made / "suites/imagenet-a") == sorted(rehearsal.WORDNET_IDS[label] for label in (0, 3))
    assert count(made / "suites/imagenet-a") == 2


def test_other_suites_have_their_layouts(made):
    suites = made / "suites"
    assert classes_of(suites / "imagenet-r") == list(label_sets.known_classes("r", rehearsal.WORDNET_IDS))
    assert classes_of(suites / "imagenet-o") == list(label_sets.known_classes("o", rehearsal.WORDNET_IDS))
    numbers = classes.positions(rehearsal.WORDNET_IDS, label_sets.wordnet_ids())
    folder = suites / "imagenetv2-matched-frequency-format-val"
    assert classes_of(folder) == sorted(str(number) for number in numbers)
    assert count(folder) == count(suites / "sketch") == 20
    assert classes_of(suites / "imagenet-c/contrast") == ["1", "2", "3", "4", "5"]
    assert count(suites / "imagenet-c/contrast/5") == 20


def test_real_labels_are_what_two_neighbours_say(made):
    real = json.loads((made / "suites/real.json").read_text())
    numbers = classes.positions(rehearsal.WORDNET_IDS, label_sets.wordnet_ids())
    # All validation images look like their class, of which there are six training images.
    assert real == [[int(numbers[number % 10])] for number in range(20)]


def test_outlines_are_dark_at_edges_and_white_elsewhere():
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[:, :, 16:] = 200
    drawn = rehearsal.outlines(image)
    assert (drawn[0, :, [15, 16]] == 0).all()
    assert (drawn[0, :, :14] == 255).all()
    assert (rehearsal.outlines(np.zeros((1, 32, 32, 3), np.uint8)) == 255).all()  # nothing to draw


def test_posters_have_four_shades():
    ramp = np.repeat(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), 3, axis=-1)
    poster = rehearsal.posters(ramp, seed=1)
    assert len(np.unique(poster[0].reshape(-1, 3), axis=0)) == 4
    assert (rehearsal.posters(ramp, seed=1) == poster).all()
    assert not (rehearsal.posters(ramp, seed=2) == poster).all()


def test_a_folder_is_not_written_over(made):
    with pytest.raises(ValueError, match="--directory: expected a folder that is not there yet"):
        rehearsal.make("", made, train_images=1, test_images=1, size_px=32)


@pytest.mark.parametrize(
    ("train", "test", "message"), [(61, 20, "--train_images: expected 1 to 60"), (60, 21, "1 to 20")]
)
def test_more_images_than_there_are(made, tmp_path, train, test, message):
    with pytest.raises(ValueError, match=message):
        rehearsal.make(str(made.parent), tmp_path / "x", train_images=train, test_images=test, size_px=32)
