"""Suites for data sets that come with none: made of the data set itself, each as its counterpart of ImageNet was.

Every figure is a share from 0 to 1, except ``nll`` in nats.
"""

from collections.abc import Callable, Mapping

import numpy as np
from absl import logging
from jaxtyping import Float, Int, UInt8

from vmoe_inform.config import Config
from vmoe_inform.data import sources
from vmoe_inform.data.sources import ArrayRecords, Source
from vmoe_inform.evaluation import cache, glyphs, metrics
from vmoe_inform.evaluation.suites.base import (
    CLEAN,
    MINI_SUITES,
    Entry,
    ImageSet,
    NotAvailable,
    Predictions,
    Scores,
    Suite,
    accuracy_suite,
    test_split,
    unknown_objects,
)

# ------------------------------------------------------------------------------------------- R: another rendition


# Of scikit-learn's digits: prints are drawn at the resolution of the handwriting.
_DIGITS_SIZE_PX = 8


@MINI_SUITES.register("r")
def renditions(config: Config) -> Suite:
    """The same classes in another rendition; for digits, the glyphs of the fonts that matplotlib ships."""
    if config.data.source != "digits":
        raise NotAvailable(
            f"source {config.data.source!r} has no other rendition of its classes built in: it would need a folder "
            "with drawings, prints or the like of the same classes, one folder each, as ImageNet-R is for ImageNet"
        )
    class_names = test_split(config.data).class_names
    images, positions = glyphs.glyphs("".join(class_names), _DIGITS_SIZE_PX)
    return accuracy_suite("r", Source(ArrayRecords(images, positions), class_names))


# ------------------------------------------------------------------------------ A: what a simple classifier gets wrong


@MINI_SUITES.register("a")
def hard_for_simple_classifier(config: Config) -> Suite:
    """The test images that a simple reference classifier gets wrong, as ImageNet-A was filtered (arXiv 1907.07174)."""
    if config.data.source not in _REFERENCE_CLASSIFIERS:
        raise NotAvailable(
            f"source {config.data.source!r} has no reference classifier built in: it would need a folder with the "
            "images of the same classes that a simple classifier gets wrong, one folder each, as ImageNet-A is"
        )
    train, test = sources.load(config.data, config.data.train_split), test_split(config.data)
    train_records, test_records = train.records, test.records
    assert isinstance(train_records, ArrayRecords)  # as both sources with a reference classifier give them
    assert isinstance(test_records, ArrayRecords)
    predicted = _REFERENCE_CLASSIFIERS[config.data.source](train_records, test_records, config)
    wrong = np.flatnonzero(predicted != test_records.labels)
    if not len(wrong):
        raise NotAvailable("the reference classifier gets every test image right: it needs a larger test split")
    records = ArrayRecords(test_records.images[wrong], test_records.labels[wrong])
    return accuracy_suite("a", Source(records, test.class_names))


def _flat(images: UInt8[np.ndarray, "n height width channels"]) -> Float[np.ndarray, "n pixels"]:
    return images.reshape(len(images), -1).astype(np.float32)


def _nearest_class_mean(train: ArrayRecords, test: ArrayRecords, config: Config) -> Int[np.ndarray, " n"]:
    """Class whose mean training image is nearest in pixels."""
    classes = np.unique(train.labels)
    means = np.stack([_flat(train.images[train.labels == label]).mean(axis=0) for label in classes])
    distances = np.square(_flat(test.images)[:, None] - means).sum(axis=2)
    return classes[distances.argmin(axis=1)]


_NUM_NEIGHBOURS = 5


def _nearest_neighbours(train: ArrayRecords, test: ArrayRecords, config: Config) -> Int[np.ndarray, " n"]:
    """Class that most of the five nearest training images in pixels have; kept in a file, as it takes its time."""
    from sklearn.neighbors import KNeighborsClassifier

    def predict() -> np.ndarray:
        logging.info("finding the neighbours of %d test images among %d", len(test), len(train))
        neighbours = min(_NUM_NEIGHBOURS, len(train))
        classifier = KNeighborsClassifier(neighbours, algorithm="brute").fit(_flat(train.images), train.labels)
        return classifier.predict(_flat(test.images))

    key = cache.digest(
        train_images=train.images,
        train_labels=train.labels,
        test_images=test.images,
        neighbours=_NUM_NEIGHBOURS,
    )
    directory = cache.cache_directory(config.evaluation.cache_directory)
    return cache.array(directory / "reference" / f"nearest_neighbours-{key}.npz", predict)


_REFERENCE_CLASSIFIERS: Mapping[str, Callable[[ArrayRecords, ArrayRecords, Config], np.ndarray]] = {
    "digits": _nearest_class_mean,
    "idx": _nearest_neighbours,
}


# ------------------------------------------------------------------------------------------- O: objects of no class


@MINI_SUITES.register("o")
def of_no_class(config: Config) -> Suite:
    """Letters, which are of no class, among the clean test images: can the confidence tell them apart?

    AUPR with the letters as positives and minus the largest probability as the score, as for ImageNet-O
    (arXiv 1907.07174, Sec. 4). A score that knows nothing has an AUPR of count / (count + count_in_distribution).
    """
    if config.data.source not in ("digits", "idx"):
        raise NotAvailable(
            f"source {config.data.source!r} has no objects of no class built in: it would need a folder of images "
            "that show none of its classes, as ImageNet-O is for ImageNet"
        )
    test = test_split(config.data)

    def letters() -> Source:
        # At the resolution of the test images, lest sharpness give the letters away. Their label 0 means nothing.
        height, width, _ = np.shape(test.records[0]["image"])
        images, _ = glyphs.glyphs(glyphs.LETTERS, max(height, width))
        return Source(ArrayRecords(images, np.zeros(len(images), np.int32)), test.class_names)

    def score(_: str, predictions: Predictions) -> Scores:
        log_doubt = metrics.log_doubt(predictions.logits).astype(np.float32)
        return {"log_doubt": log_doubt, "skipped": np.asarray(predictions.skipped)}

    def summarize(scores: Mapping[str, Scores]) -> Entry:
        return unknown_objects(scores["o"], scores[CLEAN])

    return Suite("o", {CLEAN: ImageSet(lambda: test), "o": ImageSet(letters)}, score, summarize)
