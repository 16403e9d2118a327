import dataclasses
import json
import tarfile

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import accuracy_score, average_precision_score, top_k_accuracy_score

from vmoe_inform.data import classes
from vmoe_inform.data.images import label_sets
from vmoe_inform.evaluation import corruptions, suites
from vmoe_inform.evaluation.suites import c

from . import imagenet_sample as sample
from .imagenet_sample import entry_of


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("imagenet")
    sample.write(directory)
    return directory


@pytest.fixture
def config(directory):
    return sample.config(directory)


def random_predictions(suite):
    """By the name of each set, as a model gives them that knows nothing."""
    sources = {name: own.load() for name, own in suite.sets.items()}
    return {n: sample.predictions(sample.logits_by_name(own), sample.labels_of(own)) for n, own in sources.items()}


def test_the_sample_is_in_the_subsets_that_it_says():
    for name, labels in (("a", sample.IN_A), ("r", sample.IN_R), ("o", sample.IN_O)):
        known = label_sets.known_classes(name, sample.CLASSES)
        assert classes.positions(known, sample.CLASSES).tolist() == list(labels)


@pytest.mark.parametrize(("name", "classes"), [("a", sample.IN_A), ("r", sample.IN_R)])
def test_a_and_r_are_masked_to_their_own_classes(config, name, classes):
    suite = suites.load(name, config)
    found = random_predictions(suite)
    own = found[name]
    assert sorted(set(own.labels)) == list(classes)
    kept = own.logits[:, list(classes)].astype(np.float64)
    places = np.searchsorted(classes, own.labels)
    entry = entry_of(suite, found)
    assert entry.metrics["top1"] == accuracy_score(places, kept.argmax(axis=1))
    assert entry.metrics["top1_unmasked"] == accuracy_score(own.labels, own.logits.argmax(axis=1))
    assert entry.metrics["nll"] == pytest.approx(-np.log(softmax(kept, axis=1)[np.arange(len(places)), places]).mean())
    assert entry.classes == len(classes)
    assert (entry.count, entry.origin) == (len(classes) * sample.IMAGES_PER_CLASS, "published folder")
    assert {worst.name for worst in entry.worst_classes} == {sample.CLASSES[label] for label in classes}


@pytest.mark.parametrize("name", ["v2", "sketch"])
def test_v2_and_sketch_are_of_all_classes(config, name):
    suite = suites.load(name, config)
    found = random_predictions(suite)
    own = found[name]
    entry = entry_of(suite, found)
    np.testing.assert_array_equal(np.sort(own.labels), np.repeat(np.arange(6), sample.IMAGES_PER_CLASS))
    records = suite.sets[name].load().records
    for index, label in enumerate(own.labels):  # V2's folders have numbers, and the files here the classes' names
        assert records.name(index).rpartition("/")[2].startswith(sample.CLASSES[label])
    assert entry.metrics["top1"] == accuracy_score(own.labels, own.logits.argmax(axis=1))
    assert entry.metrics["top5"] == top_k_accuracy_score(own.labels, own.logits, k=5, labels=np.arange(6))
    assert (entry.classes, "top1_unmasked" in entry.metrics) == (None, False)


def test_o_is_told_from_test_images_of_its_classes(config):
    suite = suites.load("o", config)
    found = random_predictions(suite)
    kept = np.isin(found["clean"].labels, sample.IN_O)
    logits = np.concatenate([found["clean"].logits[kept], found["o"].logits])[:, list(sample.IN_O)]
    positive = np.arange(len(logits)) >= kept.sum()
    entry = entry_of(suite, found)
    expected = average_precision_score(positive, -softmax(logits, axis=1).max(axis=1))
    assert entry.metrics["aupr"] == pytest.approx(expected)
    assert 0 < entry.metrics["aupr"] < 1
    assert (entry.count, entry.metrics["count_in_distribution"], entry.classes) == (4, 4, 2)


