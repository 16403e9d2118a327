"""Label spaces of ImageNet: the 1,000 classes in their order, and the classes of its robustness suites.

A label is the position of the class's WordNet id in the sorted list of the 1,000. A model may know fewer classes (a
rehearsal on a small set): then a suite's classes are those of its own that the model knows.
"""

import functools
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from typing import Any

from vmoe_inform import checks

SUBSETS = ("a", "r", "o")  # suites whose images are of 200 of the classes


@functools.cache
def _file() -> dict[str, Any]:
    return json.loads(importlib.resources.files("vmoe_inform.data.images").joinpath("imagenet.json").read_text())


@functools.cache
def wordnet_ids() -> tuple[str, ...]:
    """WordNet ids of ImageNet's 1,000 classes, sorted: label i is the i-th."""
    return tuple(_file()["classes"])


def title(class_name: str) -> str:
    """A class in words, e.g. ``"tench, Tinca tinca"`` for n01440764; other class names stand for themselves."""
    return _file()["classes"].get(class_name, class_name)


def short_title(class_name: str) -> str:
    """The first of a class's names in words: ``"tench"`` for n01440764."""
    return title(class_name).partition(",")[0]


@functools.cache
def subset(name: str) -> tuple[str, ...]:
    """WordNet ids of the 200 classes of ImageNet-A (``"a"``), -R (``"r"``) or -O (``"o"``), sorted.

    Raises:
      ValueError: another name.
    """
    if name not in SUBSETS:
        raise checks.error("subset", f"one of {', '.join(SUBSETS)}", name)
    return tuple(_file()["subsets"][name])


def alexnet_errors() -> tuple[Mapping[str, float], float]:
    """AlexNet's top-1 error by corruption of ImageNet-C (mean over the five severities), and on clean images.

    mCE divides by these (Hendrycks and Dietterich 2019, arXiv 1903.12261).
    """
    errors = _file()["imagenet_c"]
    return errors["alexnet_top1_error"], errors["alexnet_clean_top1_error"]


def is_imagenet(class_names: Sequence[str]) -> bool:
    """Whether the classes are among ImageNet's 1,000, so that its suites apply."""
    return set(class_names) <= set(wordnet_ids())


def known_classes(name: str, class_names: Sequence[str]) -> tuple[str, ...]:
    """Classes of the subset ``name`` that the model knows, sorted: all 200 for a model of ImageNet's 1,000."""
    known = set(class_names)
    return tuple(wordnet_id for wordnet_id in subset(name) if wordnet_id in known)
