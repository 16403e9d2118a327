"""Suites by name: those for any data set, and those for ImageNet's classes or for others."""

from collections.abc import Sequence

from vmoe_inform import suite_kinds
from vmoe_inform.config import Config
from vmoe_inform.data.images import label_sets
from vmoe_inform.evaluation.suites import (  # noqa: F401  (they register their suites)
    adversarial,
    corrupted,
    imagenet,
    mini,
    transfer,
)
from vmoe_inform.evaluation.suites.base import (
    IMAGENET_SUITES,
    MINI_SUITES,
    SUITES,
    NotAvailable,
    Suite,
    SuiteFunction,
    test_split,
)
from vmoe_inform.registry import Registry

_REGISTRIES = (SUITES, IMAGENET_SUITES, MINI_SUITES)


def names() -> tuple[str, ...]:
    """Names of all suites, sorted."""
    return tuple(sorted({name for registry in _REGISTRIES for name in registry}))


def load(name: str, config: Config) -> Suite:
    """The suite ``name`` for the data set that ``config.data`` names.

    Raises:
      ValueError: an unknown suite.
      FileNotFoundError: the data set itself is missing.
      NotAvailable: the suite's own data are missing, or there is no such suite for the data set's classes; what makes
        them is not installed, or they do not go with the model's image size.
    """
    suite_kinds.check_names([name])
    if name in SUITES:
        return SUITES[name](config)
    class_names = test_split(config.data).class_names
    family = _family(class_names)
    if name not in family:
        raise NotAvailable(
            f"there is no such {family.kind}, as those of source {config.data.source!r} are ({class_names[0]!r}, ...)"
        )
    return family[name](config)


def _family(class_names: Sequence[str]) -> Registry[SuiteFunction]:
    return IMAGENET_SUITES if label_sets.is_imagenet(class_names) else MINI_SUITES
