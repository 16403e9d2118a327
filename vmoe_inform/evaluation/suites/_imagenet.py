"""Shared code of the suites of ImageNet's classes. A model may know only some of the 1,000 classes; then so do they."""

import numpy as np

from vmoe_inform.config import ImageConfig
from vmoe_inform.data import classes
from vmoe_inform.data.images import label_sets, published
from vmoe_inform.data.images.published import PublishedSuite
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation.suites.base import NotAvailable, Suite, test_split
from vmoe_inform.evaluation.suites.labelled import accuracy_suite


def has_imagenet_classes(config: ImageConfig) -> bool:
    """Whether the data set's classes are among ImageNet's 1,000."""
    return label_sets.is_imagenet(test_split(config.data).class_names)


def check_classes(config: ImageConfig) -> None:
    """Raises NotAvailable unless the data set's classes are among ImageNet's 1,000."""
    if not has_imagenet_classes(config):
        first = test_split(config.data).class_names[0]
        raise NotAvailable(
            f"there is no such suite for other classes than ImageNet's: those of source {config.data.source!r} are "
            f"({first!r}, ...)"
        )


def load(suite: PublishedSuite, config: ImageConfig) -> Source:
    """The published images. Raises NotAvailable if they are missing."""
    try:
        return published.load(suite, config.data, test_split(config.data).class_names)
    except published.MissingSuiteError as problem:
        raise NotAvailable(str(problem)) from None


def known_classes(suite: PublishedSuite, config: ImageConfig) -> np.ndarray:
    """Labels of the suite's 200 classes that the model knows, ascending. Raises NotAvailable if there are none."""
    class_names = test_split(config.data).class_names
    known = label_sets.known_classes(suite.subset or "", class_names)
    if not known:
        raise NotAvailable(f"none of the test split's {len(class_names)} classes is among those of {suite.title}")
    return np.sort(classes.positions(known, class_names))


def masked(name: str, suite: PublishedSuite, config: ImageConfig) -> Suite:
    """Accuracy among the suite's own classes, as its authors measure it: the logits of the others are left out."""
    return accuracy_suite(name, load(suite, config), known_classes(suite, config))
