import dataclasses
import gzip
import pathlib
import re
import struct
import sys

import numpy as np
import pytest
from PIL import Image

from vmoe_inform.config import (
    AttackConfig,
    ImageConfig,
    ImageDataConfig,
    ImageEvaluationConfig,
    VisionModelConfig,
)
from vmoe_inform.data import sources
from vmoe_inform.data.images.framing import Framing
from vmoe_inform.evaluation import corruptions, fingerprints, headlines, suites
from vmoe_inform.evaluation.results import AttackFacts
from vmoe_inform.evaluation.suites import AttackedPredictions, _generated_corruptions, labelled, o

from .imagenet_sample import entry_of
from .imagenet_sample import predictions as predictions_of

CONFIG = ImageConfig(model=VisionModelConfig(num_classes=10, image_size_px=32, patch_size_px=8))


def predict(source, logits_of):
    labels = np.array([source.records[index]["label"] for index in range(len(source.records))])
    return predictions_of([logits_of(label) for label in labels], labels)


def confident(label):
    return 5.0 * np.eye(10)[label]


def write_idx(directory, prefix, images, labels):
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
        (directory / f"{prefix}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def idx(tmp_path):
    """Squares of class 0 and 1 are dark and bright; of the three test images the last is bright and of class 0."""
    shades, labels = np.repeat(np.uint8([10, 200]), 5), np.repeat(np.uint8([0, 1]), 5)
    write_idx(tmp_path, "train", np.broadcast_to(shades[:, None, None], (10, 28, 28)), labels)
    tests = np.broadcast_to(np.uint8([20, 190, 210])[:, None, None], (3, 28, 28))
    write_idx(tmp_path, "t10k", tests, np.uint8([0, 1, 0]))
    return dataclasses.replace(
        CONFIG,
        data=ImageDataConfig(source="idx", directory=str(tmp_path)),
        evaluation=ImageEvaluationConfig(cache_directory=str(tmp_path / "cache")),
    )


def test_clean():
    suite = suites.load("clean", CONFIG)
    entry = entry_of(suite, {name: predict(own.load(), confident) for name, own in suite.sets.items()})
    assert (entry.metrics["top1"], entry.metrics["top5"], entry.standard_errors["top1"]) == (1.0, 1.0, 0.0)
    assert (entry.count, entry.skipped) == (364, 0)
    # Probability of the label: e^5 / (e^5 + 9), all in one bin and all right.
    probability = np.exp(5) / (np.exp(5) + 9)
    assert entry.metrics["nll"] == pytest.approx(-np.log(probability), rel=1e-5)
    assert entry.metrics["ece"] == pytest.approx(1 - probability, rel=1e-5)
    assert sum(entry.reliability.count) == 364
    assert len(entry.reliability.count) == CONFIG.evaluation.ece_bins
    assert (entry.metrics["aurc"], entry.risk_coverage.risk) == (0.0, (0.0,) * 20)
    assert len(entry.worst_classes) == 10


def test_top5_needs_more_than_five_classes():
    scores = labelled.accuracy_scores(predictions_of(np.eye(4, 5), range(4), skipped=2))
    entry = labelled.accuracy(scores, tuple("abcde"))
    assert "top5" not in entry.metrics
    assert entry.skipped == 2


def test_scores_take_a_few_bytes_an_image():
    scores = labelled.accuracy_scores(predictions_of(np.zeros((100, 1000)), range(100)), np.arange(200))
    assert sum(values.nbytes for values in scores.values()) <= 30 * 100


def test_masked_logits_by_hand():
    # Of classes 1, 3 and 4 only: image 0 is right among them (0 and 2 are masked), image 1 is taken for 4.
    logits = [[9.0, 1.0, 9.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 2.0]]
    scores = labelled.accuracy_scores(predictions_of(logits, [1, 3]), np.array([1, 3, 4]))
    assert scores["hit"].tolist() == [True, False]
    assert scores["hit_unmasked"].tolist() == [False, False]
    assert scores["predicted"].tolist() == [1, 4]
    total = np.e + 2, 1 + np.e + np.e**2
    np.testing.assert_allclose(scores["confidence"], [np.e / total[0], np.e**2 / total[1]], rtol=1e-6)
    np.testing.assert_allclose(scores["nll"], [np.log(total[0]) - 1, np.log(total[1]) - 1], rtol=1e-6)
    entry = labelled.accuracy(scores, tuple("abcde"))
    assert (entry.metrics["top1"], entry.metrics["top1_unmasked"]) == (0.5, 0.0)
    assert (entry.standard_errors["top1"], entry.standard_errors["top1_unmasked"]) == (0.5 / np.sqrt(2), 0.0)
    with pytest.raises(ValueError, match=r"labels: expected among the suite's 3 classes"):
        labelled.accuracy_scores(predictions_of(logits, [1, 2]), np.array([1, 3, 4]))


def test_worst_classes_come_first_and_of_equal_ones_the_larger():
    labels = np.array([0, 0, 1, 1, 1, 2, 4])
    hits = np.array([True, False, False, False, False, False, True])
    names = ("n01440764", "b", "c", "without images", "e")
    found = labelled.worst_classes(labels, hits, names)
    assert [(f.name, f.top1, f.count) for f in found] == [
        ("b", 0.0, 3),
        ("c", 0.0, 1),
        ("n01440764", 0.5, 2),
        ("e", 1.0, 1),
    ]
    assert found[2].title.startswith("tench")


def test_corruptions_of_every_set_are_summarized(idx):
    suite = suites.load("c", idx)
    assert list(suite.sets) == [f"{name}/{severity}" for name in corruptions.CORRUPTIONS for severity in range(1, 6)]
    # Of three images the first s are right at severity s for fog, all are for the others.
    labels = np.array([0, 1, 0])
    predictions = {}
    for name in suite.sets:
        corruption, severity = name.split("/")
        right = np.arange(3) < int(severity) if corruption == "fog" else np.ones(3, bool)
        predictions[name] = predictions_of(np.eye(2)[np.where(right, labels, 1 - labels)], labels)
    entry = entry_of(suite, predictions)
    assert entry.per_corruption["fog"] == pytest.approx([1 / 3, 2 / 3, 1, 1, 1])
    assert entry.per_corruption["snow"] == (1.0,) * 5
    # Image 0 is right in 75 of 75 sets, image 1 in 74, image 2 in 73.
    assert entry.metrics["mean_top1"] == pytest.approx(74 / 75)
    assert entry.standard_errors["mean_top1"] == pytest.approx(np.std([73, 74, 75]) / 75 / np.sqrt(3))
    assert (entry.count, entry.skipped) == (3, 0)
    assert entry.origin == "generated"
    assert not {"mce", "relative_mce"} & set(entry.metrics)  # AlexNet knows ImageNet's classes
    # Three images, not 225 pictures; as sure as independent draws with that standard error would be.
    found = headlines.headline(entry)
    assert found.count == 3
    draws = 74 / 75 * (1 / 75) / entry.standard_errors["mean_top1"] ** 2
    assert (found.low, found.high) == pytest.approx(headlines.wilson_interval(74 / 75, draws))


def test_corrupted_sets_keep_labels_and_come_from_the_cache(idx, tmp_path):
    suite = suites.load("c", idx)
    source = suite.sets["brightness/4"].load()
    assert [source.records[index]["label"] for index in range(3)] == [0, 1, 0]
    # Brightness 4 adds 0.4 to the value 20 / 255: 20 + 102 = 122, within rounding.
    np.testing.assert_allclose(source.records[0]["image"].astype(int), 122, atol=1)
    assert len(list((tmp_path / "cache" / "corruptions").glob("*.npz"))) == 75
    again = suites.load("c", idx).sets["brightness/4"].load()
    np.testing.assert_array_equal(again.records.images, source.records.images)


def test_corruptions_of_some_of_the_images(idx, tmp_path):
    settings = dataclasses.replace(idx.evaluation, corrupted_images=2)
    suite = suites.load("c", dataclasses.replace(idx, evaluation=settings))
    source = suite.sets["brightness/4"].load()
    assert [source.records[index]["label"] for index in range(2)] == [0, 1]  # evenly: images 0 and 1 of three
    entry = entry_of(suite, dict.fromkeys(suite.sets, predictions_of(np.eye(2), [0, 1])))
    assert (entry.count, entry.skipped, entry.metrics["mean_top1"]) == (2, 0, 1.0)
    whole = suites.load("c", idx)
    assert fingerprints.together(suite.records()) != fingerprints.together(whole.records())  # other scores are kept


def test_corruptions_need_large_enough_images():
    model = dataclasses.replace(CONFIG.model, image_size_px=24)
    with pytest.raises(suites.NotAvailable, match=r"32 px or more, and model\.image_size_px is 24"):
        suites.load("c", dataclasses.replace(CONFIG, model=model))


@pytest.mark.parametrize("missing", ["module", "distribution"])
def test_corruptions_without_their_package_say_how_the_set_up_installs_it(missing, monkeypatch):
    install = (pathlib.Path(__file__).parents[2] / "launch" / "install.sh").read_text()
    (requirement,) = re.findall(r"--no-deps (imagecorruptions\S+)", install)
    assert "c" in suites.load("c", CONFIG).name  # with the package
    if missing == "module":
        monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    else:  # another distribution may hold a module of the same name
        monkeypatch.setattr(corruptions, "DISTRIBUTION", "no-such-distribution")
        requirement = requirement.replace("imagecorruptions-imaug", "no-such-distribution")
    with pytest.raises(suites.NotAvailable, match=f"pip install --no-deps {re.escape(requirement)}$"):
        suites.load("c", CONFIG)


def test_renditions_show_the_class_that_their_label_says():
    suite = suites.load("r", CONFIG)
    source = suite.sets["r"].load()
    assert source.class_names == tuple("0123456789")
    # A classifier of handwriting reads most of the prints: labels are not shifted against the pictures.
    from sklearn.svm import SVC

    train = sources.load(CONFIG.data, "train").records
    classifier = SVC().fit(train.images.reshape(len(train), -1) / 255, train.labels)
    right = classifier.predict(source.records.images.reshape(len(source.records), -1) / 255) == source.records.labels
    assert right.mean() > 0.5
    entry = entry_of(suite, {"r": predict(source, confident)})
    assert entry.metrics["top1"] == 1.0
    assert entry.count == len(source.records) >= 150


def test_hard_digits_are_those_that_the_nearest_class_mean_gets_wrong():
    from sklearn.metrics.pairwise import euclidean_distances

    source = suites.load("a", CONFIG).sets["a"].load()
    train, test = (sources.load(CONFIG.data, split).records for split in ("train", "test"))

    def flat(images):
        return images.reshape(len(images), -1).astype(np.float64)

    means = np.stack([flat(train.images[train.labels == digit]).mean(axis=0) for digit in range(10)])
    wrong = euclidean_distances(flat(test.images), means).argmin(axis=1) != test.labels
    np.testing.assert_array_equal(source.records.images, test.images[wrong])
    np.testing.assert_array_equal(source.records.labels, test.labels[wrong])
    assert 0.05 < wrong.mean() < 0.15  # about one in ten


def test_hard_images_of_idx_files_are_those_whose_neighbours_are_of_another_class(idx, tmp_path):
    source = suites.load("a", idx).sets["a"].load()
    assert len(source.records) == 1
    np.testing.assert_array_equal(source.records[0]["image"], np.full((28, 28, 1), 210))
    assert source.records[0]["label"] == 0
    assert len(list((tmp_path / "cache" / "reference").glob("*.npz"))) == 1


def test_no_hard_images_are_no_suite(idx, tmp_path):
    write_idx(tmp_path, "t10k", np.full((1, 28, 28), 10, np.uint8), np.uint8([0]))
    with pytest.raises(suites.NotAvailable, match="every test image right"):
        suites.load("a", idx)


@pytest.mark.parametrize(("source", "size_px"), [("digits", 8), ("idx", 28)])
def test_letters_against_test_images(idx, source, size_px):
    suite = suites.load("o", idx if source == "idx" else CONFIG)
    loaded = {name: own.load() for name, own in suite.sets.items()}
    assert set(loaded) == {"clean", "o"}
    assert loaded["o"].records.images.shape[1:] == (size_px, size_px, 1)
    count, count_in_distribution = len(loaded["o"].records), len(loaded["clean"].records)

    unsure = {"clean": predict(loaded["clean"], confident), "o": predict(loaded["o"], lambda label: np.zeros(10))}
    entry = entry_of(suite, unsure)
    assert (entry.metrics["aupr"], entry.count, entry.metrics["count_in_distribution"]) == (
        1.0,
        count,
        count_in_distribution,
    )
    # As confident of letters as of digits: the score knows nothing, and precision is the share of letters.
    fooled = {**unsure, "o": predict(loaded["o"], confident)}
    assert entry_of(suite, fooled).metrics["aupr"] == pytest.approx(count / (count + count_in_distribution))


@pytest.mark.parametrize(("source", "suite"), [("idx", "r"), *(("folder", suite) for suite in "rao")])
def test_what_is_not_available_says_what_it_needs(idx, tmp_path, source, suite):
    (tmp_path / "test" / "cat").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "test" / "cat" / "1.png")
    config = dataclasses.replace(idx, data=dataclasses.replace(idx.data, source=source))
    with pytest.raises(suites.NotAvailable, match=f"source '{source}' .* it would need a folder"):
        suites.load(suite, config)