def test_o_by_hand(config):
    # Confidence between classes 4 and 5, whatever the others' logits: of two test images 0.9 and 0.6, of two objects
    # 0.7 and 0.5. In the order of falling uncertainty + - + -: precision 1 at the first positive, 2/3 at the second.
    def logits(confidences):
        return [[9.0, 9.0, 9.0, 9.0, np.log(own), np.log(1 - own)] for own in confidences]

    found = {
        "clean": sample.predictions(logits([0.9, 0.99, 0.6]), [4, 0, 5]),  # the second is of another class
        "o": sample.predictions(logits([0.7, 0.5]), [4, 5]),
    }
    assert entry_of(suites.load("o", config), found).metrics["aupr"] == pytest.approx((1 + 2 / 3) / 2)


def test_real_takes_any_of_the_labels_and_leaves_out_images_without(config, tmp_path):
    source = suites.test_split(config.data)
    names = [source.records.name(index).rpartition("/")[2] for index in range(len(source.records))]
    labels = sample.labels_of(source)
    position = label_sets.wordnet_ids().index
    # Image 0: no label. Image 1: two, not its own. Image 2: one that the model does not know. Others: their own.
    several = {names[0]: [], names[1]: [position(sample.CLASSES[label]) for label in (3, 4)], names[2]: [999]}
    numbers = {name: int(name[15:23]) for name in names}
    content = [[] for _ in range(max(numbers.values()))]
    for name, label in zip(names, labels, strict=True):
        content[numbers[name] - 1] = several.get(name, [position(sample.CLASSES[label])])
    (tmp_path / "real.json").write_text(json.dumps(content))
    data = dataclasses.replace(config.data, suites_directory=str(tmp_path))
    suite = suites.load("real", dataclasses.replace(config, data=data))
    # The model says class 4 of everything.
    logits = np.tile(np.eye(6)[4] * 3, (len(labels), 1))
    entry = entry_of(suite, {"clean": sample.predictions(logits, labels, skipped=1)})
    # Right of the ten that are left: image 1, and the two of class 4.
    assert (entry.metrics["top1"], entry.count, entry.metrics["excluded"], entry.skipped) == (0.3, 10, 2, 1)
    assert "nll" not in entry.metrics
    assert entry.metrics["aurc"] == pytest.approx(0.7)


def test_real_needs_the_names_of_the_validation_images(config):
    named_otherwise = dataclasses.replace(config, data=dataclasses.replace(config.data, test_split="train"))
    suite = suites.load("real", named_otherwise)
    with pytest.raises(suites.NotAvailable, match=r"ReaL labels go by the file names .* found 'n01440764/n01440764_0"):
        suite.score("clean", sample.predictions(np.zeros((6, 6)), range(6)))


# ---------------------------------------------------------------------------------------------------------------- C


def shown(suite, right_of):
    """Predictions for every set, right for the first ``right_of(set name)`` of its images."""
    found = {}
    for name in suite.sets:
        labels = np.arange(12) // 2
        guesses = np.where(np.arange(12) < right_of(name), labels, (labels + 1) % 6)
        found[name] = sample.predictions(np.eye(6)[guesses], labels)
    return found


def test_published_corruptions_by_hand(config):
    suite = suites.load("c", config)
    assert len(suite.sets) == 75
    # Of 12 images 6 - s + 1 are right under fog, 6 under the others.
    entry = entry_of(suite, shown(suite, lambda name: 7 - int(name[-1]) if name.startswith("fog") else 6))
    assert entry.per_corruption["fog"] == pytest.approx([6 / 12, 5 / 12, 4 / 12, 3 / 12, 2 / 12])
    assert entry.metrics["mean_top1"] == pytest.approx((14 * 0.5 + 4 / 12) / 15)
    assert (entry.count, entry.origin) == (12, "published folder")
    assert not {"mce", "relative_mce"} & set(entry.metrics)  # AlexNet's errors are of 1,000 classes


