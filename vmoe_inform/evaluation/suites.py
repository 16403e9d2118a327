"""Evaluation suites: which sets of images a suite predicts, and what it says about the predictions.

Every figure is a share from 0 to 1, except ``nll`` in nats. A suite asks for nothing but predictions, so that it can
be tested without a model.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Float, Int, UInt8

from vmoe_inform.config import Config
from vmoe_inform.data import pipeline, sources
from vmoe_inform.data.sources import ArrayRecords, Source
from vmoe_inform.evaluation import cache, corruptions, glyphs, metrics
from vmoe_inform.registry import Registry

Entry = dict[str, Any]


class NotAvailable(Exception):
    """The suite cannot be had for this config; the message says what to put where, or to install or change."""


@dataclass(frozen=True)
class Predictions:
    """What a model says about one set.

    Attributes:
      logits: [n, classes].
      labels: [n].
      skipped: records that could not be read, which are not among the n.
    """

    logits: Float[np.ndarray, "n classes"]
    labels: Int[np.ndarray, " n"]
    skipped: int


@dataclass(frozen=True)
class Suite:
    """A suite for one config.

    Attributes:
      name: as registered.
      sets: set name -> function that loads or makes it.
      summarize: predictions of all sets, by their names -> the suite's entry of ``results.json``.
    """

    name: str
    sets: Mapping[str, Callable[[], Source]]
    summarize: Callable[[Mapping[str, Predictions]], Entry]


SUITES: Registry[Callable[[Config], Suite]] = Registry("suite")


def load(name: str, config: Config) -> Suite:
    """The suite ``name`` for the data set that ``config.data`` names.

    Raises:
      ValueError: an unknown suite.
      FileNotFoundError: the data set itself is missing.
      NotAvailable: the suite's own data are missing for this source, what makes them is not installed, or they do not
        go with the model's image size.
    """
    return SUITES[name](config)


def _accuracy(predictions: Predictions) -> Entry:
    """top1, its standard error, top5 (with more than five classes), nll, count, skipped."""
    logits, labels = predictions.logits, predictions.labels
    hits = metrics.top_k_hits(logits, labels, 1)
    top5 = {"top5": metrics.top_k_accuracy(logits, labels, 5)} if logits.shape[1] > 5 else {}
    return {
        "top1": float(hits.mean()),
        "top1_standard_error": metrics.standard_error(hits),
        **top5,
        "nll": metrics.negative_log_likelihood(logits, labels),
        "count": len(labels),
        "skipped": predictions.skipped,
    }


def _one_set_of_accuracy(name: str, load_set: Callable[[], Source]) -> Suite:
    return Suite(name, {name: load_set}, lambda predictions: _accuracy(predictions[name]))


def _test_split(config: Config) -> Source:
    return sources.load(config.data, config.data.test_split)


@SUITES.register("clean")
def clean(config: Config) -> Suite:
    """The test split: accuracy and calibration, with the bins of the reliability diagram."""

    def summarize(predictions: Mapping[str, Predictions]) -> Entry:
        own = predictions["clean"]
        diagram = metrics.reliability(own.logits, own.labels, config.evaluation.ece_bins)
        return {**_accuracy(own), "ece": metrics.calibration_error(diagram), "reliability": diagram}

    return Suite("clean", {"clean": functools.partial(_test_split, config)}, summarize)


# ---------------------------------------------------------------------------------------------------- C: corruptions

# A generated set is made and kept whole; larger data sets have published corruptions, or should take a part.
_LARGEST_SET_BYTES = 2 * 1024**3


@SUITES.register("c")
def corrupted(config: Config) -> Suite:
    """The test split under 15 corruptions in five severities, generated at the model's image size and kept in files.

    The first set that is loaded makes all that are missing, since together they can share the processor's cores. At
    32 px all 75 sets take about 0.13 s of one core and 230 kB of disk for each test image.
    """
    size = config.model.image_size_px
    if size < corruptions.MINIMUM_SIZE_PX:
        raise NotAvailable(
            f"the corruptions are for images of {corruptions.MINIMUM_SIZE_PX} px or more, and model.image_size_px is "
            f"{size}"
        )
    if not corruptions.is_installed():
        raise NotAvailable(
            "the package that draws the corruptions is not installed: "
            f"pip install --no-deps {corruptions.DISTRIBUTION}=={corruptions.VERSION}"
        )
    source = _test_split(config)
    set_bytes = len(source.records) * size * size * 3
    if set_bytes > _LARGEST_SET_BYTES:
        raise NotAvailable(
            f"generated corruptions are for test sets of up to {_LARGEST_SET_BYTES / 1e9:.1f} GB of pixels, these are "
            f"{set_bytes / 1e9:.1f} GB: set data.test_split to a part of them"
        )

    directory = cache.cache_directory(config.evaluation.cache_directory)
    seed = config.evaluation.corruption_seed

    # Once for all sets, and not before one is wanted.
    @functools.cache
    def clean_images() -> tuple[UInt8[np.ndarray, "n P P 3"], Int[np.ndarray, " n"], int]:
        return _in_memory(source, config)

    @functools.cache
    def generate() -> None:
        corruptions.generate_all(clean_images()[0], seed=seed, directory=directory)

    def load_set(corruption: str, severity: int) -> Source:
        generate()
        images, labels, _ = clean_images()
        drawn = corruptions.load(images, corruption, severity, seed=seed, directory=directory)
        return Source(ArrayRecords(drawn, labels), source.class_names)

    def summarize(predictions: Mapping[str, Predictions]) -> Entry:
        hits = {name: metrics.top_k_hits(own.logits, own.labels, 1) for name, own in predictions.items()}
        per_corruption = {
            name: [float(hits[f"{name}/{severity}"].mean()) for severity in corruptions.SEVERITIES]
            for name in corruptions.CORRUPTIONS
        }
        # The sets show the same images, so it is over the images that the mean is uncertain.
        of_image = np.mean(np.stack(list(hits.values())), axis=0)
        return {
            "mean_top1": float(of_image.mean()),
            "mean_top1_standard_error": metrics.standard_error(of_image),
            "per_corruption": per_corruption,
            "count": len(of_image),
            "skipped": clean_images()[2],
            "generated": True,
        }

    return Suite(
        "c",
        {
            f"{corruption}/{severity}": functools.partial(load_set, corruption, severity)
            for corruption in corruptions.CORRUPTIONS
            for severity in corruptions.SEVERITIES
        },
        summarize,
    )


def _in_memory(source: Source, config: Config) -> tuple[np.ndarray, np.ndarray, int]:
    """Images [n, P, P, 3] and labels [n] of all readable records, and the number of the others."""
    skipped = pipeline.SkippedRecords(config.data.max_skipped_share)
    batches = list(
        pipeline.evaluation_batches(
            source,
            image_size_px=config.model.image_size_px,
            batch_size=config.evaluation.batch_size,
            skipped=skipped,
            num_threads=0 if isinstance(source.records, ArrayRecords) else config.data.num_threads,
        )
    )
    images, labels = (np.concatenate([batch[name][batch["mask"]] for batch in batches]) for name in ("image", "label"))
    return images, labels, skipped.count


# ------------------------------------------------------------------------------------------- R: another rendition


# Of scikit-learn's digits: prints are drawn at the resolution of the handwriting.
_DIGITS_SIZE_PX = 8


@SUITES.register("r")
def renditions(config: Config) -> Suite:
    """The same classes in another rendition; for digits, the glyphs of the fonts that matplotlib ships."""
    if config.data.source != "digits":
        raise NotAvailable(
            f"source {config.data.source!r} has no other rendition of its classes built in: it would need a folder "
            "with drawings, prints or the like of the same classes, one folder each, as ImageNet-R is for ImageNet"
        )
    class_names = _test_split(config).class_names

    def load_set() -> Source:
        images, positions = glyphs.glyphs("".join(class_names), _DIGITS_SIZE_PX)
        return Source(ArrayRecords(images, positions), class_names)

    return _one_set_of_accuracy("r", load_set)


# ------------------------------------------------------------------------------ A: what a simple classifier gets wrong


@SUITES.register("a")
def hard_for_simple_classifier(config: Config) -> Suite:
    """The test images that a simple reference classifier gets wrong, as ImageNet-A was filtered (arXiv 1907.07174)."""
    if config.data.source not in _REFERENCE_CLASSIFIERS:
        raise NotAvailable(
            f"source {config.data.source!r} has no reference classifier built in: it would need a folder with the "
            "images of the same classes that a simple classifier gets wrong, one folder each, as ImageNet-A is"
        )
    train, test = sources.load(config.data, config.data.train_split), _test_split(config)
    train_records, test_records = train.records, test.records
    assert isinstance(train_records, ArrayRecords)  # as both sources with a reference classifier give them
    assert isinstance(test_records, ArrayRecords)
    predicted = _REFERENCE_CLASSIFIERS[config.data.source](train_records, test_records, config)
    wrong = np.flatnonzero(predicted != test_records.labels)
    if not len(wrong):
        raise NotAvailable("the reference classifier gets every test image right: it needs a larger test split")
    records = ArrayRecords(test_records.images[wrong], test_records.labels[wrong])
    return _one_set_of_accuracy("a", lambda: Source(records, test.class_names))


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


@SUITES.register("o")
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
    test = _test_split(config)

    def letters() -> Source:
        # At the resolution of the test images, lest sharpness give the letters away. Their label 0 means nothing.
        height, width, _ = np.shape(test.records[0]["image"])
        images, _ = glyphs.glyphs(glyphs.LETTERS, max(height, width))
        return Source(ArrayRecords(images, np.zeros(len(images), np.int32)), test.class_names)

    def summarize(predictions: Mapping[str, Predictions]) -> Entry:
        of_tests, of_letters = (-metrics.max_probability(predictions[name].logits) for name in ("clean", "o"))
        positive = np.arange(len(of_tests) + len(of_letters)) >= len(of_tests)
        return {
            "aupr": metrics.area_under_precision_recall(np.concatenate([of_tests, of_letters]), positive),
            "count": len(of_letters),
            "count_in_distribution": len(of_tests),
            "skipped": predictions["clean"].skipped,
        }

    return Suite("o", {"clean": lambda: test, "o": letters}, summarize)