def test_suites_of_imagenet_are_of_its_classes():
    with pytest.raises(suites.NotAvailable, match=r"no such suite for other classes.*source 'digits'.*'0'"):
        suites.load("sketch", CONFIG)


def test_test_split_that_is_too_large_for_generated_corruptions(idx):
    model = dataclasses.replace(idx.model, image_size_px=32768)  # 3 images of 3.2 GB
    with pytest.raises(suites.NotAvailable, match=r"up to 67 MB of pixels.*evaluate --generate_corruptions"):
        suites.load("c", dataclasses.replace(idx, model=model))


def test_unknown_suite_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"expected one of a, c, class.*, word_swap; received 'x'"):
        suites.load("x", CONFIG)


def test_missing_data_are_an_error_not_a_missing_suite():
    config = dataclasses.replace(CONFIG, data=ImageDataConfig(source="idx", directory="no/such/directory"))
    with pytest.raises(FileNotFoundError, match=r"data\.directory"):
        suites.load("clean", config).sets["clean"].load()


def test_corruptions_of_a_large_set_are_drawn_while_they_are_read(idx):
    settings = dataclasses.replace(idx.evaluation, generate_corruptions=True)
    model = dataclasses.replace(idx.model, image_size_px=32768)  # 3 images of 3.2 GB
    suite = suites.load("c", dataclasses.replace(idx, model=model, evaluation=settings))
    source = suite.sets["brightness/4"].load()
    assert (source.origin, suite.origin, len(source.records)) == ("generated", "generated", 3)
    small = dataclasses.replace(source.records, image_size_px=32)
    np.testing.assert_allclose(small[0]["image"].astype(int), 122, atol=1)  # 20 + 0.4 * 255, as from the cache


