"""Results of earlier evaluations: their records, their date, and whether they are shown again."""

import dataclasses
import datetime
from collections.abc import Collection, Mapping
from typing import Any

from vmoe_inform.config import DataConfig
from vmoe_inform.evaluation import fingerprints
from vmoe_inform.evaluation.metric_registry import FIRST_METRICS
from vmoe_inform.evaluation.results import CleanData, Data, Results, SuiteResult
from vmoe_inform.evaluation.suites.base import Records, Suite


def data_of(suite: Suite, data: DataConfig) -> Data:
    """The records of a suite.

    Raises:
      NotAvailable, ValueError, FileNotFoundError: they cannot be read.
    """
    records = suite.records()
    return Data(fingerprints.place_of(records[-1], data), fingerprints.together(records))


def data_of_split(source: Records, data: DataConfig) -> Data:
    """The clean records, which routing statistics are of."""
    return Data(fingerprints.place_of(source, data), fingerprints.fingerprint(source))


def now() -> str:
    """Date and time in UTC, as results have it."""
    return datetime.datetime.now(datetime.UTC).isoformat()


def has_result(results: Results | None, name: str) -> bool:
    """Whether a suite was evaluated, on any records."""
    return results is not None and name in results.suites


def is_of(data: Data | CleanData | None, here: Data, *, same_paths: bool) -> bool:
    """Whether a result is of the records here.

    Args:
      data: what the result says of its records.
      here: from :func:`data_of`.
      same_paths: whether the data lie where the run's config says: all that is known of results of older versions.
    """
    fingerprint = None if data is None else data.fingerprint
    return same_paths if fingerprint is None else fingerprint == here.fingerprint


def take_up(results: Results | None, name: str, data: Data, *, same_paths: bool) -> Results | None:
    """The results with that of a suite on these records as its newest; None if there is none."""
    if results is None:
        return None
    if name in results.suites and is_of(results.suites[name].data, data, same_paths=same_paths):
        return results
    for result in results.other_data.get(name, ()):
        if is_of(result.data, data, same_paths=False):
            return replace(results, name, result)
    return None


def replace(results: Results, name: str, result: SuiteResult) -> Results:
    """The results with a newer one of a suite; what was there stays in ``other_data`` if it is of other records.

    Args:
      results: of a checkpoint.
      name: of the suite.
      result: which says of which records it is.
    """
    assert result.data is not None
    before = results.suites.get(name)
    others = [
        other for other in results.other_data.get(name, ()) if not is_of(other.data, result.data, same_paths=False)
    ]
    if before is not None and not is_of(before.data, result.data, same_paths=True):
        others.append(before)
    other_data = (
        {**results.other_data, name: tuple(others)} if others or name in results.other_data else results.other_data
    )
    return dataclasses.replace(results, suites={**results.suites, name: result}, other_data=other_data)


def merge(written: Results, results: Results, changed: Collection[str]) -> Results:
    """The results of an evaluation with those that another has written meanwhile.

    Args:
      written: of the same checkpoint.
      results: of this evaluation.
      changed: suites whose results it has made or taken up; of the others it has what it has read.
    """
    merged = dataclasses.replace(results, suites=written.suites, other_data=written.other_data)
    for name, result in results.suites.items():
        if name in changed and result.data is not None:
            merged = replace(merged, name, result)
        elif name not in merged.suites:
            merged = dataclasses.replace(merged, suites={**merged.suites, name: result})
    other_data = dict(merged.other_data)
    for name, others in results.other_data.items():
        there = [*filter(None, [merged.suites.get(name)]), *other_data.get(name, ())]
        left = tuple(other for other in others if not any(_are_same(other, result) for result in there))
        if left:
            other_data[name] = (*other_data.get(name, ()), *left)
    return dataclasses.replace(merged, other_data=other_data)


def _are_same(result: SuiteResult, other: SuiteResult) -> bool:
    """Whether both are of the same records; of results of older versions, whether they are equal."""
    return result == other if result.data is None else is_of(other.data, result.data, same_paths=False)


def outdated(result: SuiteResult, suite: Suite) -> list[str]:
    """Names of the metrics that the suite has now and the result has not, or in another version."""
    kept = result.versions or FIRST_METRICS
    return [name for name, version in suite.metric_versions.items() if kept.get(name) != version]


def keep_metrics(result: SuiteResult, before: SuiteResult, names: Collection[str]) -> SuiteResult:
    """The result with these metrics as they were, in the versions that they had."""

    def kept(now: Mapping[str, Any], then: Mapping[str, Any]) -> dict[str, Any]:
        others = {name: value for name, value in now.items() if name not in names}
        return others | {name: value for name, value in then.items() if name in names}

    return dataclasses.replace(
        result,
        metrics=kept(result.metrics, before.metrics),
        standard_errors=kept(result.standard_errors, before.standard_errors),
        versions=kept(result.versions, before.versions or FIRST_METRICS),
    )


def words(result: SuiteResult) -> str:
    """When a result was made, and of which records: ``2026-11-20 14:02 UTC, /data/val``."""
    if not result.evaluated or result.data is None:
        return "by an older version, which recorded neither date nor data"
    return f"{datetime.datetime.fromisoformat(result.evaluated):%Y-%m-%d %H:%M} UTC, {result.data.place}"


def shown_from_before(results: Mapping[str, Results], since: str) -> list[str]:
    """One line for each run and evaluation that was finished before ``since``: its suites, date and data."""
    lines = []
    for run, of_run in results.items():
        suites: dict[str, list[str]] = {}
        for name, result in of_run.suites.items():
            if result.evaluated < since:
                suites.setdefault(words(result), []).append(name)
        lines += [f"{run}: {', '.join(names)}: evaluated {when}" for when, names in suites.items()]
    return lines
