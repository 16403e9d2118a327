"""Scores of earlier evaluations: of which images they are, when they were made, and whether they are shown again."""

import datetime
from collections.abc import Collection, Mapping
from typing import Any

from vmoe_inform.config import DataConfig
from vmoe_inform.data.sources import Source
from vmoe_inform.evaluation import fingerprints
from vmoe_inform.evaluation.suites.base import Entry, Suite

OTHER_DATA = "other_data"  # of results.json: by suite, entries on other images than those of the newest evaluation

Results = dict[str, Any]


def data_of(suite: Suite, data: DataConfig) -> dict[str, str]:
    """Which images a suite shows, as its entry of results.json states it.

    Raises:
      NotAvailable, ValueError, FileNotFoundError: they cannot be read.
    """
    images = suite.images()
    return {"place": fingerprints.place_of(images[-1], data), "fingerprint": fingerprints.together(images)}


def data_of_split(source: Source, data: DataConfig) -> dict[str, str]:
    """The same of the clean images, which what is known of the routers is of."""
    return {"place": fingerprints.place_of(source, data), "fingerprint": fingerprints.fingerprint(source)}


def now() -> str:
    """Date and time in UTC, as entries of results.json have it."""
    return datetime.datetime.now(datetime.UTC).isoformat()


def has_figures(results: Results, name: str) -> bool:
    """Whether a suite was evaluated, on whatever images."""
    return "count" in results["suites"].get(name, {})


def is_of(entry: Mapping[str, Any], data: Mapping[str, str], *, same_paths: bool) -> bool:
    """Whether figures are of these images.

    Args:
      entry: of results.json, or its facts about the clean images.
      data: from :func:`data_of`.
      same_paths: whether the data lie where the run's config says: all that is known of entries of older versions.
    """
    fingerprint = entry.get("data", {}).get("fingerprint")
    return same_paths if fingerprint is None else fingerprint == data["fingerprint"]


def take_up(results: Results, name: str, data: Mapping[str, str], *, same_paths: bool) -> bool:
    """Makes the figures of a suite on these images its entry, if there are some; returns whether there are."""
    if has_figures(results, name) and is_of(results["suites"][name], data, same_paths=same_paths):
        return True
    for entry in results.get(OTHER_DATA, {}).get(name, []):
        if is_of(entry, data, same_paths=False):
            replace(results, name, entry)
            return True
    return False


def replace(results: Results, name: str, entry: Entry) -> None:
    """Makes ``entry`` the suite's; what was there stays among those of other data, if it is."""
    before = results["suites"].get(name, {})
    others = [
        other
        for other in results.get(OTHER_DATA, {}).get(name, [])
        if not is_of(other, entry["data"], same_paths=False)
    ]
    if "count" in before and not is_of(before, entry["data"], same_paths=True):
        others.append(before)
    if others or name in results.get(OTHER_DATA, {}):
        results.setdefault(OTHER_DATA, {})[name] = others
    results["suites"][name] = entry


def add(written: Results, results: Results, changed: Collection[str]) -> None:
    """Adds what an evaluation has to what is written by now, where another may have been at work.

    Args:
      written: of the same checkpoint; changed in place.
      results: of this evaluation.
      changed: suites whose entries it has made or taken up; of the others it has what it has read.
    """
    for name, entry in results["suites"].items():
        if name in changed and "data" in entry:
            replace(written, name, entry)
        elif name not in written["suites"] or (name in changed and not has_figures(written, name)):
            written["suites"][name] = entry
    for name, others in results.get(OTHER_DATA, {}).items():
        there = [written["suites"].get(name, {}), *written.get(OTHER_DATA, {}).get(name, [])]
        left = [other for other in others if not any(_are_same(other, entry) for entry in there)]
        if left:
            written.setdefault(OTHER_DATA, {}).setdefault(name, []).extend(left)


def _are_same(entry: Entry, other: Entry) -> bool:
    """Whether both are of the same images; of entries of older versions, whether they are equal."""
    return is_of(other, entry["data"], same_paths=False) if "data" in entry else entry == other


def words(entry: Mapping[str, Any]) -> str:
    """When a score was made, and of which images: ``2026-11-20 14:02 UTC, /data/val``."""
    if "evaluated" not in entry or "data" not in entry:
        return "by an older version, which recorded neither date nor data"
    when = datetime.datetime.fromisoformat(entry["evaluated"])
    return f"{when:%Y-%m-%d %H:%M} UTC, {entry['data']['place']}"


def shown_from_before(results: Mapping[str, Mapping[str, Any]], since: str) -> list[str]:
    """One line for each run and evaluation that was finished before ``since``: its suites, date and data."""
    lines = []
    for run, result in results.items():
        suites: dict[str, list[str]] = {}
        for name, entry in result["suites"].items():
            if "not_available" not in entry and entry.get("evaluated", "") < since:
                suites.setdefault(words(entry), []).append(name)
        lines += [f"{run}: {', '.join(names)}: evaluated {when}" for when, names in suites.items()]
    return lines