def test_attacked_images_are_spread_over_the_split_and_stand_beside_the_same_ones_unchanged():
    attack = AttackConfig(epsilon=2.0, num_steps=3, images=100, seed=5)
    config = dataclasses.replace(CONFIG, evaluation=ImageEvaluationConfig(attack=attack))
    suite = suites.load("pgd", config)
    whole, part = suites.test_split(config.data), suite.sets["pgd"].load()
    chosen = np.arange(100) * 364 // 100
    labels = np.array([whole.records[index]["label"] for index in range(364)])
    assert [part.records[index]["label"] for index in range(100)] == labels[chosen].tolist()
    # Unchanged: right for the first half of the images; attacked: for the first quarter; no gradient: for 7.
    own = labels[chosen]
    unchanged, attacked = (
        predictions_of(np.eye(10)[np.where(np.arange(100) < n, own, (own + 1) % 10)], own) for n in (50, 25)
    )
    attacked = AttackedPredictions(**vars(attacked), without_gradient=np.arange(100) < 7)
    scores = suite.score("pgd", attacked)
    np.testing.assert_array_equal(scores["index"], chosen)
    entry = suite.result({"unchanged": suite.score("unchanged", unchanged), "pgd": scores})
    assert (entry.metrics["top1"], entry.metrics["clean_top1"], entry.count, entry.metrics["without_gradient"]) == (
        0.25,
        0.5,
        100,
        0.07,
    )
    assert (entry.attack, entry.seed) == (AttackFacts(2.0, num_steps=3, step_size=0.25, loss="margin"), 5)
    assert suite.sets["pgd"].settings == {
        **{"loss": "margin", "epsilon": 2.0, "num_steps": 3, "step_size": 0.25, "seed": 5, "images": 100}
    }
    one_step = suites.load("fgsm", config)
    assert one_step.sets["fgsm"].settings == {"loss": "margin", "epsilon": 2.0, "num_steps": 1, "images": 100}
    # Where all images are attacked, the clean predictions are there already.
    assert list(suites.load("fgsm", CONFIG).sets) == ["clean", "fgsm"]


