"""The evaluation suites by name, and how each is shown. What they do is registered in ``vmoe_inform.evaluation``."""

import dataclasses
from collections.abc import Sequence

from vmoe_inform import checks
from vmoe_inform.registry import Registry


@dataclasses.dataclass(frozen=True)
class SuiteKind:
    """How a suite is shown.

    Attributes:
      metric: key of its headline in results.json; a share between 0 and 1.
      title: its name in words.
      short_title: its name where there is little room.
      metric_title: the metric in words.
    """

    metric: str
    title: str
    short_title: str
    metric_title: str = "top-1 accuracy"


# In the order in which they are shown.
SUITES = {
    "clean": SuiteKind("top1", "Clean test images", "clean"),
    "real": SuiteKind("top1", "ReaL: clean images with all labels that apply", "ReaL, reassessed labels"),
    "v2": SuiteKind("top1", "V2: a second test set, collected like the first", "V2, second test set"),
    "c": SuiteKind("mean_top1", "C: corrupted images", "C, corrupted", "mean top-1 accuracy"),
    "r": SuiteKind("top1", "R: the same classes in another rendition", "R, renditions"),
    "a": SuiteKind("top1", "A: images that a simple classifier gets wrong", "A, hard images"),
    "sketch": SuiteKind("top1", "Sketch: drawings of the same classes", "Sketch, drawings"),
    "o": SuiteKind("aupr", "O: spotting objects of no known class", "O, other objects", "precision-recall area"),
    "fgsm": SuiteKind("top1", "FGSM: images changed by one step against the model", "FGSM, one-step attack"),
    "pgd": SuiteKind("top1", "PGD: images changed by several steps against the model", "PGD, many-step attack"),
    "linear": SuiteKind("top1", "Linear: a linear classifier of the model's features", "linear classifier"),
    "fewshot": SuiteKind("top1", "Few-shot: a linear classifier learned from few images a class", "few-shot"),
}


def check_names(names: Sequence[str], field: str = "suite") -> None:
    """Checks that these are names of suites, each once.

    Raises:
      ValueError: they are not; lists the known ones.
    """
    known: Registry[SuiteKind] = Registry(field)
    for name, kind in SUITES.items():
        known.add(name, kind)
    for name in names:
        known[name]
    if len(set(names)) != len(names):
        raise checks.error(field, "each suite once", names)


def register(name: str) -> None:
    """Makes a suite known by its name; one that is not listed above is shown by its name and its top-1 accuracy."""
    SUITES.setdefault(name, SuiteKind("top1", name, name))
