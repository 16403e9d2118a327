"""The evaluation suites by name: what each is called, what it measures, where its published images lie."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

from vmoe_inform import checks, tasks
from vmoe_inform.config import Config
from vmoe_inform.data import inspection
from vmoe_inform.data.images.published import PublishedSuite
from vmoe_inform.evaluation.metric_registry import METRICS, TOP1, Metric
from vmoe_inform.evaluation.suites.base import NotAvailable, Suite
from vmoe_inform.registry import Registry

CLASSIFICATION = "classification"  # the task of images with labels

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
    tasks: tuple[str, ...] = (CLASSIFICATION,)
    sentence: str = ""


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
    tasks: Sequence[str] = (CLASSIFICATION,),
    sentence: str = "",
) -> Callable[[SuiteFunction], SuiteFunction]:
    """Decorator that registers a function from a config to a :class:`Suite`.

    Importing the module is all it takes: ``--suites=NAME`` and ``--suites=all``, ``evaluation.suites``, tables, report
    and studies know the suite. The function raises :class:`NotAvailable` if the suite's images are missing, or if it
    does not apply to the config's classes.

    Args:
      name: for command lines, and the suite's key in results.json.
      title: in words.
      short_title: where there is little room; by default the title.
      metric: the headline.
      rows: metrics that get a row of the score table, below the headline.
      details: metrics that the report's table of details shows.
      published: how the images are published, if they are: ``data.check`` and ``data.prepare`` look at it.
      examine: what ``data.check`` does for the suite; by default it opens the ``published`` images.
      tasks: names of the tasks whose runs it measures, and those of tasks that inherit from them; by default the
        classification of images.
      sentence: its headline as the report's first lines have it; by default none. Fields: ``{run}``, ``{value}``,
        ``{count}`` of the records, what is ``{counted}``, and of a share how many are ``{right}``.

    Raises:
      ValueError: the name is taken, or cannot be the name of a file.
    """
    if examine is None and published is not None:
        examine = functools.partial(inspection.examine_published, published)

    def add(function: SuiteFunction) -> SuiteFunction:
        kind = SuiteKind(
            name=name,
            title=title,
            short_title=short_title or title,
            metric=metric,
            rows=tuple(rows),
            details=tuple(details),
            published=published,
            examine=examine,
            tasks=tuple(tasks),
            sentence=sentence,
        )
        _KINDS.add(name, kind)
        _FUNCTIONS[name] = function
        return function

    return add


def names(task: str | None = None) -> tuple[str, ...]:
    """Names of all suites, or of those of a task, in the order in which they are shown: that of their registration."""
    return tuple(name for name in _FUNCTIONS if task is None or _goes_with(name, task))


def _goes_with(name: str, task: str) -> bool:
    return not tasks.kinds_of(task).isdisjoint(_KINDS[name].tasks)


def kind(name: str) -> SuiteKind:
    """How a suite is shown; one that is not registered here is shown by its name and its top-1 accuracy."""
    return _KINDS[name] if name in _KINDS else SuiteKind(name, name, name)


def details(name: str) -> tuple[Metric, ...]:
    """Metrics for the table of details: those that the suite lists, then registered ones that it shows nowhere."""
    shown = kind(name)
    listed = {metric.name for metric in (shown.metric, *shown.rows, *shown.details)}
    others = (METRICS[metric] for metric in METRICS if metric not in listed)
    return (*shown.details, *others)


def check_names(suites: Sequence[str], field: str = "evaluation.suites", *, task: str | None = None) -> None:
    """Checks that these are names of suites, each once.

    Args:
      suites: the names.
      field: where they were given.
      task: that all of them have to go with; None: any.

    Raises:
      ValueError: they are not; lists the known ones.
    """
    for name in suites:
        if name not in _KINDS:
            raise checks.unknown(field, f"one of {', '.join(_KINDS)}", name, _KINDS)
        if task is not None and not _goes_with(name, task):
            raise checks.error(field, f"suites of task {task}: {', '.join(names(task)) or 'none'}", name)
    if len(set(suites)) != len(suites):
        raise checks.error(field, "each suite once", suites)


def check_choice(given: Sequence[str] | None, field: str) -> None:
    """Checks a comma list of suites of any tasks, of which ``all`` alone is every one; None: the config decides.

    Raises:
      ValueError: none, ``all`` among others, or as :func:`check_names`.
    """
    if given is None or tuple(given) == ("all",):
        return
    if not given or "all" in given:
        raise checks.error(field, "at least one suite, or all alone", ",".join(given))
    check_names(given, field)


def chosen(given: Sequence[str] | None, config: Config) -> Sequence[str]:
    """The suites of a run.

    Args:
      given: as :func:`check_choice` takes it; ``all`` is every suite of the run's task. Suites of other tasks stay:
        several runs may share the list, and :func:`load` says that they are not available.
      config: of the run.
    """
    if given is None:
        return config.evaluation.suites
    return names(config.task) if tuple(given) == ("all",) else given


def load(name: str, config: Config) -> Suite:
    """The suite ``name`` for the data set that ``config.data`` names.

    Raises:
      ValueError: an unknown suite.
      FileNotFoundError: the data set itself is missing.
      NotAvailable: the suite is of other tasks, its own data are missing, or it does not apply to the data set's
        classes or image size. Also if the package that draws its images is not installed.
    """
    check_names([name], "suite")
    its_kind = kind(name)
    if not _goes_with(name, config.task):
        raise NotAvailable(f"it is a suite of {' and '.join(its_kind.tasks)}, and the run's task is {config.task}")
    suite = _FUNCTIONS[name](config)
    own = {metric.name: metric for metric in (its_kind.metric, *its_kind.rows, *its_kind.details)}
    versions = {**{name: metric.version for name, metric in own.items()}, **suite.metric_versions}
    headline = its_kind.metric
    return dataclasses.replace(suite, headline=headline.name, scale=headline.scale, metric_versions=versions)


def published_suites() -> list[PublishedSuite]:
    """The suites whose images are published."""
    return [suite.published for suite in map(kind, names()) if suite.published is not None]


def examinations() -> list[Examine]:
    """The checks of ``data.check`` for published suites."""
    return [suite.examine for suite in map(kind, names()) if suite.examine is not None]
