"""ImageNet's suites as they are published: A, O, R, V2, Sketch and ReaL.

A model may know only some of the 1,000 classes; then so do its suites.
"""

import functools
from collections.abc import Mapping

import numpy as np

from vmoe_inform.config import Config
from vmoe_inform.data.images import ilsvrc, label_sets, published
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation import metrics
from vmoe_inform.evaluation.suites.base import (
    CLEAN,
    IMAGENET_SUITES,
    Entry,
    ImageSet,
    NotAvailable,
    Predictions,
    Scores,
    Suite,
    accuracy,
    accuracy_suite,
    test_split,
    unknown_objects,
)


def _load(name: str, config: Config) -> Source:
    try:
        return published.load(name, config.data, test_split(config.data).class_names)
    except published.MissingSuiteError as problem:
        raise NotAvailable(str(problem)) from None


def _known_classes(name: str, config: Config) -> np.ndarray:
    """Labels of the subset's classes that the model knows, ascending."""
    class_names = test_split(config.data).class_names
    known = label_sets.known_classes(name, class_names)
    if not known:
        raise NotAvailable(
            f"none of the test split's {len(class_names)} classes is among those of ImageNet-{name.upper()}"
        )
    return np.sort(label_sets.positions(known, class_names))


def _masked(name: str, config: Config) -> Suite:
    """Accuracy among the suite's own classes, as its authors measure it: the logits of the others are left out."""
    return accuracy_suite(name, _load(name, config), _known_classes(name, config))


def _of_all_classes(name: str, config: Config) -> Suite:
    return accuracy_suite(name, _load(name, config))


# Images that ResNet-50 gets wrong (arXiv 1907.07174), and renditions (arXiv 2006.16241), each of 200 classes.
for _name in ("a", "r"):
    IMAGENET_SUITES.add(_name, functools.partial(_masked, _name))
# A second test set (arXiv 1902.10811), and sketches (arXiv 1905.13549).
for _name in ("v2", "sketch"):
    IMAGENET_SUITES.add(_name, functools.partial(_of_all_classes, _name))


@IMAGENET_SUITES.register("o")
def of_no_class(config: Config) -> Suite:
    """Objects of no class among test images of the 200 classes that resemble them (arXiv 1907.07174, Sec. 4).

    The confidence is the largest probability of the softmax over those classes' logits.
    """
    source, classes = _load("o", config), _known_classes("o", config)

    def score(set_name: str, predictions: Predictions) -> Scores:
        # Labels of the outsiders mean nothing; of the test images those of the 200 classes count.
        chosen = np.isin(predictions.labels, classes) if set_name == CLEAN else np.ones(len(predictions.labels), bool)
        logits = predictions.logits[chosen][:, classes]
        return {
            "index": predictions.indices[chosen].astype(np.int32),
            "log_doubt": metrics.log_doubt(logits).astype(np.float32),
            "skipped": np.asarray(predictions.skipped),
        }

    def summarize(scores: Mapping[str, Scores]) -> Entry:
        return unknown_objects(scores["o"], scores[CLEAN]) | {"classes": len(classes)}

    sets = {CLEAN: ImageSet(lambda: test_split(config.data)), "o": ImageSet(lambda: source)}
    return Suite("o", sets, score, summarize, source.origin)


@IMAGENET_SUITES.register("real")
def reassessed_labels(config: Config) -> Suite:
    """The validation images by ReaL labels: right if the class is one of several that an image shows.

    Images that show none are left out (Beyer et al. 2020, arXiv 2006.07159).
    """
    source = test_split(config.data)
    try:
        labels = published.real_labels(config.data, source.class_names)
    except published.MissingSuiteError as problem:
        raise NotAvailable(str(problem)) from None

    def labels_of(index: int) -> frozenset[int]:
        name = source.records.name(index)
        number = ilsvrc.validation_number(name)
        key = "" if number is None else ilsvrc.validation_key(number)
        if key not in labels:
            raise NotAvailable(
                "ReaL labels go by the file names of the validation images: expected one like "
                f"{ilsvrc.validation_key(1)}.JPEG that has labels; found {name!r} in split {config.data.test_split!r}"
            )
        return labels[key]

    def score(_: str, predictions: Predictions) -> Scores:
        several = [labels_of(int(index)) for index in predictions.indices]
        kept = np.array([bool(own) for own in several])
        predicted = np.argmax(predictions.logits, axis=1)
        hits = np.array([int(label) in own for label, own in zip(predicted, several, strict=True)])
        return {
            "index": predictions.indices[kept].astype(np.int32),
            "label": predictions.labels[kept].astype(np.int32),
            "predicted": predicted[kept].astype(np.int32),
            "hit": hits[kept],
            "confidence": metrics.max_probability(predictions.logits[kept]).astype(np.float32),
            "log_doubt": metrics.log_doubt(predictions.logits[kept]).astype(np.float32),
            "excluded": np.asarray(len(kept) - kept.sum()),
            "skipped": np.asarray(predictions.skipped),
        }

    def summarize(scores: Mapping[str, Scores]) -> Entry:
        own = scores[CLEAN]
        if not len(own["hit"]):
            raise NotAvailable("none of the test images has a ReaL label among the model's classes")
        return accuracy(own, source.class_names) | {"excluded": int(own["excluded"])}

    return Suite("real", {CLEAN: ImageSet(lambda: source)}, score, summarize, source.origin)