def test_errors_relative_to_alexnet_by_hand():
    # Accuracy 1/2 everywhere, but (6 + 5 + 4 + 3 + 2) / 60 = 1/3 under fog; 3/4 on clean images.
    top1 = {name: [0.5] * 5 for name in corruptions.CORRUPTIONS} | {"fog": [k / 12 for k in (6, 5, 4, 3, 2)]}
    errors = c.against_alexnet(top1, clean_top1=0.75)
    reference, reference_clean = label_sets.alexnet_errors()
    mean_error = dict.fromkeys(corruptions.CORRUPTIONS, 1 / 2) | {"fog": 2 / 3}
    assert errors["mce"] == pytest.approx(np.mean([mean_error[name] / reference[name] for name in reference]))
    relative = [(mean_error[name] - 1 / 4) / (reference[name] - reference_clean) for name in reference]
    assert errors["relative_mce"] == pytest.approx(np.mean(relative))
    # AlexNet itself has 1 of both.
    alexnet = {name: [1 - error] * 5 for name, error in reference.items()}
    itself = c.against_alexnet(alexnet, clean_top1=1 - reference_clean)
    assert itself == pytest.approx({"mce": 1.0, "relative_mce": 1.0})


def test_labels_of_published_corruptions(config):
    suite = suites.load("c", config)
    source = suite.sets["zoom_blur/5"].load()
    np.testing.assert_array_equal(sample.labels_of(source), np.arange(12) // 2)
    assert source.records.name(0).startswith("n01440764/ILSVRC2012_val_")


def test_sets_that_do_not_show_the_same_images_are_refused(config):
    suite = suites.load("c", config)
    found = shown(suite, lambda name: 6)
    found["snow/2"] = sample.predictions(np.eye(6), range(6))
    with pytest.raises(suites.NotAvailable, match="the same 12 images: found 6 in snow/2"):
        entry_of(suite, found)
    # But records that could not be read are no other images.
    found["snow/2"] = sample.predictions(np.eye(6)[np.arange(11) // 2], np.arange(11) // 2, skipped=1)
    assert entry_of(suite, found).skipped == 1


def test_an_incomplete_suite_says_what_is_missing(config, directory, tmp_path):
    (tmp_path / "imagenet-c" / "gaussian_noise").mkdir(parents=True)
    (tmp_path / "imagenet-c" / "gaussian_noise" / "1").symlink_to(
        directory / "suites" / "imagenet-c" / "gaussian_noise" / "1"
    )
    data = dataclasses.replace(config.data, suites_directory=str(tmp_path))
    message = "expected 75 sets; gaussian_noise/2, .*/5, shot_noise/1 and 69 more are in none"
    with pytest.raises(suites.NotAvailable, match=message):
        suites.load("c", dataclasses.replace(config, data=data))


def test_folders_and_tars_of_corruptions_may_stand_side_by_side(config, directory, tmp_path):
    published = directory / "suites" / "imagenet-c"
    (tmp_path / "imagenet-c").mkdir()
    for folder in published.iterdir():
        if folder.name not in ("contrast", "elastic_transform", "pixelate", "jpeg_compression"):
            (tmp_path / "imagenet-c" / folder.name).symlink_to(folder)
    with tarfile.open(tmp_path / "imagenet-c" / "digital.tar", "w") as tar:
        for name in ("contrast", "elastic_transform", "pixelate", "jpeg_compression"):
            tar.add(published / name, name)
    data = dataclasses.replace(config.data, suites_directory=str(tmp_path))
    suite = suites.load("c", dataclasses.replace(config, data=data))
    origins = [suite.sets[name].load().origin for name in ("fog/5", "pixelate/5")]
    assert origins == ["published folder", "published tar"]


def test_corruptions_that_are_not_published_are_generated_and_say_so(config, tmp_path):
    data = dataclasses.replace(config.data, suites_directory=str(tmp_path))
    suite = suites.load("c", dataclasses.replace(config, data=data))
    assert suite.origin == "generated"
    entry = entry_of(suite, shown(suite, lambda name: 6))
    assert (entry.origin, entry.metrics["mean_top1"]) == ("generated", 0.5)


@pytest.mark.parametrize("name", ["a", "r", "o", "v2", "sketch", "real"])
def test_what_is_missing_is_not_available(config, tmp_path, name):
    data = dataclasses.replace(config.data, suites_directory=str(tmp_path))
    with pytest.raises(suites.NotAvailable, match=rf"expected .* in {tmp_path}"):
        suites.load(name, dataclasses.replace(config, data=data))