def test_confidences_that_are_rounded_to_one_still_tell_right_from_wrong_and_known_from_unknown():
    # Margins of 100 to 300 nats; the right ones, and the known ones, are the largest.
    margins = np.arange(100.0, 300.0, 10.0)
    logits = np.stack([margins, np.zeros(20)], axis=1)
    sure = predictions_of(logits[10:], np.zeros(10, int))
    scores = labelled.accuracy_scores(predictions_of(logits, np.repeat([1, 0], 10)))
    assert (scores["confidence"] == 1.0).all()
    entry = labelled.accuracy(scores, ("a", "b"))
    assert entry.risk_coverage.risk[9] == 0.0  # of the surer half
    outside = labelled.accuracy_scores(predictions_of(logits[:10], np.zeros(10, int)))
    assert o.told_apart(outside, labelled.accuracy_scores(sure)).metrics["aupr"] == pytest.approx(1.0)


@pytest.fixture
def cropped(monkeypatch):
    """The digits, from a source that says itself how evaluation crops them."""
    digits = sources.SOURCES["digits"]
    own = {"digits": lambda *of: dataclasses.replace(digits(*of), framing=Framing(0.5))}
    monkeypatch.setattr(sources.SOURCES, "_entries", {**sources.SOURCES._entries, **own})
    suites.test_split.cache_clear()
    yield
    suites.test_split.cache_clear()


def test_images_are_cropped_as_their_source_says(cropped):
    kinds = ("clean", "a", "fgsm", "pgd", "fewshot", "linear")
    config = dataclasses.replace(CONFIG, evaluation=ImageEvaluationConfig(attack=AttackConfig(images=100)))
    sets = [record_set for name in kinds for record_set in suites.load(name, config).sets.values()]
    assert {record_set.load().framing for record_set in sets} == {Framing(0.5)}

    class Model:
        def features(self, source):
            raise LookupError(source.framing.crop)

    for name in ("fewshot", "linear"):  # which begin with the training images
        record_set = next(iter(suites.load(name, config).sets.values()))
        with pytest.raises(LookupError, match=r"^0\.5$"):
            record_set.predict(Model(), record_set.load())


def test_corrupted_images_were_cropped_before_as_their_source_says(cropped, monkeypatch):
    monkeypatch.setattr(_generated_corruptions, "_LARGEST_SET_BYTES", 0)
    config = dataclasses.replace(CONFIG, evaluation=ImageEvaluationConfig(generate_corruptions=True))
    source = suites.load("c", config).sets["fog/1"].load()
    assert (source.records.framing, source.framing) == (Framing(0.5), Framing())
