"""Images that a simple classifier gets wrong: ImageNet-A (Hendrycks et al. 2021, arXiv 1907.07174), or made alike."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from absl import logging
from jaxtyping import Float, Int, UInt8

from vmoe_inform.config import ImageConfig
from vmoe_inform.data import sources
from vmoe_inform.data.images.published import PublishedSuite
from vmoe_inform.data.sources import ArrayRecords
from vmoe_inform.evaluation import cache
from vmoe_inform.evaluation.metric_registry import UNMASKED
from vmoe_inform.evaluation.suites import _imagenet
from vmoe_inform.evaluation.suites.base import NotAvailable, Suite, test_split
from vmoe_inform.evaluation.suites.labelled import DETAILS, accuracy_suite
from vmoe_inform.evaluation.suites.registry import register

PUBLISHED = PublishedSuite("ImageNet-A", ("imagenet-a",), "imagenet_a", 7_500, subset="a")


@register(
    "a",
    title="A: images that a simple classifier gets wrong",
    short_title="A, hard images",
    rows=(UNMASKED,),
    details=DETAILS,
    published=PUBLISHED,
)
def hard_images(config: ImageConfig) -> Suite:
    """ImageNet-A among its own 200 classes; else the test images that a simple reference classifier gets wrong."""
    return _imagenet.masked("a", PUBLISHED, config) if _imagenet.has_imagenet_classes(config) else _filtered(config)


def _filtered(config: ImageConfig) -> Suite:
    if config.data.source not in _REFERENCE_CLASSIFIERS:
        raise NotAvailable(
            f"source {config.data.source!r} has no reference classifier built in: it would need a folder with the "
            "images of the same classes that a simple classifier gets wrong, one folder each, as ImageNet-A is"
        )
    train, test = sources.training(config.data), test_split(config.data)
    train_records, test_records = train.records, test.records
    assert isinstance(train_records, ArrayRecords)  # as both sources with a reference classifier give them
    assert isinstance(test_records, ArrayRecords)
    predicted = _REFERENCE_CLASSIFIERS[config.data.source](train_records, test_records, config)
    wrong = np.flatnonzero(predicted != test_records.labels)
    if not len(wrong):
        raise NotAvailable("the reference classifier gets every test image right: it needs a larger test split")
    records = ArrayRecords(test_records.images[wrong], test_records.labels[wrong])
    return accuracy_suite("a", dataclasses.replace(test, records=records, origin=""))


def _flat(images: UInt8[np.ndarray, "n height width channels"]) -> Float[np.ndarray, "n pixels"]:
    return images.reshape(len(images), -1).astype(np.float32)


def _nearest_class_mean(train: ArrayRecords, test: ArrayRecords, config: ImageConfig) -> Int[np.ndarray, " n"]:
    """Class whose mean training image is nearest in pixels."""
    classes = np.unique(train.labels)
    means = np.stack([_flat(train.images[train.labels == label]).mean(axis=0) for label in classes])
    distances = np.square(_flat(test.images)[:, None] - means).sum(axis=2)
    return classes[distances.argmin(axis=1)]


_NUM_NEIGHBOURS = 5


def _nearest_neighbours(train: ArrayRecords, test: ArrayRecords, config: ImageConfig) -> Int[np.ndarray, " n"]:
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
    return cache.array_made_once(directory / "reference" / f"nearest_neighbours-{key}.npz", predict)


_REFERENCE_CLASSIFIERS: Mapping[str, Callable[[ArrayRecords, ArrayRecords, ImageConfig], np.ndarray]] = {
    "digits": _nearest_class_mean,
    "idx": _nearest_neighbours,
}
