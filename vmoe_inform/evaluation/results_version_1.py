"""Reads results.json as it was written before it had a schema version: one flat object for each suite."""

from collections.abc import Mapping
from typing import Any

from vmoe_inform import checks, documents
from vmoe_inform.evaluation import suites as suites_lib
from vmoe_inform.evaluation.results import Results

_FIELDS = (
    *("count", "skipped", "classes", "origin", "data", "evaluated", "top1_by_shots", "per_corruption"),
    *("reliability", "risk_coverage", "worst_classes", "seed"),
)
_ATTACK = ("loss", "epsilon", "step_size", "num_steps")
_ERROR = "_standard_error"


def read_results(value: Any) -> Results:
    """The results in a file's JSON value.

    Suites that were not available are left out: what was missing then says nothing about today.

    Raises:
      ValueError: it is none of an evaluation.
    """
    found = dict(object_of(value, "results"))
    found["suites"] = suites_of(found.get("suites"))
    others = object_of(found.pop("other_data", {}), "other_data")
    found["other_data"] = {name: [_suite(name, entry) for entry in _list(of, name)] for name, of in others.items()}
    model = dict(object_of(found.get("model"), "model"))
    router = dict(object_of(model.get("router"), "model.router"))
    if isinstance(router.get("inform"), str):
        router["inform"] = [] if router["inform"] == "none" else [router["inform"]]
    found["model"] = model | {"router": router}
    return documents.from_json(found, Results)


def suites_of(value: Any) -> dict[str, Any]:
    """The JSON of a SuiteResult by name of the suite, of an object as ``suites`` of a results.json was.

    Raises:
      ValueError: it is none.
    """
    entries = object_of(value, "suites")
    return {name: _suite(name, entry) for name, entry in entries.items() if _is_available(name, entry)}


def _is_available(name: str, entry: Any) -> bool:
    return "not_available" not in object_of(entry, f"suites.{name}")


def _suite(name: str, value: Any) -> dict[str, Any]:
    entry = dict(object_of(value, f"suites.{name}"))
    found = {field: entry.pop(field) for field in _FIELDS if field in entry}
    attack = {field: entry.pop(field) for field in _ATTACK if field in entry}
    if attack:
        found["attack"] = attack
    if entry.pop("generated", False):
        found["origin"] = "generated"
    errors = {key: entry.pop(key) for key in list(entry) if key.endswith(_ERROR)}
    return found | {
        "headline": suites_lib.kind(name).metric.name,
        "metrics": {key: number for key, number in entry.items() if _is_number(number)},
        "standard_errors": {key.removesuffix(_ERROR): number for key, number in errors.items()},
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def object_of(value: Any, field: str) -> Mapping[str, Any]:
    """The value, if it is a JSON object. Raises ValueError if not."""
    if not isinstance(value, dict):
        raise ValueError(checks.words_of_misfit(field, "an object", value))
    return value


def _list(value: Any, field: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(checks.words_of_misfit(field, "a list", value))
    return value
