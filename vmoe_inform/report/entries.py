"""What runs say of one suite: their results, its title, and where its records are from."""

from collections.abc import Mapping

from vmoe_inform.evaluation import suites as suites_lib
from vmoe_inform.evaluation.headlines import suites_of
from vmoe_inform.evaluation.results import Results, SuiteResult


def entries_of(results: Mapping[str, Results], suite: str) -> dict[str, SuiteResult]:
    """The results of each run that was evaluated on ``suite``, by run name."""
    return {run: result.suites[suite] for run, result in results.items() if suite in result.suites}


def per_corruption(results: Mapping[str, Results]) -> dict[str, Mapping[str, tuple[float, ...]]]:
    """Accuracies under each corruption of C at each severity, by run name; of runs without C none."""
    of_c = entries_of(results, "c")
    return {run: of_c[run].per_corruption if run in of_c else {} for run in results}


def origin(results: Mapping[str, Results], suite: str) -> str:
    """Where the suite's images are from, e.g. ``"generated"``; of every run where they differ; may be empty."""
    found = [entry.origin for entry in entries_of(results, suite).values()]
    return " / ".join(filter(None, dict.fromkeys(found)))


def title(results: Mapping[str, Results], suite: str, *, short: bool = False) -> str:
    """A suite's title with the origin of its images in brackets."""
    kind, where = suites_lib.kind(suite), origin(results, suite)
    words = kind.short_title if short else kind.title
    return f"{words} ({where})" if where else words


def mixed_origins(results: Mapping[str, Results]) -> list[str]:
    """Titles of the suites whose images are from different places in different runs."""
    return [
        title(results, suite)
        for suite in suites_of(results)
        if len({entry.origin for entry in entries_of(results, suite).values()}) > 1
    ]


def num_classes(results: Mapping[str, Results]) -> str:
    """Number of classes of the models in words, for titles of metrics."""
    numbers = {result.model.num_classes for result in results.values()}
    number = next(iter(numbers), None) if len(numbers) == 1 else None
    return "known" if number is None else f"{number:,}"
