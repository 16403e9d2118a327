"""The evaluation suites by name: what each is called, what it measures, where its published images lie."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from vmoe_inform import checks
from vmoe_inform.config import Config
from vmoe_inform.data import inspection
from vmoe_inform.data.images.published import PublishedSuite
from vmoe_inform.evaluation.metric_registry import METRICS, TOP1, Metric
from vmoe_inform.evaluation.suites.base import Suite
from vmoe_inform.registry import Registry

SuiteFunction = Callable[[Any], Suite]  # of a config of the suite's domain
Examine = Callable[[inspection.Request], list[inspection.Finding]]


@dataclasses.dataclass(frozen=True)
class SuiteKind:
    """A registered suite. :func:`register` says what the attributes mean."""

    name: str
    title: str
    short_title: str
    metric: Metric = TOP1
    rows: tuple[Metric, ...] = ()
    details: tuple[Metric, ...] = ()
    published: PublishedSuite | None = None
    examine: Examine | None = None


_KINDS: Registry[SuiteKind] = Registry("suite")
_FUNCTIONS: dict[str, SuiteFunction] = {}  # in the order in which suites are shown


def register(
    name: str,
    *,
    title: str,
    short_title: str = "",
    metric: Metric = TOP1,
    rows: Sequence[Metric] = (),
    details: Sequence[Metric] = (),
    published: PublishedSuite | None = None,
    examine: Examine | None = None,
) -> Callable[[SuiteFunction], SuiteFunction]:
    """Decorator that registers a function from a config to a :class:`Suite`.

    Importing the module is all it takes: ``--suites=NAME`` and ``--suites=all``, ``evaluation.suites``, tables, report
    and studies know the suite. The function raises :class:`NotAvailable` if the suite's images are missing, or if it
    does not apply to the config's classes.

    Args:
      name: for command lines, and the suite's key in results.json.
      title: in words.
      short_title: where there is little room; by default the title.
      metric: the headline, a share from 0 to 1; more is better.
      rows: metrics that get a row of the score table, below the headline.
      details: metrics that the report's table of details shows.
      published: how the images are published, if they are: ``data.check`` and ``data.prepare`` look at it.
      examine: what ``data.check`` does for the suite; by default it opens the ``published`` images.

    Raises:
      ValueError: the name is taken, or cannot be the name of a file.
    """
    if examine is None and published is not None:
        examine = functools.partial(inspection.examine_published, published)

    def add(function: SuiteFunction) -> SuiteFunction:
        kind = SuiteKind(name, title, short_title or title, metric, tuple(rows), tuple(details), published, examine)
        _KINDS.add(name, kind)
        _FUNCTIONS[name] = function
        return function

    return add


def names() -> tuple[str, ...]:
    """Names of all suites, in the order in which they are shown: that of their registration."""
    return tuple(_FUNCTIONS)


def kind(name: str) -> SuiteKind:
    """How a suite is shown; one that is not registered here is shown by its name and its top-1 accuracy."""
    return _KINDS[name] if name in _KINDS else SuiteKind(name, name, name)


def details(name: str) -> tuple[Metric, ...]:
    """Metrics for the table of details: those that the suite lists, then registered ones that it shows nowhere."""
    shown = kind(name)
    listed = {metric.name for metric in (shown.metric, *shown.rows, *shown.details)}
    others = (METRICS[metric] for metric in METRICS if metric not in listed)
    return (*shown.details, *others)


def check_names(suites: Sequence[str], field: str = "evaluation.suites") -> None:
    """Checks that these are names of suites, each once.

    Raises:
      ValueError: they are not; lists the known ones.
    """
    for name in suites:
        if name not in _KINDS:
            raise checks.unknown(field, f"one of {', '.join(_KINDS)}", name, _KINDS)
    if len(set(suites)) != len(suites):
        raise checks.error(field, "each suite once", suites)


def chosen(given: Sequence[str], field: str) -> Sequence[str]:
    """The suites of a comma list, of which ``all`` alone is every one.

    Raises:
      ValueError: none, ``all`` among others, or as :func:`check_names`.
    """
    if tuple(given) == ("all",):
        return names()
    if not given or "all" in given:
        raise checks.error(field, "at least one suite, or all alone", ",".join(given))
    check_names(given, field)
    return given


def load(name: str, config: Config) -> Suite:
    """The suite ``name`` for the data set that ``config.data`` names.

    Raises:
      ValueError: an unknown suite.
      FileNotFoundError: the data set itself is missing.
      NotAvailable: the suite's own data are missing, or it does not apply to the data set's classes or image size. Also
        if the package that draws its images is not installed.
    """
    check_names([name], "suite")
    suite, its_kind = _FUNCTIONS[name](config), kind(name)
    own = {metric.name: metric.version for metric in (its_kind.metric, *its_kind.rows, *its_kind.details)}
    versions = {**own, **suite.metric_versions}
    return dataclasses.replace(suite, headline=its_kind.metric.name, metric_versions=versions)


def published_suites() -> list[PublishedSuite]:
    """The suites whose images are published."""
    return [suite.published for suite in map(kind, names()) if suite.published is not None]


def examinations() -> list[Examine]:
    """The checks of ``data.check`` for published suites."""
    return [suite.examine for suite in map(kind, names()) if suite.examine is not None]
